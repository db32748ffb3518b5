"""Regions of a picture as they are written down: boxes and masks, each with a prompt."""

import re
from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple

from lumina.errors import LuminaError

if TYPE_CHECKING:
    from PIL.Image import Image


class Place(NamedTuple):
    """A region: either of box and mask."""

    prompt: str
    box: tuple[int, int, int, int] | None
    """Left, top, width and height, in pixels."""
    mask: str | None
    """A picture that is white there."""


def read_region(text: str) -> Place:
    """The region of a text like `0,0,96,128=a cat` or `mask.png=a cat`.

    Raises:
        LuminaError: If its place or its prompt is missing.
    """
    place, _, prompt = (part.strip() for part in text.partition("="))
    if not place or not prompt:
        raise LuminaError(
            f"the region {text!r} lacks its place or its prompt",
            hint='write left, top, width and height: "0,0,96,128=a cat", or "mask.png=a cat"',
        )
    if not _is_like_a_box(place):
        return Place(prompt, None, place)
    numbers = re.fullmatch(r"\s*,\s*".join([r"(-?\d{1,9})"] * 4), place)
    if not numbers:
        raise LuminaError(
            f"the region of {prompt!r} is at {place!r}",
            hint="write left, top, width and height in whole pixels: 0,0,96,128",
        )
    left, top, width, height = map(int, numbers.groups())
    return Place(prompt, (left, top, width, height), None)


def _is_like_a_box(place: str) -> bool:
    """Whether a place is meant to be numbers, be they right or not, and not a file."""
    begins_as_one = re.match(r"-?\d[\d.]*\s*[-,;:/x\s]|-?\d+$", place)
    return bool(begins_as_one) and not re.search(r"\.[A-Za-z]\w*$", place)


def check_box(place: Place, size: tuple[int, int]) -> None:
    """Refuse a box that does not lie in a picture.

    Raises:
        LuminaError: If it does not, or has no pixels.
    """
    if place.box is None:
        return
    (left, top, width, height), (right, bottom) = place.box, size
    if width < 1 or height < 1:
        raise LuminaError(
            f"the region of {place.prompt!r} has {width}x{height} pixels",
            hint="write left, top, width and height",
        )
    if left < 0 or top < 0 or left + width > right or top + height > bottom:
        raise LuminaError(
            f"the region of {place.prompt!r} goes from {left},{top} to {left + width},"
            f"{top + height}, outside of the picture of {right}x{bottom}",
            hint="write left, top, width and height, or ask for a larger picture with --size",
        )


def refuse_overlap(prompts: Sequence[str], covers: "Sequence[Image]") -> None:
    """Refuse regions of which it is not said which lies over the other.

    Args:
        prompts: Of the regions.
        covers: For each a picture of black and white (of mode "1"), white where it is.

    Raises:
        LuminaError: If two have pixels in common.
    """
    from PIL import ImageChops

    for (first, one), (second, other) in combinations(zip(prompts, covers, strict=True), 2):
        if ImageChops.logical_and(one, other).getbbox():
            raise LuminaError(
                f"the regions of {first!r} and {second!r} overlap",
                hint="--order puts later regions over earlier ones; or move one of them",
            )


def draw_box(box: tuple[int, int, int, int], size: tuple[int, int]) -> "Image":
    """A picture of black and white that is white in a box."""
    from PIL import Image

    left, top, width, height = box
    cover = Image.new("1", size)
    cover.paste(1, (left, top, left + width, top + height))
    return cover
