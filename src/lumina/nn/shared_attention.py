"""Attention across the pictures of a batch, by which they come to look alike."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lumina.types import Attend


def share_attention(
    pictures: int,
    tokens: Int[Tensor, " shared"],
    *,
    sharing: float,
    sources: int | None = None,
) -> Attend:
    """Let the pictures of a batch attend to tokens of others, besides all of their own.

    Rows are those of all pictures with their prompts, followed by those of all pictures without
    them if there is guidance. Each half shares among itself. Keys are rotated by where they are in
    their own picture. Attention is by PyTorch's kernel, since others take no weights.

    Args:
        pictures: How many there are.
        tokens: Which tokens others may attend to.
        sharing: How many times such a token counts, above 0. A picture's own tokens count once.
        sources: Share the tokens of this many of the first pictures. None: of all.

    Source:
        Style-consistent generation of Lumina-Next, arXiv:2406.18583, which shares all keys and
        values of a batch; weights, and a reference, as in StyleAligned, arXiv:2312.02133.
    """
    sources = pictures if sources is None else sources

    def attend_across(
        query: Float[Tensor, "b n h k"],
        key: Float[Tensor, "b n g k"],
        value: Float[Tensor, "b n g k"],
        *,
        mask: Tensor | None = None,
        scale: float | None = None,
    ) -> Float[Tensor, "b n h k"]:
        if mask is not None:
            raise ValueError("pictures cannot share tokens where a mask hides some")
        weights = _weigh(query.shape[1], len(tokens), pictures, sources, sharing)
        weights = weights.to(query).repeat(len(query) // pictures, 1)[:, None, None]
        where = tokens.to(key.device)
        values = nn.functional.scaled_dot_product_attention(
            query.transpose(1, 2),
            _with_others(key, where, pictures, sources).transpose(1, 2),
            _with_others(value, where, pictures, sources).transpose(1, 2),
            attn_mask=weights.expand(-1, query.shape[2], query.shape[1], -1),
            scale=scale,
            enable_gqa=query.shape[2] != key.shape[2],
        )
        return values.transpose(1, 2)

    return attend_across


def frame_tokens(rows: int, cols: int) -> Int[Tensor, " frame"]:
    """Tokens along the edges of a grid, where pictures show surroundings rather than a subject."""
    is_frame = torch.ones(rows, cols, dtype=torch.bool)
    is_frame[1:-1, 1:-1] = False
    return is_frame.flatten().nonzero()[:, 0]


def _with_others(
    x: Float[Tensor, "b n g k"], tokens: Int[Tensor, " shared"], pictures: int, sources: int
) -> Float[Tensor, "b more g k"]:
    """Tokens of each picture, followed by the shared tokens of all sources."""
    shared = x.unflatten(0, (-1, pictures))[:, :sources, tokens].flatten(1, 2)
    return torch.cat([x, shared.repeat_interleave(pictures, dim=0)], dim=1)


def _weigh(
    own: int, shared: int, pictures: int, sources: int, sharing: float
) -> Float[Tensor, "pictures more"]:
    """What is added to the scores of each key: nothing for own tokens, which occur once."""
    others = torch.full((pictures, sources), math.log(sharing))
    others.fill_diagonal_(-math.inf)
    return torch.cat([torch.zeros(pictures, own), others.repeat_interleave(shared, dim=1)], dim=1)
