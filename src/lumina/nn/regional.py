"""Regions of a picture that read a text each, with soft borders between them."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from lumina.nn.attention import fused_attend
from lumina.types import Attend

UNNOTICED = 1e-30
"""Weight of a token that attention sees, and that the mean of a text, in float32, does not."""


def attend_regions(weights: Float[Tensor, "texts n"], attend: Attend = fused_attend) -> Attend:
    """Attend to several texts, each of which counts in its own part of a picture.

    Keys and values are those of all texts one after another, padded to one length. The values
    taken from each text are added up by its weights. Where the texts of a row are all the same,
    and the weights of each token add up to 1, this is plain attention to that text.

    Args:
        weights: How much of each text each token takes.
        attend: What attends to one text.

    Source:
        Compositional generation in `lumina_next_compositional_generation/models/model.py` of the
        original code, which has no weights but 0 and 1.
    """
    texts = len(weights)

    def attend_each(
        query: Float[Tensor, "b n h k"],
        key: Float[Tensor, "b m g k"],
        value: Float[Tensor, "b m g k"],
        *,
        mask: Bool[Tensor, "b 1 1 m"] | None = None,
        scale: float | None = None,
    ) -> Float[Tensor, "b n h k"]:
        queries = query.repeat_interleave(texts, dim=0)
        keys, values = (x.unflatten(1, (texts, -1)).flatten(0, 1) for x in (key, value))
        if mask is not None:
            mask = mask.unflatten(-1, (texts, -1)).movedim(-2, 1).flatten(0, 1)
        taken = attend(queries, keys, values, mask=mask, scale=scale).unflatten(0, (-1, texts))
        return torch.einsum("btnhk,tn->bnhk", taken, weights.to(taken))

    return attend_each


def part_picture(
    masks: Bool[Tensor, "regions height width"], *, border: int
) -> Float[Tensor, "parts height width"]:
    """How much of each pixel belongs to what is outside of all regions, and to each region.

    The parts of a pixel add up to 1. Where regions overlap, the later lies over the earlier.

    Args:
        masks: Where each region is.
        border: Pixels across which one part turns into the next; the middle is the border itself.
    """
    owner = torch.zeros(masks.shape[1:], dtype=torch.long, device=masks.device)
    for number, mask in enumerate(masks, start=1):
        owner = owner.where(~mask, number)
    parts = nn.functional.one_hot(owner, len(masks) + 1).movedim(-1, 0).float()
    return _smooth(parts, reach=border // 2)


def keep_outside(
    parts: Float[Tensor, "parts height width"],
) -> Float[Tensor, "parts height width"]:
    """Move the soft borders of regions to their insides, so that what is around them stays whole.

    The parts of a pixel still add up to 1, and borders between two regions stay in their middle.

    Args:
        parts: As from `part_picture`.
    """
    kept = (2 * parts[:1]).clamp(max=1)
    sure = torch.cat([kept, (2 * parts[1:] - 1).clamp(min=0)])
    return sure + (1 - sure.sum(0)) * parts


def coarsen(
    parts: Float[Tensor, "parts height width"], factor: int
) -> Float[Tensor, "parts rows cols"]:
    """Means over squares of pixels: parts of latents or of tokens."""
    return nn.functional.avg_pool2d(parts, factor)


def _smooth(
    parts: Float[Tensor, "parts height width"], *, reach: int
) -> Float[Tensor, "parts height width"]:
    """Means over all pixels that are at most `reach` away along each axis."""
    padded = nn.functional.pad(parts[None], (reach,) * 4, mode="replicate")
    along_rows = nn.functional.avg_pool2d(padded, (2 * reach + 1, 1), stride=1)
    return nn.functional.avg_pool2d(along_rows, (1, 2 * reach + 1), stride=1)[0]
