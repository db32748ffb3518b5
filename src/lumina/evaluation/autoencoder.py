"""How well an image autoencoder keeps drawings."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from lumina.errors import LuminaError
from lumina.modalities.image import ImageCodec
from lumina.types import Size
from lumina.worlds.drawings import PALETTE, Placed, Scene, find_font, fit, paint, sprite
from lumina.worlds.vocabulary import SKIN_TONES, names

EXTENT = 0.8  # of each drawing, as a fraction of the side


def round_trip(vae: Any, pictures: Sequence[Image.Image]) -> list[UInt8[np.ndarray, "rows cols 3"]]:
    """What an autoencoder makes of pictures of one size.

    Args:
        vae: An `AutoencoderKL`.
        pictures: RGB.
    """
    codec = ImageCodec(vae)
    return codec.decode(codec.encode([np.asarray(picture) for picture in pictures]).mean)


def psnr(
    first: UInt8[np.ndarray, "rows cols 3"], second: UInt8[np.ndarray, "rows cols 3"]
) -> float:
    """Likeness of two pictures in decibels; infinite if they are equal."""
    error = np.square(first.astype(float) - second).mean()
    return float(10 * np.log10(255**2 / error)) if error else float("inf")


def psnr_of_unseen(vae: Any, things: list[str], *, count: int, side: int, seed: int) -> list[float]:
    """PSNR of round trips of drawings outside a vocabulary, inside the box of each.

    Args:
        vae: An `AutoencoderKL`.
        things: The vocabulary.
        count: How many drawings, each on a random palette color.
        side: Of the pictures, in pixels.
        seed: What fixes the drawings and the colors.

    Raises:
        LuminaError: If the font or the package `emoji` is not installed.
    """
    rng = np.random.default_rng(seed)
    unseen = draw_unseen(things, count=count, rng=rng)
    colors = rng.choice(list(PALETTE), len(unseen))
    pictures = [
        paint(Scene(str(color), (Placed(emoji, (0.5, 0.5), EXTENT),)), Size(side, side))
        for emoji, color in zip(unseen, colors, strict=True)
    ]
    outputs = round_trip(vae, pictures)
    values = []
    for emoji, picture, output in zip(unseen, pictures, outputs, strict=True):
        box = _box(emoji, side)
        values.append(psnr(np.asarray(picture)[box], output[box]))
    return values


def draw_unseen(things: list[str], *, count: int, rng: np.random.Generator) -> list[str]:
    """Random emoji that the font draws and a vocabulary lacks, without skin tones.

    Raises:
        LuminaError: If the font or the package `emoji` is not installed.
    """
    find_font()
    english = names("en")
    import emoji

    known = set(things)
    whole = [
        symbol
        for symbol in english
        if emoji.EMOJI_DATA[symbol]["status"] == emoji.STATUS["fully_qualified"]
        and symbol not in known
        and not any(ord(letter) in SKIN_TONES for letter in symbol)
    ]
    unseen = []
    for index in rng.permutation(len(whole)):
        if len(unseen) < count and _is_drawn(whole[index]):
            unseen.append(whole[index])
    return unseen


def _is_drawn(emoji: str) -> bool:
    try:
        sprite(emoji)
    except LuminaError:
        return False
    return True


def _box(emoji: str, side: int) -> tuple[slice, slice]:
    """Rows and columns of a drawing in the middle of a picture."""
    width, height = fit(sprite(emoji), round(EXTENT * side)).size
    left, top = round(side / 2 - width / 2), round(side / 2 - height / 2)
    return slice(top, top + height), slice(left, left + width)
