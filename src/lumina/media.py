"""Files that are results: pictures with the request that made them stored inside."""

import io
import json
import math
import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont, PngImagePlugin, UnidentifiedImageError

from lumina.errors import LuminaError

RECORD_KEY = "lumina"
"""Name of the text chunk of a PNG that holds the record."""

SLUG_BYTES = 120
"""Longest part of a file name that comes from a prompt; systems allow 255 bytes in all."""


def write_png(
    path: Path, image: Image.Image, record: dict[str, Any], *, force: bool = False
) -> None:
    """Write a picture so that its name appears only when the file is complete.

    Args:
        path: A file in a folder that exists.
        image: The picture.
        record: How it was made; anything that JSON can hold.
        force: Replace a file of that name.

    Raises:
        LuminaError: If the file exists and is not to be replaced, or cannot be written.
    """
    chunks = PngImagePlugin.PngInfo()
    chunks.add_itxt(RECORD_KEY, json.dumps(record, ensure_ascii=False))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", pnginfo=chunks)
    if not force:
        refuse_existing(path)
    unfinished = path.with_name(f".lumina-{os.getpid()}.part")
    try:
        with unfinished.open("xb") as file:
            file.write(buffer.getbuffer())
        unfinished.replace(path)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        unfinished.unlink(missing_ok=True)


def read_record(path: Path) -> dict[str, Any]:
    """How a picture was made, out of its file.

    Raises:
        LuminaError: If there is no such picture, or it was not made by lumina.
    """
    try:
        with Image.open(path) as image:
            text = getattr(image, "text", {}).get(RECORD_KEY)
    except UnidentifiedImageError as error:
        raise LuminaError(f"{path} is not a picture", hint=_FROM_LUMINA) from error
    except OSError as error:
        raise LuminaError(
            f"cannot read {path}: {error.strerror or error}", hint=_FROM_LUMINA
        ) from error
    if text is None:
        raise LuminaError(
            f"{path} does not say how it was made",
            hint="pictures that lumina wrote do, unless another program saved them again",
        )
    try:
        return json.loads(text)
    except ValueError as error:
        raise LuminaError(f"what {path} says is damaged", hint=_FROM_LUMINA) from error


def refuse_existing(path: Path) -> None:
    """Raise a `LuminaError` if there is a file of that name."""
    if path.exists():
        raise LuminaError(f"{path} exists", hint="--force replaces it")


def refuse_unwritable(path: Path) -> None:
    """Raise a `LuminaError` if no file of that name could be written."""
    if path.is_dir():
        raise LuminaError(f"{path} is a folder", hint="name a file in it")
    trial = path.with_name(f".lumina-{os.getpid()}.trial")
    try:
        trial.touch(exist_ok=False)
        trial.unlink()
    except OSError as error:
        raise _unwritable(path, error) from error


def make_folder(path: Path) -> None:
    """Make a folder for results if it is not there.

    Raises:
        LuminaError: If that is not possible.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LuminaError(
            f"cannot make the folder {path}: {error.strerror}", hint="choose another place"
        ) from error


def slug(prompt: str) -> str:
    """A part of a file name that reads like the prompt, in the prompt's own script."""
    words = [""]
    for character in unicodedata.normalize("NFC", prompt.lower()):
        category = unicodedata.category(character)[0]
        # A mark, such as a vowel sign of Devanagari, belongs to the letter before it.
        if category in "LN" or (category == "M" and words[-1]):
            words[-1] += character
        elif words[-1]:
            words.append("")
    text = "-".join(word for word in words if word)
    return text.encode()[:SLUG_BYTES].decode(errors="ignore").strip("-") or "picture"


def free_path(path: Path) -> Path:
    """This path, with the first number that makes it new if it exists."""
    number, candidate = 1, path
    while candidate.exists():
        number += 1
        candidate = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return candidate


def make_grid(images: Sequence[Image.Image], labels: Sequence[str]) -> Image.Image:
    """Pictures side by side, each above its label.

    Args:
        images: One or more pictures of one size.
        labels: What is written below each, as far as the built-in font has the letters.
    """
    columns = _columns(len(images))
    rows = -(-len(images) // columns)
    width, height = images[0].size
    font: Any = ImageFont.load_default(size=max(11, width // 24))
    lines = [_wrap(label, font, width - 2 * _MARGIN) for label in labels]
    line_height = sum(font.getmetrics())
    cell = height + max(map(len, lines)) * line_height + 2 * _MARGIN
    grid = Image.new("RGB", (columns * (width + _GAP) - _GAP, rows * cell), "white")
    draw = ImageDraw.Draw(grid)
    for index, (image, label) in enumerate(zip(images, lines, strict=True)):
        row, column = divmod(index, columns)
        left, top = column * (width + _GAP), row * cell
        grid.paste(image, (left, top))
        for number, line in enumerate(label):
            place = (left + _MARGIN, top + height + _MARGIN + number * line_height)
            draw.text(place, line, fill="black", font=font)
    return grid


_FROM_LUMINA = "give a picture that `lumina generate` wrote"
_GAP = 4
_MARGIN = 2
_LABEL_LINES = 3


def _columns(count: int) -> int:
    """Columns of a grid that is about as wide as high, with few empty places."""
    side = math.sqrt(count)
    return min(range(math.ceil(side), math.ceil(1.5 * side) + 1), key=lambda n: (-count % n, n))


def _wrap(text: str, font: Any, width: int) -> list[str]:
    """Lines that fit the width, and none if the font lacks a letter."""
    missing = bytes(font.getmask("\uffff"))
    if any(bytes(font.getmask(character)) == missing for character in set(text) - {" "}):
        return []
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines[:_LABEL_LINES]


def _unwritable(path: Path, error: OSError) -> LuminaError:
    return LuminaError(
        f"cannot write {path}: {error.strerror}", hint="choose another place with -o"
    )
