"""Pictures of one disc, square or triangle each, on which counting needs no judgement."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8

SHAPES = ("disc", "square", "triangle")
COLORS = {
    "red": (214, 48, 49),
    "green": (30, 150, 70),
    "blue": (40, 90, 220),
    "black": (20, 20, 20),
}
CLASSES = len(SHAPES) * len(COLORS)
"""A class is a shape in a color: shapes change slowest."""

SMALLEST, LARGEST = 0.3, 0.4
"""Side of the box of a shape, as a share of the canvas."""

_FINE = 4  # samples along each side of a pixel, so that edges are smooth


class Shape(NamedTuple):
    """A shape in its box, whose corner and side are shares of the canvas."""

    kind: str
    color: str
    left: float
    top: float
    side: float


def draw_shape(rng: np.random.Generator, label: int) -> Shape:
    """A shape of a class, of any size, anywhere within the canvas."""
    kind, color = SHAPES[label // len(COLORS)], list(COLORS)[label % len(COLORS)]
    side = rng.uniform(SMALLEST, LARGEST)
    left, top = rng.uniform(0, 1 - side, size=2)
    return Shape(kind, color, float(left), float(top), float(side))


def paint_shape(shape: Shape, pixels: int) -> UInt8[np.ndarray, "rows cols 3"]:
    """The picture of a shape on white, as a square of so many pixels a side."""
    count = pixels * _FINE
    line = (np.arange(count) + 0.5) / count
    inside = is_inside(
        shape.kind, (line - shape.left) / shape.side, (line - shape.top) / shape.side
    )
    cover = inside.reshape(pixels, _FINE, pixels, _FINE).mean((1, 3))[..., None]
    return (255 + cover * (np.array(COLORS[shape.color]) - 255)).round().astype(np.uint8)


def is_inside(
    kind: str, across: Float[np.ndarray, " cols"], down: Float[np.ndarray, " rows"]
) -> Bool[np.ndarray, "rows cols"]:
    """Which points belong to a shape.

    Args:
        kind: One of `SHAPES`.
        across: Where columns are, from 0 at the left of the box to 1 at its right.
        down: Where rows are, from the top to the bottom.
    """
    x, y = across[None, :], down[:, None]
    if kind == "disc":
        return (x - 0.5) ** 2 + (y - 0.5) ** 2 <= 0.25
    is_in_box = (abs(x - 0.5) <= 0.5) & (abs(y - 0.5) <= 0.5)
    if kind == "square":
        return is_in_box
    return is_in_box & (abs(x - 0.5) <= y / 2)  # its point is at the top
