import numpy as np
import pytest
from PIL import Image

from lumina import LuminaError
from lumina.training.data.buckets import (
    Crops,
    best_sizes,
    crop_of,
    crop_sizes,
    cut,
    is_enlarged,
    kept_share,
    place_all,
)
from lumina.training.data.examples import Example, Found, Written
from lumina.training.data.report import Report
from lumina.types import Size

SIZES = tuple(crop_sizes(256))


@pytest.mark.parametrize("side", [64, 128, 256, 512])
@pytest.mark.parametrize("max_ratio", [1.0, 2.0, 4.0])
def test_no_size_has_more_area_or_a_longer_side_than_allowed(side, max_ratio):
    sizes = crop_sizes(side, max_ratio=max_ratio)
    assert len(set(sizes)) == len(sizes)
    assert Size(side, side) in sizes
    for size in sizes:
        assert size.width * size.height <= side**2
        assert max(size) <= max_ratio * min(size)
        assert Size(size.height, size.width) in sizes


@pytest.mark.parametrize("size", SIZES)
def test_a_picture_of_a_listed_size_is_kept_as_it_is(size):
    crop = crop_of(size, SIZES, Crops(), "key")
    assert crop == (size, 0, 0, *size)
    assert kept_share(size, size) == 1


def test_a_crop_has_the_shape_of_its_size_and_lies_in_the_picture():
    rng = np.random.default_rng(0)
    crops = Crops(choice="any", position="random")
    for number in range(200):
        picture = Size(*(int(side) for side in rng.integers(50, 3000, 2)))
        size, left, top, right, bottom = crop_of(picture, SIZES, crops, str(number))
        assert 0 <= left < right <= picture.width
        assert 0 <= top < bottom <= picture.height
        assert (right - left) / (bottom - top) == pytest.approx(size.width / size.height)
        covered = max((right - left) / picture.width, (bottom - top) / picture.height)
        assert covered == pytest.approx(1)
        assert size in best_sizes(picture, SIZES)[:4]


def test_chance_comes_from_the_key_alone():
    crops = Crops(choice="any", position="random")
    found = [crop_of(Size(1000, 700), SIZES, crops, key) for key in ("a", "a", *"bcdefghijklmno")]
    assert found[0] == found[1]
    assert len({crop.size for crop in found}) == 4
    assert len(set(found)) == len(found) - 1


def test_of_sizes_with_one_shape_the_nearest_in_area_is_chosen():
    sizes = (Size(64, 64), Size(128, 128))
    assert crop_of(Size(128, 128), sizes, Crops(), "key").size == Size(128, 128)
    assert crop_of(Size(70, 70), sizes, Crops(), "key").size == Size(64, 64)


def test_cutting_keeps_the_middle_of_a_picture():
    stripes = Image.new("RGB", (300, 100), "red")
    stripes.paste("blue", (100, 0, 200, 100))
    square = cut(stripes, crop_of(stripes_size := Size(300, 100), (Size(50, 50),), Crops(), ""))
    assert stripes_size == stripes.size
    assert square.size == (50, 50)
    assert set(square.crop((2, 0, 48, 50)).get_flattened_data()) == {(0, 0, 255)}


def found(*sizes):
    class Header:
        def __init__(self, size):
            self.size = size

        def open(self):
            raise NotImplementedError

        def digest(self):
            raise NotImplementedError

    examples = [
        Example(f"picture {i}", Header(Size(*size)), Written(("x",)))
        for i, size in enumerate(sizes)
    ]
    return Found(examples, Report("source", found=len(examples)))


def test_small_pictures_are_enlarged_skipped_or_refused_and_counted():
    pictures = found((300, 300), (100, 400), (256, 256), (200, 200))
    placed, report = place_all(pictures, Crops(side=256))
    assert (len(placed), report.upscaled, report.used) == (4, 2, 4)
    placed, report = place_all(pictures, Crops(side=256, small="skip"))
    assert (len(placed), report.upscaled, report.used) == (2, 0, 2)
    assert report.too_small == ["picture 1", "picture 3"]
    assert not any(is_enlarged(one.crop) for one in placed)
    with pytest.raises(LuminaError, match=r"picture 1 of source is 100x400, smaller than"):
        place_all(pictures, Crops(side=256, small="refuse"))
    assert pictures.report.too_small == []


def test_data_of_which_all_are_too_small_are_refused():
    with pytest.raises(LuminaError, match=r"no example to train on\nhint: 1 smaller than"):
        place_all(found((20, 20)), Crops(small="skip"))


def test_listed_sizes_have_to_be_multiples():
    assert Crops(sizes=("128x96",)).list_sizes() == [Size(128, 96)]
    with pytest.raises(LuminaError, match="100x96 is not in multiples of 16"):
        Crops(sizes=("100x96",)).list_sizes()
