"""Pictures on plain backgrounds, moved and resized so that what they show fills one place."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from lumina.worlds.judge import BORDER, DISTINCT

FEWEST = 2  # pixels of a row or column that stand out, below which it belongs to the background


class Boxes(NamedTuple):
    """What stands out of the background: its middle, and its longer side, from -1 to 1."""

    middle: Float[Tensor, "*b 2"]
    side: Float[Tensor, "*b"]


def align(pictures: Float[Tensor, "views b 3 rows cols"]) -> Float[Tensor, "views b 3 rows cols"]:
    """Bring what all views show to their mean place and size.

    Args:
        pictures: Values from -1 to 1. Where nothing stands out of the color of the border, or
            everything does, the picture stays as it is.
    """
    boxes = find_boxes(pictures.flatten(0, 1))
    shape = pictures.shape[:2]
    middle, side = boxes.middle.view(*shape, 2), boxes.side.view(shape)
    moved = place(
        pictures.flatten(0, 1),
        boxes,
        Boxes(
            middle.mean(0, keepdim=True).expand(*shape, 2).flatten(0, 1),
            side.mean(0, keepdim=True).expand(shape).flatten(),
        ),
    )
    return moved.view_as(pictures)


def find_boxes(pictures: Float[Tensor, "b 3 rows cols"]) -> Boxes:
    """Where something stands out of the background: the whole picture where nothing does."""
    edges = (
        pictures[:, :, :BORDER].flatten(2),
        pictures[:, :, -BORDER:].flatten(2),
        pictures[..., :BORDER].flatten(2),
        pictures[..., -BORDER:].flatten(2),
    )
    background = torch.cat(edges, dim=2).median(2).values
    smooth = functional.avg_pool2d(pictures, 3, stride=1, padding=1, count_include_pad=False)
    stands_out = (smooth - background[..., None, None]).norm(dim=1) > DISTINCT * 2 / 255
    top, bottom = _ends(stands_out.sum(2) >= FEWEST)
    left, right = _ends(stands_out.sum(1) >= FEWEST)
    middle = torch.stack([left + right, top + bottom], dim=1) / 2
    return Boxes(middle, torch.maximum(right - left, bottom - top))


def place(
    pictures: Float[Tensor, "b 3 rows cols"], found: Boxes, wanted: Boxes
) -> Float[Tensor, "b 3 rows cols"]:
    """Move and resize pictures so that boxes get where they are wanted; borders are continued."""
    scale = found.side / wanted.side
    shift = found.middle - scale[:, None] * wanted.middle
    zeros = torch.zeros_like(scale)
    matrix = torch.stack(
        [
            torch.stack([scale, zeros, shift[:, 0]], dim=1),
            torch.stack([zeros, scale, shift[:, 1]], dim=1),
        ],
        dim=1,
    )
    grid = functional.affine_grid(matrix, list(pictures.shape), align_corners=False)
    return functional.grid_sample(
        pictures, grid, mode="bicubic", padding_mode="border", align_corners=False
    )


def _ends(is_in: Bool[Tensor, "b n"]) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
    """Where the first true value begins and the last one ends, from -1 to 1."""
    count = is_in.shape[1]
    is_in = torch.where(is_in.any(1, keepdim=True), is_in, torch.ones_like(is_in)).float()
    first, last = is_in.argmax(1), count - is_in.flip(1).argmax(1)
    return 2 * first / count - 1, 2 * last / count - 1
