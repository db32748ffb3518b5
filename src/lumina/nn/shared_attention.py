"""Attention across the pictures of a batch, by which they come to look alike.

Rows are those of all pictures with their prompts, followed by those of all pictures without them if
there is guidance. Each half shares among itself. Weights of keys are added to the scores as
logarithms, by PyTorch's kernel, since others take none.
"""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lumina.types import Attend

_LEAST = 1e-12  # where no word is attended to by the frame more than by the rest, none is shared


def share_words(pictures: int, frame: Int[Tensor, " frame"], *, sharing: float) -> Attend:
    """Let pictures attend to words of the first prompt that concern its surroundings.

    A word does if the frame of the first picture attends to it more than the rest of the picture
    does: "on a red background", and not "a cat". It counts by how much more. Such words are found
    anew in each block and at each time, so that nothing has to be known about the language.

    Keys and values are those of a picture's own text, followed by those of the first text where
    the mask lets a picture see them.

    Args:
        pictures: How many there are.
        frame: Which tokens lie along the edges of a picture.
        sharing: How many times the most shared word counts. A picture's own words count once. 0
            shares none.
    """

    def attend_words(
        query: Float[Tensor, "b n h k"],
        key: Float[Tensor, "b m g k"],
        value: Float[Tensor, "b m g k"],
        *,
        mask: Bool[Tensor, "b 1 1 m"] | None = None,
        scale: float | None = None,
    ) -> Float[Tensor, "b n h k"]:
        if mask is None:
            raise ValueError("a mask has to tell which pictures see the words of the first")
        words = key.shape[1] // 2
        firsts = (x[::pictures] for x in (query, key[:, :words], mask[..., :words]))
        shares = _concern_frame(*firsts, frame=frame, scale=scale)
        others = (sharing * shares).log().repeat_interleave(pictures, dim=0)
        weights = torch.cat([torch.zeros_like(others), others], dim=1)[:, None, None]
        return _attend(query, key, value, weights.masked_fill(~mask, -math.inf), scale)

    return attend_words


def share_tokens(
    pictures: int, tokens: Int[Tensor, " shared"], *, sharing: float, sources: int | None = None
) -> Attend:
    """Let pictures attend to tokens of others, besides all of their own.

    Keys are rotated by where they are in their own picture.

    Args:
        pictures: How many there are.
        tokens: Which tokens others may attend to.
        sharing: How many times such a token counts. A picture's own tokens count once. 0 shares
            none.
        sources: Share the tokens of this many of the first pictures. None: of all.

    Source:
        Style-consistent generation of Lumina-Next, arXiv:2406.18583, which shares all keys and
        values of a batch; a picture that others follow, as in StyleAligned, arXiv:2312.02133.
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
        others = torch.full((pictures, sources), sharing, device=query.device).log()
        others.fill_diagonal_(-math.inf)
        own = others.new_zeros(pictures, query.shape[1])
        weights = torch.cat([own, others.repeat_interleave(len(tokens), dim=1)], dim=1)
        key, value = (_with_others(x, tokens, pictures, sources) for x in (key, value))
        weights = weights.repeat(len(query) // pictures, 1)[:, None, None]
        return _attend(query, key, value, weights, scale)

    return attend_across


def frame_tokens(rows: int, cols: int) -> Int[Tensor, " frame"]:
    """Tokens along the edges of a grid, where pictures show surroundings rather than a subject."""
    is_frame = torch.ones(rows, cols, dtype=torch.bool)
    is_frame[1:-1, 1:-1] = False
    return is_frame.flatten().nonzero()[:, 0]


def _concern_frame(
    query: Float[Tensor, "groups n h k"],
    key: Float[Tensor, "groups m g k"],
    mask: Bool[Tensor, "groups 1 1 m"],
    *,
    frame: Int[Tensor, " frame"],
    scale: float | None,
) -> Float[Tensor, "groups m"]:
    """How much more the frame attends to each word than all tokens do, as shares of the most."""
    key = key.repeat_interleave(query.shape[2] // key.shape[2], dim=2)
    scores = torch.einsum("gnhk,gmhk->ghnm", query.float(), key.float())
    scores = scores * (scale or query.shape[-1] ** -0.5)
    looks = scores.masked_fill(~mask, -math.inf).softmax(-1).mean(1)  # (groups, n, m)
    more = (looks[:, frame.to(looks.device)].mean(1) - looks.mean(1)).clamp(min=0)
    return more / more.amax(1, keepdim=True).clamp(min=_LEAST)


def _attend(
    query: Float[Tensor, "b n h k"],
    key: Float[Tensor, "b m g k"],
    value: Float[Tensor, "b m g k"],
    weights: Float[Tensor, "b 1 1 m"],
    scale: float | None,
) -> Float[Tensor, "b n h k"]:
    values = nn.functional.scaled_dot_product_attention(
        query.transpose(1, 2),
        key.transpose(1, 2),
        value.transpose(1, 2),
        attn_mask=weights.to(query).expand(-1, query.shape[2], query.shape[1], -1),
        scale=scale,
        enable_gqa=query.shape[2] != key.shape[2],
    )
    return values.transpose(1, 2)


def _with_others(
    x: Float[Tensor, "b n g k"], tokens: Int[Tensor, " shared"], pictures: int, sources: int
) -> Float[Tensor, "b more g k"]:
    """Tokens of each picture, followed by the shared tokens of all sources."""
    of_sources = x.unflatten(0, (-1, pictures))[:, :sources, tokens.to(x.device)].flatten(1, 2)
    return torch.cat([x, of_sources.repeat_interleave(pictures, dim=0)], dim=1)
