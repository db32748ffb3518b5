"""Stored pictures: where their bytes are, how large they are, and how they become RGB."""

import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from PIL import Image

from lumina.errors import LuminaError
from lumina.media import see_on
from lumina.types import Size

ORIENTATION = 0x0112  # EXIF tag
TURNED = range(5, 9)  # orientations that swap width and height
LARGEST_VALUE = 65535  # of 16-bit pictures


Stream = io.BufferedReader | io.BytesIO
"""Bytes to read from their start."""


class BrokenPictureError(LuminaError):
    """A picture that cannot be read."""


@runtime_checkable
class Place(Protocol):
    """Where the bytes of a picture are."""

    def open(self) -> Stream:
        """The bytes, to read from their start."""
        ...


@dataclass(frozen=True)
class FilePlace:
    """A file, or a part of one.

    Args:
        path: The file.
        start: Where the part begins, in bytes.
        length: How many bytes it has; None stands for all.
    """

    path: Path
    start: int = 0
    length: int | None = None

    def open(self) -> Stream:
        """The bytes, to read from their start."""
        if self.length is None:
            return self.path.open("rb")
        with self.path.open("rb") as stream:
            stream.seek(self.start)
            return io.BytesIO(stream.read(self.length))


@dataclass(frozen=True)
class StoredPicture:
    """A picture in a format that Pillow reads."""

    place: Place
    size: Size

    @classmethod
    def at(cls, place: Place) -> "StoredPicture":
        """The picture at a place, of which only the header is read.

        Raises:
            BrokenPictureError: If there is none.
        """
        with _explained(), place.open() as stream, Image.open(stream) as image:
            size = Size(*image.size)
            # Asking for EXIF data that a PNG has after its pixels would decode them.
            has_exif = image.format != "PNG" or "exif" in image.info
            is_turned = has_exif and image.getexif().get(ORIENTATION) in TURNED
        return cls(place, Size(size.height, size.width) if is_turned else size)

    def open(self) -> Image.Image:
        """The picture in RGB, upright, on white where it is transparent.

        Raises:
            BrokenPictureError: If it cannot be read, or has changed its size.
        """
        with _explained(), self.place.open() as stream, Image.open(stream) as image:
            picture = to_rgb(image)
        if picture.size != self.size:
            raise BrokenPictureError(
                f"it is {picture.width}x{picture.height}, and its header said"
                f" {self.size.width}x{self.size.height}"
            )
        return picture

    def digest(self) -> str:
        """SHA-256 of the bytes.

        Raises:
            BrokenPictureError: If they cannot be read.
        """
        return digest_of(self.place)


def digest_of(place: Place) -> str:
    """SHA-256 of the bytes at a place.

    Raises:
        BrokenPictureError: If they cannot be read.
    """
    with _explained(), place.open() as stream:
        return hashlib.sha256(stream.read()).hexdigest()


def to_rgb(image: Image.Image) -> Image.Image:
    """A picture of any mode as RGB, upright: transparency over white, 16 bits rounded down to 8.

    Raises:
        BrokenPictureError: If its numbers have no known range.
    """
    if image.mode == "F" or (image.mode == "I" and _range_of(image)[1] > LARGEST_VALUE):
        raise BrokenPictureError("its numbers are neither 8 nor 16 bits, and have no known range")
    return see_on(image)


def _range_of(image: Image.Image) -> tuple[int, int]:
    values = np.asarray(image)
    return int(values.min()), int(values.max())


@contextmanager
def _explained() -> Iterator[None]:
    """Turn what Pillow and the file system raise into one error with one line."""
    try:
        yield
    except FileNotFoundError as error:
        raise BrokenPictureError("no such file") from error
    except Image.UnidentifiedImageError as error:
        raise BrokenPictureError("not a picture") from error
    # Damaged files raise, by format, any of these.
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise BrokenPictureError(reason.splitlines()[0]) from error
