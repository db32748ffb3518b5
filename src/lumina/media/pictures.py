"""Pictures: files with the request that made them inside, grids and tables."""

import functools
import io
import json
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

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
        labels: What is written below each, as far as a font on this machine has the letters.
    """
    columns = _columns(len(images))
    width, height = _largest(images)
    size = _letter_size(width)
    written = [_wrap(label, size, width - 2 * _MARGIN) for label in labels]
    cell = height + max(label.height for label in written) + 2 * _MARGIN
    rows = -(-len(images) // columns)
    grid = Image.new("RGB", (columns * (width + _GAP) - _GAP, rows * cell), "white")
    for index, (image, label) in enumerate(zip(images, written, strict=True)):
        row, column = divmod(index, columns)
        left, top = column * (width + _GAP), row * cell
        _paste(grid, image, (left, top, width, height))
        label.write(grid, (left + _MARGIN, top + height + _MARGIN))
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
    size = _letter_size(width)
    whole = len(columns) * (width + _GAP) - _GAP
    heads = [_wrap(label, size, width - 2 * _MARGIN) for label in columns]
    # The letters of a row are never wider than a picture.
    sides = [_wrap(label, size, width) for label in rows]
    left = max(label.width for label in sides)
    left += 3 * _MARGIN if left else 0
    over = _wrap(title, size, left + whole - 2 * _MARGIN)
    top = over.height + 2 * _MARGIN if over.lines else 0
    begin = top + max(label.height for label in heads) + 2 * _MARGIN
    table = Image.new("RGB", (left + whole, begin + len(rows) * (height + _GAP)), "white")
    over.write(table, (_MARGIN, _MARGIN))
    for column, label in enumerate(heads):
        label.write(table, (left + column * (width + _GAP) + _MARGIN, top + _MARGIN))
    for row, (images, label) in enumerate(zip(cells, sides, strict=True)):
        y = begin + row * (height + _GAP)
        label.write(table, (_MARGIN, y + max(0, (height - label.height) // 2)))
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
_FONTS = (
    "",
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "Arial.ttf",
    "NotoSansCJK-Regular.ttc",
    "Arial Unicode.ttf",
    "malgun.ttf",
    "msyh.ttc",
    "msgothic.ttc",
)
"""Pillow's own, and files of fonts that systems have, for labels that it lacks letters of."""


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


class _Label(NamedTuple):
    """Lines of text, in a font that has all their letters."""

    lines: list[str]
    font: Any

    @property
    def height(self) -> int:
        return len(self.lines) * self._line_height

    @property
    def width(self) -> int:
        return max((math.ceil(self.font.getlength(line)) for line in self.lines), default=0)

    def write(self, whole: Image.Image, place: tuple[int, int]) -> None:
        draw, (left, top) = ImageDraw.Draw(whole), place
        for number, line in enumerate(self.lines):
            at = (left, top + number * self._line_height)
            draw.text(at, line, fill="black", font=self.font)

    @property
    def _line_height(self) -> int:
        return sum(self.font.getmetrics())


def _letter_size(width: int) -> int:
    """Of letters that can be read on pictures of a width."""
    return max(11, width // 24)


@functools.lru_cache(maxsize=64)
def _open_font(name: str, size: int) -> Any:
    """A font of this machine, or None; without a name Pillow's own, with the letters of English."""
    if not name:
        return ImageFont.load_default(size=size)
    with suppress(OSError):
        return ImageFont.truetype(name, size=size)


def _has_letters(font: Any, text: str) -> bool:
    missing = bytes(font.getmask("\uffff"))
    return all(bytes(font.getmask(letter)) != missing for letter in set(text) - {" "})


def _paste(whole: Image.Image, image: Image.Image, place: tuple[int, int, int, int]) -> None:
    left, top, width, height = place
    whole.paste(image, (left + (width - image.width) // 2, top + (height - image.height) // 2))


def _wrap(text: str, size: int, width: int) -> _Label:
    """Lines that fit a width, and none if no font has all letters."""
    fonts = (_open_font(name, size) for name in _FONTS)
    font = next((font for font in fonts if font and _has_letters(font, text)), None)
    if font is None:
        return _Label([], _open_font(_FONTS[0], size))
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
            continue
        lines.append("")
        for letter in word:  # words of some languages have no spaces between them
            if lines[-1] and font.getlength(lines[-1] + letter) > width:
                lines.append("")
            lines[-1] += letter
    return _Label(lines[:_LABEL_LINES], font)
