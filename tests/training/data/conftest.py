"""Pictures in files, and examples that need none."""

import dataclasses
import hashlib

import numpy as np
import pytest
from PIL import Image

from lumina.training.data.buckets import Crops, place_all
from lumina.training.data.examples import Example, Found, Written
from lumina.training.data.report import Report
from lumina.types import Size


@dataclasses.dataclass(frozen=True)
class PlainPicture:
    """A picture of one gray."""

    size: Size
    gray: int = 0

    def open(self):
        return Image.new("RGB", self.size, (self.gray,) * 3)

    def digest(self):
        return hashlib.sha256(repr(self).encode()).hexdigest()


@pytest.fixture(scope="session")
def make_picture():
    """Write a picture of random colors, by which it is told from others."""

    def make_picture(path, size=(40, 30), seed=0, **options):
        path.parent.mkdir(parents=True, exist_ok=True)
        colors = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), np.uint8)
        picture = Image.fromarray(colors).resize(size, Image.Resampling.NEAREST)
        picture.save(path, **options)
        return picture

    return make_picture


@pytest.fixture(scope="session")
def make_placed():
    """Examples of given sizes in their crops, with two captions each."""

    def make_placed(sizes, name="plain", crops=None):
        examples = [
            Example(
                f"{name}-{number}",
                PlainPicture(Size(*size), number % 256),
                Written((f"{name} {number}", f"the {name} {number}")),
            )
            for number, size in enumerate(sizes)
        ]
        found = Found(examples, Report(name, found=len(examples)))
        listed = tuple(dict.fromkeys(f"{width}x{height}" for width, height in sizes))
        return place_all(found, crops or Crops(sizes=listed))[0]

    return make_placed
