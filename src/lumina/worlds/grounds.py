"""Backgrounds that are hard to look past: gradients, stripes, blotches and clutter."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw

from lumina.types import Size

Color = tuple[int, int, int]

KINDS = ("plain", "gradient", "stripes", "blotches", "clutter")

_PERIODS = (0.1, 0.6)  # of stripes, as shares of the shorter side
_BLOTCHES = (2, 8)  # along each side
_PIECES = (4, 14)  # of clutter
_PIECE = (0.05, 0.4)  # sides of a piece, as shares of those of the canvas


class Ground(NamedTuple):
    """A background in units of the canvas, so that it can be painted at any size."""

    kind: str
    colors: tuple[Color, Color]
    seed: int
    """Of directions and places."""


def paint_ground(ground: Ground, size: Size) -> Image.Image:
    """Picture of a background as RGB, of no other colors than its two and mixtures of them."""
    rng = np.random.default_rng(ground.seed)
    if ground.kind == "plain":
        return Image.new("RGB", size, ground.colors[0])
    if ground.kind == "clutter":
        return _scatter(ground.colors, size, rng)
    shares = {"gradient": _gradient, "stripes": _stripes, "blotches": _blotches}
    return _blend(ground.colors, shares[ground.kind](size, rng))


def _gradient(size: Size, rng: np.random.Generator) -> Float[np.ndarray, "rows cols"]:
    return _across(size, rng.uniform(0, 2 * np.pi))


def _stripes(size: Size, rng: np.random.Generator) -> Float[np.ndarray, "rows cols"]:
    angle, period, phase = rng.uniform(0, np.pi), rng.uniform(*_PERIODS), rng.uniform(0, 2 * np.pi)
    waves = np.sin(2 * np.pi * _across(size, angle) / period + phase)
    sharpness = rng.uniform(1, 6)
    return np.clip(0.5 + sharpness * waves / 2, 0, 1)


def _blotches(size: Size, rng: np.random.Generator) -> Float[np.ndarray, "rows cols"]:
    rows, cols = rng.integers(*_BLOTCHES, size=2, endpoint=True)
    coarse = Image.fromarray(rng.random((rows, cols), np.float32))
    return np.clip(np.asarray(coarse.resize(size, Image.Resampling.BICUBIC)), 0, 1)


def _scatter(colors: tuple[Color, Color], size: Size, rng: np.random.Generator) -> Image.Image:
    canvas = Image.new("RGB", size, colors[0])
    draw = ImageDraw.Draw(canvas)
    for _ in range(rng.integers(*_PIECES, endpoint=True)):
        middle, half = rng.random(2) * size, rng.uniform(*_PIECE, size=2) * size / 2
        box = (*(middle - half), *(middle + half))
        shape = (draw.ellipse, draw.rectangle, draw.line)[rng.integers(3)]
        shape(box, fill=_mix(colors, rng.random()))
    return canvas


def _across(size: Size, angle: float) -> Float[np.ndarray, "rows cols"]:
    """How far each pixel lies along a direction, where the shorter side counts 1."""
    x, y = ((np.arange(count) + 0.5) / min(size) for count in size)
    line = np.cos(angle) * x[None, :] + np.sin(angle) * y[:, None]
    return line - line.min()


def _blend(colors: tuple[Color, Color], shares: Float[np.ndarray, "rows cols"]) -> Image.Image:
    low, high = (np.array(color, np.float32) for color in colors)
    pixels = low + np.clip(shares, 0, 1)[..., None] * (high - low)
    return Image.fromarray(pixels.round().astype(np.uint8))


def _mix(colors: tuple[Color, Color], share: float) -> Color:
    red, green, blue = (round(a + share * (b - a)) for a, b in zip(*colors, strict=True))
    return red, green, blue
