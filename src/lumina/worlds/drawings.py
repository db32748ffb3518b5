"""Scenes of emoji drawings on plain backgrounds: what is in one, and how it is painted.

A scene is described in units of the canvas, so that the same scene can be painted at any size.
Drawings come from the Noto Color Emoji font (SIL Open Font License 1.1).
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from lumina.errors import LuminaError
from lumina.types import Size

PALETTE: dict[str, tuple[int, int, int]] = {
    "white": (255, 255, 255),
    "black": (0, 0, 0),
    "red": (220, 40, 40),
    "green": (60, 170, 70),
    "blue": (50, 90, 220),
    "yellow": (250, 220, 60),
    "gray": (128, 128, 128),
    "pink": (250, 170, 200),
    "orange": (250, 150, 40),
    "purple": (130, 60, 180),
    "sky blue": (150, 210, 250),
    "brown": (120, 75, 40),
}

FONT_PATHS = (
    Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"),
    Path("/usr/share/fonts/noto/NotoColorEmoji.ttf"),
    Path("/usr/share/fonts/google-noto-emoji/NotoColorEmoji.ttf"),
    Path("/Library/Fonts/NotoColorEmoji.ttf"),
)
BITMAP_SIZE = 109  # the one size at which the font holds bitmaps
BITMAP_WIDTH = 136  # of one drawing; a sequence that the font lacks comes out as several


@dataclass(frozen=True)
class Placed:
    """One drawing on the canvas.

    Args:
        emoji: The emoji that is drawn.
        center: Where its middle is, as fractions of the canvas width and height.
        extent: Its longer side as a fraction of the canvas's shorter side.
    """

    emoji: str
    center: tuple[float, float]
    extent: float


@dataclass(frozen=True)
class Scene:
    """A background of one palette colour and the drawings on it, painted in order."""

    background: str
    things: tuple[Placed, ...]


def find_font() -> Path:
    """Path of the Noto Color Emoji font.

    Raises:
        LuminaError: If it is not installed.
    """
    for path in FONT_PATHS:
        if path.exists():
            return path
    raise LuminaError(
        "the Noto Color Emoji font is not installed",
        hint="on Debian: apt-get install fonts-noto-color-emoji",
    )


@functools.cache
def sprite(emoji: str) -> Image.Image:
    """Drawing of one emoji as RGBA, cut to what is not transparent.

    Raises:
        LuminaError: If the font has no drawing for it.
    """
    canvas = Image.new("RGBA", (160, 160))
    ImageDraw.Draw(canvas).text((8, 8), emoji, font=_font(), embedded_color=True)
    box = canvas.getchannel("A").point([255 * (alpha > 8) for alpha in range(256)]).getbbox()
    if box is None or box[2] - box[0] > BITMAP_WIDTH:
        raise LuminaError(f"the font has no drawing for {emoji!r}")
    return canvas.crop(box)


def paint(
    scene: Scene, size: Size, *, drawing_of: Callable[[str], Image.Image] = sprite
) -> Image.Image:
    """Picture of a scene as RGB at a size in pixels.

    Args:
        scene: What to paint.
        size: Of the picture.
        drawing_of: What each emoji looks like, as RGBA.
    """
    canvas = Image.new("RGB", size, PALETTE[scene.background])
    for thing in scene.things:
        drawing = fit(drawing_of(thing.emoji), round(thing.extent * min(size)))
        left = round(thing.center[0] * size.width - drawing.width / 2)
        top = round(thing.center[1] * size.height - drawing.height / 2)
        canvas.paste(drawing, (left, top), drawing)
    return canvas


def fit(drawing: Image.Image, side: int) -> Image.Image:
    """Resize so that the longer side has `side` pixels."""
    factor = side / max(drawing.size)
    width, height = (max(1, round(length * factor)) for length in drawing.size)
    return (
        drawing.convert("RGBa")
        .resize((width, height), Image.Resampling.BOX if factor < 0.5 else Image.Resampling.BICUBIC)
        .convert("RGBA")
    )


def reference(
    emoji: str, side: int = 32, *, drawing_of: Callable[[str], Image.Image] = sprite
) -> np.ndarray:
    """Drawing of an emoji as RGBA bytes of shape (side, side, 4), padded to a square.

    Padding keeps its proportions, by which a minus sign differs from a square button.
    """
    drawing = drawing_of(emoji)
    longer = max(drawing.size)
    square = Image.new("RGBA", (longer, longer))
    square.paste(drawing, ((longer - drawing.width) // 2, (longer - drawing.height) // 2))
    small = square.convert("RGBa").resize((side, side), Image.Resampling.BOX)
    return np.asarray(small.convert("RGBA"))


@functools.cache
def _font() -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(find_font(), BITMAP_SIZE)
