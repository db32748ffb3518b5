from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from lumina.types import Size
from lumina.worlds.grounds import Ground
from lumina.worlds.recognition import (
    EXTENTS,
    Gallery,
    _digits,
    draw_view,
    open_gallery,
    paint_view,
)
from lumina.worlds.vocabulary import COMMON, shipped_things

BLACK, WHITE = (0, 0, 0), (255, 255, 255)


@pytest.fixture
def plain(gallery):
    """Views on plain black, without noise."""

    def plain(label, seed=0, **settings):
        view = draw_view(np.random.default_rng(seed), gallery, label)
        ground = Ground("plain", (BLACK, BLACK), 0)
        changes = {"ink": WHITE, "gain": 1.0, "offset": 0.0, "noise": 0.0}
        return replace(view, ground=ground, **changes | settings)

    return plain


def box(pixels):
    rows, cols = (np.flatnonzero((pixels.max(-1) > 8).any(axis)) for axis in (1, 0))
    return rows[0], rows[-1] + 1, cols[0], cols[-1] + 1


def test_the_same_source_of_chance_gives_the_same_view(gallery):
    one, again = (draw_view(np.random.default_rng(5), gallery, 2) for _ in range(2))
    assert one == again
    size = Size(30, 20)
    assert np.array_equal(paint_view(one, gallery, size), paint_view(again, gallery, size))


@pytest.mark.parametrize("size", [Size(64, 64), Size(120, 48), Size(40, 100)])
@pytest.mark.parametrize("label", [0, 4])
def test_a_thing_has_its_extent_wherever_it_is(plain, gallery, size, label):
    for seed, extent in enumerate(np.linspace(*EXTENTS, 5)):
        view = plain(label, seed, extent=extent, angle=0.0)
        top, bottom, left, right = box(paint_view(view, gallery, size))
        assert max(bottom - top, right - left) == pytest.approx(extent * min(size), abs=2)


def test_a_thing_goes_to_the_edges_and_not_beyond(plain, gallery):
    size = Size(90, 50)
    for place in ((0.0, 0.0), (1.0, 1.0)):
        pixels = paint_view(plain(1, place=place, extent=0.6, angle=0.0), gallery, size)
        top, bottom, left, right = box(pixels)
        start = (top, left) if place == (0.0, 0.0) else (50 - bottom, 90 - right)
        assert max(start) <= 1


def test_a_view_is_the_same_at_any_size(gallery):
    for label in range(len(gallery.names)):
        view = replace(draw_view(np.random.default_rng(label), gallery, label), noise=0.0)
        small = paint_view(view, gallery, Size(96, 96))
        large = Image.fromarray(paint_view(view, gallery, Size(384, 384)))
        shrunk = np.asarray(large.resize((96, 96), Image.Resampling.BOX), float)
        assert np.abs(small - shrunk).mean() < 9  # edges fall on other pixels


def test_ink_stands_out_from_its_ground(gallery):
    for seed in range(30):
        view = draw_view(np.random.default_rng(seed), gallery, 5)
        least = min(np.mean(np.subtract(c, view.ink)) for c in view.ground.colors)
        most = max(np.mean(np.subtract(c, view.ink)) for c in view.ground.colors)
        assert least > 50 or most < -50


def test_every_class_has_a_drawing_in_the_font_and_its_own_name(font):
    galleries = [open_gallery(split) for split in ("train", "validation", "test")]
    assert galleries[0].names == galleries[1].names == galleries[2].names
    assert len(set(galleries[0].names)) == len(galleries[0].names) == len(COMMON) + 10
    assert all(len(some) > 8 for gallery in galleries for some in gallery.drawings[len(COMMON) :])


def test_its_drawings_differ_as_those_of_lumina_mini_do():
    assert set(COMMON) <= set(shipped_things())


def test_no_digit_is_in_two_splits():
    train, validation, test = (
        {(digit, scan.tobytes()) for digit, some in enumerate(_digits(split)) for scan in some}
        for split in ("train", "validation", "test")
    )
    assert not train & validation
    assert not train & test
    assert not validation & test
    assert len(train) > 8 * max(len(validation), len(test)) * 0.95
    assert isinstance(_digits("test")[0], tuple)


def test_a_gallery_knows_ink(gallery):
    assert [gallery.is_ink(label) for label in range(6)] == [False] * 4 + [True] * 2
    assert isinstance(gallery, Gallery)
