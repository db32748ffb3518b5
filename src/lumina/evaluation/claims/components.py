"""Counting what is on a plain ground: connected parts, their size, and how sharp they are."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8

from lumina.worlds.judge import cut_out, join_runs
from lumina.worlds.shapes import is_inside

LARGEST = 0.5
"""A part that covers more of the canvas than this is no object."""


class Seen(NamedTuple):
    """What a picture shows.

    Args:
        objects: Connected parts that are neither specks nor half of the canvas.
        size: Longer side of the box of the largest, as a share of the canvas; 0 without any.
        likeness: Overlap of the largest with the shape asked for, fitted into its box: area of
            both by area of either.
        sharpness: Steepest change from one pixel to the next, as a share of the contrast to the
            ground: 1 is an edge within a pixel. 0 without any object.
    """

    objects: int
    size: float
    likeness: float
    sharpness: float


def look(
    pixels: UInt8[np.ndarray, "rows cols 3"], *, smallest: float, kind: str | None = None
) -> Seen:
    """Say what a picture shows.

    Args:
        pixels: The picture.
        smallest: Area in pixels below which a part is a speck.
        kind: The shape asked for, of `lumina.worlds.shapes`.
    """
    cut = cut_out(pixels)
    parts = split_parts(cut.mask)
    most = LARGEST * cut.mask.size
    objects = [part for part in parts if smallest <= part.sum() <= most]
    if not objects:
        return Seen(0, 0.0, 0.0, 0.0)
    largest = max(objects, key=lambda part: part.sum())
    rows, cols = (np.flatnonzero(largest.any(axis)) for axis in (1, 0))
    box = largest[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]
    size = max(box.shape) / max(cut.mask.shape)
    likeness = likeness_to(box, kind) if kind else 0.0
    sharpness = _sharpness(pixels, largest, cut.background)
    return Seen(len(objects), size, likeness, sharpness)


def split_parts(mask: Bool[np.ndarray, "rows cols"]) -> list[Bool[np.ndarray, "rows cols"]]:
    """Masks of the connected parts of a mask."""
    steps = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    rows, starts = np.nonzero(steps == 1)
    _, ends = np.nonzero(steps == -1)
    if not len(rows):
        return []
    owners = join_runs(rows, starts, ends)
    numbers = np.zeros(mask.shape, np.int64)
    for row, start, end, owner in zip(rows, starts, ends, owners, strict=True):
        numbers[row, start:end] = owner + 1
    return [numbers == number for number in np.unique(owners) + 1]


def likeness_to(box: Bool[np.ndarray, "rows cols"], kind: str) -> float:
    """Area that a mask shares with a shape that fills its box, by the area of either."""
    rows, cols = box.shape
    ideal = is_inside(kind, (np.arange(cols) + 0.5) / cols, (np.arange(rows) + 0.5) / rows)
    squareness = min(rows, cols) / max(rows, cols)
    return float((box & ideal).sum() / (box | ideal).sum()) * squareness


def _sharpness(
    pixels: UInt8[np.ndarray, "rows cols 3"],
    part: Bool[np.ndarray, "rows cols"],
    background: Float[np.ndarray, "3"],
) -> float:
    """Median over the outline of the steepest change near it."""
    gray = np.linalg.norm(pixels.astype(np.float64) - background, axis=-1)
    contrast = np.median(gray[part])
    change = np.zeros_like(gray)
    change[:, 1:] = abs(np.diff(gray, axis=1))
    change[1:] = np.maximum(change[1:], abs(np.diff(gray, axis=0)))
    # The outline itself: pixels of the part with a neighbor outside. The edge is within two of it.
    inner = part.copy()
    inner[1:] &= part[:-1]
    inner[:-1] &= part[1:]
    inner[:, 1:] &= part[:, :-1]
    inner[:, :-1] &= part[:, 1:]
    height, width = part.shape
    padded = np.pad(change, 2)
    around = [padded[y : y + height, x : x + width] for y in range(5) for x in range(5)]
    return float(np.median(np.max(around, axis=0)[part & ~inner]) / max(contrast, 1.0))
