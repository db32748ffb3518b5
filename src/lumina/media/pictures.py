"""Pictures: files with the request that made them inside, grids and tables."""

import io
import json
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps, PngImagePlugin, UnidentifiedImageError

from lumina.errors import LuminaError
from lumina.media.files import parse_record, write_whole

RECORD_KEY = "lumina"
"""Name of the text chunk of a PNG that holds the record."""


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
    write_whole(path, buffer.getbuffer(), force=force)


def read_png_record(path: Path) -> dict[str, Any]:
    """How a picture was made, out of its file.

    Raises:
        LuminaError: If there is no such picture, or it was not made by lumina.
    """
    with _opened(path, hint=_FROM_LUMINA) as image:
        text = getattr(image, "text", {}).get(RECORD_KEY)
    return parse_record(path, text, hint=_FROM_LUMINA)


MOST_PIXELS = 89_478_485
"""Of a picture that is read: from here on Pillow warns of it."""


def open_picture(
    path: Path, *, most_pixels: int = MOST_PIXELS, behind: str = "white"
) -> Image.Image:
    """A picture of any format, upright, in red, green and blue.

    Args:
        path: The file.
        most_pixels: How many it may have.
        behind: The color that is seen where it is transparent.

    Raises:
        LuminaError: If there is no such file, it is no picture, or it is too large.
    """
    with _opened(path, hint=_ANY_PICTURE) as image:
        if image.width * image.height > most_pixels:
            raise LuminaError(
                f"{path} has {image.width}x{image.height} pixels, which is too large",
                hint=f"allowed: {most_pixels:,} pixels; {_SMALLER}",
            )
        return see_on(image, behind)


def see_on(image: Image.Image, color: str = "white") -> Image.Image:
    """A picture upright, in red, green and blue, of 8 bits each, which are the upper ones of 16.

    Args:
        image: Of any mode.
        color: What is transparent turns into it.
    """
    upright = ImageOps.exif_transpose(image)
    if upright.mode == "I" or upright.mode.startswith("I;16"):
        # Pillow's own conversion would cut off what is above 255.
        upright = Image.fromarray((np.asarray(upright).astype(np.int64) >> 8).astype(np.uint8))
    if not upright.has_transparency_data:
        return upright.convert("RGB")
    seen = upright.convert("RGBA")
    ground = Image.new("RGBA", seen.size, color)
    return Image.alpha_composite(ground, seen).convert("RGB")


