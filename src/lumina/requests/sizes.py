"""Sizes and places of pictures, as they are written down."""

import math
import re

from lumina.errors import LuminaError

SIZE_MULTIPLE = 16
"""Sides of a picture are multiples of this: 8 pixels a latent, 2 latents a token."""


def read_size(text: str) -> tuple[int, int]:
    """Width and height in pixels of a size like `128x96`.

    Raises:
        LuminaError: If it is written in another way.
    """
    match = re.fullmatch(r"(\d{1,9})[x×](\d{1,9})", text.strip().lower())
    if not match:
        raise LuminaError(f"size is {text!r}, not WxH", hint="write width and height: 128x96")
    return int(match[1]), int(match[2])


def read_axes(text: str) -> tuple[int, ...]:
    """Lengths of all axes of a size like `96x96x8`, of which there may be one or more.

    Raises:
        LuminaError: If it is written in another way.
    """
    parts = text.strip().lower().replace("×", "x").split("x")
    if not all(part.isdecimal() and 0 < int(part) < 10**9 for part in parts):
        raise LuminaError(f"size is {text!r}", hint="write the length of each axis: 96x96x8")
    return tuple(map(int, parts))


def nearest_size(width: float, height: float) -> tuple[int, int]:
    """The size nearest to this one that models can make."""

    def nearest(side: float) -> int:
        return max(SIZE_MULTIPLE, math.floor(side / SIZE_MULTIPLE + 0.5) * SIZE_MULTIPLE)

    return nearest(width), nearest(height)


def check_size(text: str) -> None:
    """Refuse a size that no model can make.

    Raises:
        LuminaError: If it is none, or its sides are no multiples of `SIZE_MULTIPLE`.
    """
    size = read_size(text)
    nearest = nearest_size(*size)
    if size != nearest:
        problem = f"is not a multiple of {SIZE_MULTIPLE} pixels on both sides"
        raise LuminaError(
            f"size {text} {problem if all(size) else 'has no pixels'}",
            hint=f"the nearest that works is {nearest[0]}x{nearest[1]}",
        )


def read_place(text: str) -> tuple[int, int]:
    """Pixels from the left and from the top of a place like `64,0`.

    Raises:
        LuminaError: If it is written in another way.
    """
    match = re.fullmatch(r"(\d{1,9}),(\d{1,9})", text.strip())
    if not match:
        raise LuminaError(
            f"the place is {text!r}, not x,y", hint="write pixels from left and top: 64,0"
        )
    return int(match[1]), int(match[2])


def check_larger(own: tuple[int, int], size: tuple[int, int]) -> None:
    """Refuse to make a picture larger by a size that is not.

    Args:
        own: Width and height of the picture.
        size: Width and height that are asked for.

    Raises:
        LuminaError: If a side is shorter, or neither is longer.
    """
    if own == size or min(size[0] - own[0], size[1] - own[1]) < 0:
        raise LuminaError(
            f"{size[0]}x{size[1]} pixels are not larger than the picture, which has"
            f" {own[0]}x{own[1]}",
            hint="ask for a larger size; `lumina edit` changes a picture at its own size",
        )
