"""Sizes of training data, and the part of each picture that is shown at one of them."""

import functools
import hashlib
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from lumina.errors import LuminaError
from lumina.requests import read_size
from lumina.settings import setting
from lumina.training.data.examples import Example, Found, Medium
from lumina.training.data.report import Report
from lumina.types import Size

GOOD_SIZES = 4
"""Among how many of the best sizes the original release chose at random."""


@dataclass(frozen=True, kw_only=True)
class Crops:
    """Which sizes there are, and how pictures come to them."""

    side: int = setting(256, "side of the square whose area no size exceeds, in pixels", ge=16)
    multiple: int = setting(16, "sides of all sizes are multiples of this, in pixels", ge=1)
    max_ratio: float = setting(4.0, "longest side over shortest", ge=1)
    sizes: tuple[str, ...] = setting((), "these sizes instead, such as 128x128")
    choice: str = setting(
        "best",
        "size that keeps most of a picture, or any of the four best",
        choices=("best", "any"),
    )
    position: str = setting(
        "center", "which part of a picture is kept", choices=("center", "random")
    )
    small: str = setting(
        "upscale",
        "what becomes of pictures that are smaller than their crop",
        choices=("upscale", "skip", "refuse"),
    )

    def list_sizes(self) -> list[Size]:
        """All sizes.

        Raises:
            LuminaError: If one is written wrongly or has a side that is no multiple.
        """
        if not self.sizes:
            return crop_sizes(self.side, multiple=self.multiple, max_ratio=self.max_ratio)
        sizes = [Size(*read_size(text)) for text in self.sizes]
        for size in sizes:
            if min(size) < 1 or any(side % self.multiple for side in size):
                raise LuminaError(
                    f"size {size.width}x{size.height} is not in multiples of {self.multiple}",
                    hint="change it, or set multiple",
                )
        return list(dict.fromkeys(sizes))


class Crop(NamedTuple):
    """A box of a picture, in its pixels, and the size that it is shown at."""

    size: Size
    left: float
    top: float
    right: float
    bottom: float

    def read(self, medium: Medium) -> np.ndarray:
        """The crop of a picture."""
        return np.asarray(cut(medium.open(), self))


class Whole(NamedTuple):
    """All of a medium that is no picture, as large as it is."""

    size: tuple[int, ...]

    def read(self, medium: Medium) -> np.ndarray:
        """All of it."""
        return medium.open()


class Placed(NamedTuple):
    """An example and the part of it that is trained on."""

    example: Example
    crop: Crop | Whole

    @property
    def size(self) -> tuple[int, ...]:
        """What examples of a batch have in common: `Size`, or that of a clip, a sound ..."""
        return self.crop.size

    def read(self) -> np.ndarray:
        """What there is to encode.

        Raises:
            BrokenPictureError: If it cannot be read.
        """
        return self.crop.read(self.example.medium)


def place_whole(found: Found) -> tuple[list[Placed], Report]:
    """Take every example of a source as it is."""
    placed = [Placed(example, Whole(example.medium.size)) for example in found.examples]
    return placed, found.report.copy()


def crop_sizes(side: int, *, multiple: int = 16, max_ratio: float = 4.0) -> list[Size]:
    """Sizes of about the area of a square, from wide to tall.

    They are the steps of a staircase below the curve of that area: for each width, all heights
    from what fits beside the next larger width to what fits beside this one.

    Args:
        side: Of the square, in pixels.
        multiple: All sides are multiples of this.
        max_ratio: Longest side over shortest.

    Raises:
        LuminaError: If the square has no side of one multiple.

    Source:
        Lists of the original release: `generate_crop_size_list` in `lumina_next_t2i/imgproc.py`.
    """
    area = (side // multiple) ** 2
    if not area:
        raise LuminaError(f"side is {side}, less than one multiple of {multiple}")
    return [
        Size(columns * multiple, rows * multiple)
        for columns in range(area, 0, -1)
        for rows in range(max(1, area // (columns + 1)), area // columns + 1)
        if max(columns, rows) <= max_ratio * min(columns, rows)
    ]


def place_all(found: Found, crops: Crops) -> tuple[list[Placed], Report]:
    """Give every example of a source a crop, and account for those that are too small.

    Returns:
        Examples with their crops, in order, and the account of the source with what was found
        here.

    Raises:
        LuminaError: If a picture is too small and that is refused, or none is left.
    """
    sizes, report = tuple(crops.list_sizes()), found.report.copy()
    placed = []
    for example in found.examples:
        picture: Any = example.medium
        crop = crop_of(picture.size, sizes, crops, example.key)
        if is_enlarged(crop):
            if crops.small == "refuse":
                raise _too_small(report.source, example, crop)
            if crops.small == "skip":
                report.too_small.append(example.key)
                continue
            report.upscaled += 1
        placed.append(Placed(example, crop))
    report.refuse_unusable()
    return placed, report


def crop_of(picture: Size, sizes: tuple[Size, ...], crops: Crops, key: str) -> Crop:
    """The crop of one picture, which depends on nothing but what is given.

    Args:
        picture: Its size.
        sizes: What `crops` lists.
        crops: How to choose.
        key: What chance is drawn from, so that the same example always has the same crop.
    """
    rng = np.random.default_rng(list(hashlib.sha256(key.encode()).digest()))
    best = best_sizes(picture, sizes)[: GOOD_SIZES if crops.choice == "any" else 1]
    size = best[int(rng.integers(len(best)))]
    scale = max(size.width / picture.width, size.height / picture.height)
    width, height = size.width / scale, size.height / scale
    x, y = rng.random(2) if crops.position == "random" else (0.5, 0.5)
    # One of the differences is 0 but for rounding.
    left, top = (
        float(at * max(0.0, room))
        for at, room in ((x, picture.width - width), (y, picture.height - height))
    )
    right, bottom = min(left + width, picture.width), min(top + height, picture.height)
    return Crop(size, left, top, right, bottom)


@functools.lru_cache(maxsize=4096)  # many pictures of a source have the same size
def best_sizes(picture: Size, sizes: tuple[Size, ...]) -> list[Size]:
    """Sizes by how much of a picture they keep, the most first; of equals, the nearest in area."""
    area = picture.width * picture.height

    def loss(size: Size) -> tuple[float, float]:
        return -kept_share(picture, size), abs(size.width * size.height - area)

    return sorted(sizes, key=loss)


def kept_share(picture: Size, size: Size) -> float:
    """Share of a picture that is seen when it is scaled to cover a size."""
    across, down = size.width / picture.width, size.height / picture.height
    return min(across, down) / max(across, down)


def is_enlarged(crop: Crop) -> bool:
    """Whether a crop has fewer pixels in the picture than it is shown at."""
    # Both sides have one scale; half a pixel is more than rounding makes.
    return crop.size.width > crop.right - crop.left + 0.5


def cut(image: Image.Image, crop: Crop) -> Image.Image:
    """The crop of a picture, scaled to its size by an antialiased cubic filter."""
    box = (crop.left, crop.top, crop.right, crop.bottom)
    return image.resize(crop.size, Image.Resampling.BICUBIC, box=box)


def _too_small(source: str, example: Example, crop: Crop) -> LuminaError:
    width, height = example.medium.size[:2]
    return LuminaError(
        f"{example.key} of {source} is {width}x{height}, smaller than its crop of"
        f" {crop.size.width}x{crop.size.height}",
        hint='small = "skip" leaves such pictures out, small = "upscale" enlarges them',
    )
