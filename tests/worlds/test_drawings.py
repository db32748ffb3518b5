import numpy as np
import pytest
from PIL import Image

from lumina import LuminaError
from lumina.types import Size
from lumina.worlds import drawings
from lumina.worlds.drawings import PALETTE, Placed, Scene, find_font, fit, paint, reference, sprite

CAT, PLAY, RULER = "🐱", "▶️", "📏"


def test_a_scene_at_twice_the_size_is_the_same_picture(patterns):
    scene = Scene("yellow", (Placed(CAT, (0.4, 0.6), 0.5), Placed("🍕", (0.7, 0.2), 0.25)))
    small = paint(scene, Size(96, 64), drawing_of=patterns.get)
    large = paint(scene, Size(192, 128), drawing_of=patterns.get)
    reduced = large.resize(small.size, Image.Resampling.BOX)
    assert np.abs(np.asarray(reduced, float) - np.asarray(small)).mean() < 4


def test_what_is_painted_last_is_in_front(patterns):
    both = Scene("white", (Placed(CAT, (0.5, 0.5), 0.5), Placed("🍕", (0.5, 0.5), 0.5)))
    pixel = paint(both, Size(64, 64), drawing_of=patterns.get).getpixel((32, 32))
    assert pixel == patterns["🍕"].getpixel((patterns["🍕"].width // 2, 50))[:3]


def test_corners_show_the_background(patterns):
    for color, rgb in PALETTE.items():
        scene = Scene(color, (Placed(CAT, (0.5, 0.5), 0.8),))
        assert paint(scene, Size(48, 32), drawing_of=patterns.get).getpixel((0, 0)) == rgb


def test_extent_is_a_fraction_of_the_shorter_side(patterns):
    scene = Scene("white", (Placed(CAT, (0.5, 0.5), 0.5),))
    picture = np.asarray(paint(scene, Size(200, 80), drawing_of=patterns.get))
    assert (picture != 255).any((1, 2)).sum() == 40


def test_fitting_keeps_proportions():
    assert fit(Image.new("RGBA", (60, 30)), 20).size == (20, 10)
    assert fit(Image.new("RGBA", (30, 60)), 90).size == (45, 90)


def test_transparent_edges_do_not_darken_when_a_drawing_shrinks():
    drawing = Image.new("RGBA", (64, 64))
    drawing.paste((255, 0, 0, 255), (16, 16, 48, 48))
    small = np.asarray(fit(drawing, 10))
    assert (small[small[..., 3] > 20][:, 0] > 250).all()


def test_a_reference_is_padded_to_a_square():
    tall = Image.new("RGBA", (16, 64), "red")
    drawing = reference(CAT, 32, drawing_of=lambda _: tall)
    assert drawing.shape == (32, 32, 4)
    assert np.flatnonzero(drawing[..., 3].any(0)).tolist() == list(range(12, 20))


@pytest.mark.usefixtures("font")
@pytest.mark.parametrize("emoji", [CAT, PLAY, RULER])
def test_sprites_are_cut_tight(emoji):
    opacity = np.asarray(sprite(emoji))[..., 3]
    for edge in (opacity[0], opacity[-1], opacity[:, 0], opacity[:, -1]):
        assert edge.max() > 8


@pytest.mark.usefixtures("font")
@pytest.mark.parametrize("text", ["\u200b", "🐱🐱"])
def test_what_the_font_does_not_draw_as_one_is_refused(text):
    with pytest.raises(LuminaError, match="no drawing"):
        sprite(text)


def test_a_missing_font_says_how_to_install_it(monkeypatch, tmp_path):
    monkeypatch.setattr(drawings, "FONT_PATHS", (tmp_path / "none.ttf",))
    with pytest.raises(LuminaError, match="fonts-noto-color-emoji"):
        find_font()