def make_grid(images: Sequence[Image.Image], labels: Sequence[str]) -> Image.Image:
    """Pictures side by side, each above its label.

    Args:
        images: One or more pictures. Smaller ones are put in the middle of their place.
        labels: What is written below each, as far as the built-in font has the letters.
    """
    columns = _columns(len(images))
    width, height = _largest(images)
    font = _font(width)
    lines = [_wrap(label, font, width - 2 * _MARGIN) for label in labels]
    cell = height + max(map(len, lines)) * _line_height(font) + 2 * _MARGIN
    rows = -(-len(images) // columns)
    grid = Image.new("RGB", (columns * (width + _GAP) - _GAP, rows * cell), "white")
    for index, (image, label) in enumerate(zip(images, lines, strict=True)):
        row, column = divmod(index, columns)
        left, top = column * (width + _GAP), row * cell
        _paste(grid, image, (left, top, width, height))
        _write(grid, label, (left + _MARGIN, top + height + _MARGIN), font)
    return grid


def make_table(
    cells: Sequence[Sequence[Image.Image]],
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    title: str = "",
) -> Image.Image:
    """Pictures in rows and columns that are labelled.

    Args:
        cells: The pictures of each row. Smaller ones are put in the middle of their place.
        rows: What is written to the left of each row. If all are empty, no room is left for it.
        columns: What is written above each column.
        title: What is written above all.
    """
    width, height = _largest([image for row in cells for image in row])
    font = _font(width)
    whole = len(columns) * (width + _GAP) - _GAP
    heads = [_wrap(label, font, width - 2 * _MARGIN) for label in columns]
    # The letters of a row are never wider than a picture.
    sides = [_wrap(label, font, width) for label in rows]
    left = max((math.ceil(font.getlength(line)) for lines in sides for line in lines), default=0)
    left += 3 * _MARGIN if left else 0
    over = _wrap(title, font, left + whole - 2 * _MARGIN)
    top = len(over) * _line_height(font) + 2 * _MARGIN if over else 0
    begin = top + max(map(len, heads)) * _line_height(font) + 2 * _MARGIN
    table = Image.new("RGB", (left + whole, begin + len(rows) * (height + _GAP)), "white")
    _write(table, over, (_MARGIN, _MARGIN), font)
    for column, label in enumerate(heads):
        _write(table, label, (left + column * (width + _GAP) + _MARGIN, top + _MARGIN), font)
    for row, (images, label) in enumerate(zip(cells, sides, strict=True)):
        y = begin + row * (height + _GAP)
        middle = (height - len(label) * _line_height(font)) // 2
        _write(table, label, (_MARGIN, y + max(0, middle)), font)
        for column, image in enumerate(images):
            _paste(table, image, (left + column * (width + _GAP), y, width, height))
    return table


def stack(images: Sequence[Image.Image]) -> Image.Image:
    """Pictures one above the other."""
    width, height = max(image.width for image in images), sum(image.height for image in images)
    whole = Image.new("RGB", (width, height + (len(images) - 1) * _SPACE), "white")
    top = 0
    for image in images:
        whole.paste(image, (0, top))
        top += image.height + _SPACE
    return whole


def put_side_by_side(images: Sequence[Image.Image]) -> Image.Image:
    """Pictures of one height in a row."""
    width = sum(image.width for image in images) + (len(images) - 1) * _GAP
    whole = Image.new("RGB", (width, images[0].height), "white")
    left = 0
    for image in images:
        whole.paste(image, (left, 0))
        left += image.width + _GAP
    return whole


_FROM_LUMINA = "give a picture that `lumina generate` wrote"
_ANY_PICTURE = "give a picture such as a PNG or JPEG file"
_SMALLER = "make it smaller, or cut out a part"
_GAP = 4
_SPACE = 12
_MARGIN = 2
_LABEL_LINES = 3


@contextmanager
def _opened(path: Path, *, hint: str) -> Iterator[Image.Image]:
    try:
        with _open(path) as image:
            yield image
    except Image.DecompressionBombError as error:
        raise LuminaError(
            f"{path} has more than {2 * MOST_PIXELS:,} pixels",
            hint=f"allowed: {MOST_PIXELS:,} pixels; {_SMALLER}",
        ) from error
    except (UnidentifiedImageError, SyntaxError) as error:  # the latter of a damaged PNG
        raise LuminaError(f"{path} is not a picture", hint=hint) from error
    except OSError as error:
        raise LuminaError(f"cannot read {path}: {error.strerror or error}", hint=hint) from error


def _open(path: Path) -> Image.Image:
    """A picture of which the header alone is read."""
    with warnings.catch_warnings():
        # What is too large for a task is refused by name; records are read of any size.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return Image.open(path)


def _columns(count: int) -> int:
    """Columns of a grid that is about as wide as high, with few empty places."""
    side = math.sqrt(count)
    return min(range(math.ceil(side), math.ceil(1.5 * side) + 1), key=lambda n: (-count % n, n))


def _largest(images: Sequence[Image.Image]) -> tuple[int, int]:
    return max(image.width for image in images), max(image.height for image in images)


def _font(width: int) -> Any:
    """Letters that can be read on pictures of a width."""
    return ImageFont.load_default(size=max(11, width // 24))


def _line_height(font: Any) -> int:
    return sum(font.getmetrics())


def _paste(whole: Image.Image, image: Image.Image, place: tuple[int, int, int, int]) -> None:
    left, top, width, height = place
    whole.paste(image, (left + (width - image.width) // 2, top + (height - image.height) // 2))


def _write(whole: Image.Image, lines: Sequence[str], place: tuple[int, int], font: Any) -> None:
    draw, (left, top) = ImageDraw.Draw(whole), place
    for number, line in enumerate(lines):
        draw.text((left, top + number * _line_height(font)), line, fill="black", font=font)


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
