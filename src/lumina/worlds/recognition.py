"""Things to recognise, each under strong changes: emoji drawings and handwritten digits.

A view is described in units of the canvas, so that the same view can be painted at any size.
"""

import functools
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from lumina.errors import refuse_missing_library
from lumina.types import Size
from lumina.worlds.drawings import sprite
from lumina.worlds.grounds import KINDS, Color, Ground, paint_ground
from lumina.worlds.vocabulary import COMMON, names

DIGITS = 10

EXTENTS = (0.5, 1.0)  # longer side of a thing, as a share of the shorter side of the canvas
STRETCH = 1.35  # most that a side of a thing grows against the other
DRAWING_TURN, DIGIT_TURN = 40.0, 20.0  # degrees; a 6 stays apart from a 9
NOISE = 20.0  # largest standard deviation, in levels of 255
GAINS, OFFSETS = (0.75, 1.15), (-20.0, 20.0)  # of contrast, and of light in levels

_EVERY = 5  # of so many scans of digits, one is kept, in turn to validate and to test
_SCAN_LEVELS = 16
_SCAN_SIDE = 128  # pixels to which the scans of 8 are smoothed
_PAPER = 130  # ground behind digits is lighter than this, or darker than its opposite
_INK = 70  # ink is as far as this from black, or from white


class Gallery(NamedTuple):
    """The drawings that each class may be shown by: RGBA, or L where they are plain ink."""

    names: tuple[str, ...]
    drawings: tuple[tuple[Image.Image, ...], ...]

    def is_ink(self, label: int) -> bool:
        """Whether a class is drawn in one color."""
        return self.drawings[label][0].mode == "L"


@dataclass(frozen=True)
class View:
    """One thing, and how it is shown.

    Args:
        label: Class of the thing.
        number: Which of the drawings of its class.
        ground: What is behind it.
        ink: Color of drawings that have none.
        place: Where it is in the room that it leaves free, as shares of that from 0 to 1.
        extent: Its longer side, as a share of the shorter side of the canvas.
        stretch: Factor on its width over its height.
        angle: By how many degrees it is turned to the left.
        gain: Factor on all levels.
        offset: Levels that are added.
        noise: Standard deviation of the noise, in levels.
        seed: Of the noise.
    """

    label: int
    number: int
    ground: Ground
    ink: Color
    place: tuple[float, float]
    extent: float
    stretch: float
    angle: float
    gain: float
    offset: float
    noise: float
    seed: int


@functools.cache
def open_gallery(split: str) -> Gallery:
    """All drawings and digits, where each split has scans of its own.

    Args:
        split: "train", "validation" or "test". Drawings of emoji are the same in all.

    Raises:
        LuminaError: If the font, the names of emoji, or scikit-learn are not installed.
    """
    english = names("en")
    digits = _digits(split)
    return Gallery(
        (*(english[emoji] for emoji in COMMON), *(f"digit {digit}" for digit in range(DIGITS))),
        (*((sprite(emoji),) for emoji in COMMON), *digits),
    )


def draw_view(rng: np.random.Generator, gallery: Gallery, label: int) -> View:
    """A random view of a class."""
    is_ink = gallery.is_ink(label)
    colors, ink = _ink_colors(rng) if is_ink else (_any_colors(rng), (0, 0, 0))
    most = DIGIT_TURN if is_ink else DRAWING_TURN
    reach = math.log(STRETCH)
    return View(
        label=label,
        number=int(rng.integers(len(gallery.drawings[label]))),
        ground=Ground(KINDS[rng.integers(len(KINDS))], colors, int(rng.integers(2**31))),
        ink=ink,
        place=(rng.random(), rng.random()),
        extent=rng.uniform(*EXTENTS),
        stretch=math.exp(rng.uniform(-reach, reach)),
        angle=rng.uniform(-most, most),
        gain=rng.uniform(*GAINS),
        offset=rng.uniform(*OFFSETS),
        noise=rng.uniform(0, NOISE),
        seed=int(rng.integers(2**31)),
    )


def paint_view(view: View, gallery: Gallery, size: Size) -> UInt8[np.ndarray, "rows cols 3"]:
    """Picture of a view at a size in pixels, on which the whole thing is seen."""
    canvas = paint_ground(view.ground, size)
    drawing = gallery.drawings[view.label][view.number]
    thing = _colored(_posed(drawing, view, view.extent * min(size)), view.ink)
    room = (size.width - thing.width, size.height - thing.height)
    left, top = (round(share * free) for share, free in zip(view.place, room, strict=True))
    canvas.paste(thing, (left, top), thing)
    levels = np.asarray(canvas, np.float32) * view.gain + view.offset
    rng = np.random.default_rng(view.seed)
    levels += view.noise * rng.standard_normal(levels.shape, np.float32)
    return levels.clip(0, 255).round().astype(np.uint8)


def _posed(drawing: Image.Image, view: View, side: float) -> Image.Image:
    """A drawing stretched and turned, in a box whose longer side has so many pixels."""
    width = drawing.width * math.sqrt(view.stretch)
    height = drawing.height / math.sqrt(view.stretch)
    turn = math.radians(abs(view.angle))
    box = (
        width * math.cos(turn) + height * math.sin(turn),
        width * math.sin(turn) + height * math.cos(turn),
    )
    factor = side / max(box)
    small = drawing.resize(
        (max(1, round(width * factor)), max(1, round(height * factor))), Image.Resampling.BICUBIC
    )
    return small.rotate(view.angle, Image.Resampling.BICUBIC, expand=True)


def _colored(drawing: Image.Image, ink: Color) -> Image.Image:
    if drawing.mode != "L":
        return drawing
    inked = Image.new("RGB", drawing.size, ink)
    inked.putalpha(drawing)
    return inked


def _digits(split: str) -> list[tuple[Image.Image, ...]]:
    """Scans of each digit, as ink."""
    refuse_missing_library("sklearn", extra="train")
    from sklearn.datasets import load_digits

    known: Any = load_digits()
    is_kept = np.arange(len(known.target)) % _EVERY == 0
    chosen = ~is_kept if split == "train" else is_kept
    scans, labels = known.images[chosen], known.target[chosen]
    part = {"train": slice(None), "validation": slice(0, None, 2), "test": slice(1, None, 2)}[split]
    return [tuple(map(_smooth, scans[labels == digit][part])) for digit in range(DIGITS)]


def _smooth(scan: np.ndarray) -> Image.Image:
    framed = np.pad(scan, 1)  # ink that reaches the edge of a scan fades out, and is not cut off
    coarse = Image.fromarray((framed * (255 / _SCAN_LEVELS)).round().astype(np.uint8))
    ink = coarse.resize((_SCAN_SIDE, _SCAN_SIDE), Image.Resampling.BICUBIC)
    return ink.crop(ink.getbbox())


def _any_colors(rng: np.random.Generator) -> tuple[Color, Color]:
    return _color(rng, 0, 256), _color(rng, 0, 256)


def _ink_colors(rng: np.random.Generator) -> tuple[tuple[Color, Color], Color]:
    """Colors of a ground and of ink that stands out from it: dark on light or light on dark."""
    if rng.random() < 0.5:
        return (_color(rng, _PAPER, 256), _color(rng, _PAPER, 256)), _color(rng, 0, _INK)
    dark = 256 - _PAPER
    return (_color(rng, 0, dark), _color(rng, 0, dark)), _color(rng, 256 - _INK, 256)


def _color(rng: np.random.Generator, low: int, high: int) -> Color:
    red, green, blue = map(int, rng.integers(low, high, size=3))
    return red, green, blue
