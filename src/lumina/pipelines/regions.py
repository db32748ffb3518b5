"""Regions of a picture: which part of it shows what."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Bool
from torch import Tensor

from lumina.errors import LuminaError
from lumina.pipelines.pictures import Picture, as_mask, size_of
from lumina.types import Size


@dataclass(frozen=True)
class Region:
    """A part of a picture, and what it shows.

    Args:
        prompt: What to draw there.
        box: Left, top, width and height, in pixels.
        mask: A picture of the size of the whole, white where the region is, instead of a box.
            Gray is white from 128 of 255 on.

    Raises:
        LuminaError: If there is not exactly one of box and mask.
    """

    prompt: str
    box: tuple[int, int, int, int] | None = None
    mask: Picture | None = None

    def __post_init__(self) -> None:
        """Refuse two places, or none."""
        if (self.box is None) == (self.mask is None):
            places = "no place" if self.box is None else "two places"
            raise LuminaError(
                f"the region of {self.prompt!r} has {places}", hint="give either a box or a mask"
            )

    def cover(self, size: Size) -> Bool[Tensor, "height width"]:
        """Which pixels of a picture it covers.

        Raises:
            LuminaError: If it does not lie in the picture.
        """
        if self.mask is not None:
            return _cover_mask(self.mask, self.prompt, size)
        left, top, width, height = cast(tuple[int, int, int, int], self.box)
        is_inside = min(left, top) >= 0 and left + width <= size.width
        if min(width, height) < 1 or not is_inside or top + height > size.height:
            raise LuminaError(
                f"the region of {self.prompt!r}, {width}x{height} pixels at {left},{top}, does not"
                f" lie in a picture of {size.width}x{size.height}",
                hint="a box is left, top, width and height",
            )
        covered = torch.zeros(size.height, size.width, dtype=torch.bool)
        covered[top : top + height, left : left + width] = True
        return covered


def grid_regions(
    rows: int, cols: int, prompts: Sequence[str], size: tuple[int, int]
) -> list[Region]:
    """Regions that fill a picture, as the cells of a grid do.

    Args:
        rows: How many cells there are from top to bottom.
        cols: How many there are from left to right.
        prompts: One for each cell, row after row.
        size: Width and height of the picture, in pixels.

    Raises:
        LuminaError: If there are not as many prompts as cells, or no cells.
    """
    if rows < 1 or cols < 1 or len(prompts) != rows * cols:
        raise LuminaError(
            f"there are {len(prompts)} prompts for a grid of {rows} rows and {cols} columns",
            hint="give one prompt for each cell, row after row",
        )
    lefts, tops = _edges(size[0], cols), _edges(size[1], rows)
    return [
        Region(prompts[row * cols + col], (left, top, right - left, bottom - top))
        for row, (top, bottom) in enumerate(tops)
        for col, (left, right) in enumerate(lefts)
    ]


def cover_all(regions: Sequence[Region], size: Size) -> Bool[Tensor, "regions height width"]:
    """Which pixels each region covers; where two do, the later lies over the earlier.

    Raises:
        LuminaError: If there are none, or one does not lie in the picture or is hidden by others.
    """
    if not regions:
        raise LuminaError("there are no regions", hint="give one or more")
    covered = torch.stack([region.cover(size) for region in regions])
    for number, region in enumerate(regions):
        if not (covered[number] & ~covered[number + 1 :].any(0)).any():
            raise LuminaError(
                f"the region of {region.prompt!r} lies below others, and nothing of it is seen",
                hint="regions lie over those before them: give the small ones last",
            )
    return covered


def _cover_mask(mask: Picture, prompt: str, size: Size) -> Bool[Tensor, "height width"]:
    own = size_of(mask)
    if own != size:
        raise LuminaError(
            f"the mask of {prompt!r} has {own.width}x{own.height} pixels, and the picture"
            f" {size.width}x{size.height}",
            hint="give a mask of the size of the picture",
        )
    return as_mask(mask)[0, 0] > 0


def _edges(length: int, cells: int) -> list[tuple[int, int]]:
    edges = [cell * length // cells for cell in range(cells + 1)]
    return list(zip(edges[:-1], edges[1:], strict=True))
