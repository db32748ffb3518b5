import itertools

import numpy as np
import pytest

from lumina.worlds.item_captions import write_item
from lumina.worlds.item_kinds import KINDS
from lumina.worlds.items import (
    COLORS,
    Item,
    azimuths_around,
    build_surface,
    camera_axes,
    draw_item,
    relative_poses,
    render_outlines,
    render_views,
)
from lumina.worlds.vocabulary import LANGUAGES

pytest.importorskip("embreex")

SIDE = 32
AROUND = azimuths_around()


def middle_of(kind, color="blue"):
    return Item(kind, color, (0.5,) * len(KINDS[kind].ranges))


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_its_shape_an_item_is_in_the_ball_that_views_show_whole(kind):
    for units in itertools.product((0.0, 1.0), repeat=len(KINDS[kind].ranges)):
        corners = build_surface(Item(kind, "red", units)).triangles
        assert np.linalg.norm(corners, axis=-1).max() == pytest.approx(0.5)
    views = render_views(Item(kind, "red", units), SIDE, AROUND)
    assert (views[:, 0] == 255).all()
    assert (views[:, :, -1] == 255).all()
    assert all((view < 250).any() for view in views)


@pytest.mark.parametrize("kind", KINDS)
def test_outlines_are_where_pictures_are_not_white(kind):
    item = middle_of(kind)
    shown = (render_views(item, SIDE, AROUND) < 255).any(-1)
    outlines = render_outlines(item, 2 * SIDE, AROUND)
    assert (outlines.reshape(8, SIDE, 2, SIDE, 2).any((2, 4)) == shown).all()


@pytest.mark.parametrize("kind", ["chair", "mug", "airplane"])
def test_opposite_level_views_have_mirrored_outlines(kind):
    front, back = render_outlines(
        middle_of(kind), SIDE, np.array([0.3, 0.3 + np.pi]), elevation=0.0
    )
    assert (front != back[:, ::-1]).mean() < 0.01


@pytest.mark.parametrize("kind", ["chair", "table", "car", "house", "dog", "airplane", "boat"])
def test_left_and_right_views_of_what_is_symmetric_mirror_each_other(kind):
    left, right = render_outlines(middle_of(kind), SIDE, np.array([-0.6, 0.6]))
    assert (left != right[:, ::-1]).mean() < 0.02


def test_cameras_are_orthonormal_and_look_down_from_the_front():
    for azimuth in AROUND:
        axes = camera_axes(azimuth)
        np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(axes) == pytest.approx(1)
    _, up, toward = camera_axes(0.0)
    assert toward[1] < 0 < toward[2]
    assert up[2] > 0


def test_poses_do_not_depend_on_the_azimuth_of_the_first_view():
    here, there = (relative_poses(azimuths_around(6, first=first)) for first in (0.0, 1.3))
    np.testing.assert_allclose(here, there, atol=1e-12)
    assert here[0].tolist() == [0, 1]
    assert here.shape == (6, 2)


def test_an_item_has_the_same_outline_in_every_color():
    red, blue = (
        render_outlines(middle_of("car", color), SIDE, AROUND) for color in ("red", "blue")
    )
    assert (red == blue).all()


def test_kinds_in_colors_that_are_held_out_are_drawn_only_when_asked_for():
    rng = np.random.default_rng(0)
    held_out = {(k, c) for k in KINDS for c in COLORS if Item(k, c, ()).is_held_out}
    assert 0.04 <= len(held_out) / (len(KINDS) * len(COLORS)) <= 0.2

    def draw(count, **options):
        items = [draw_item(rng, **options) for _ in range(count)]
        return {(item.kind, item.color) for item in items}

    trained = draw(800)
    assert trained == set(itertools.product(KINDS, COLORS)) - held_out
    assert draw(200, is_held_out=True) == held_out


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_two_kinds_in_colors_share_a_caption(language):
    items = [middle_of(kind, color) for kind in KINDS for color in COLORS]
    assert len({write_item(item, language) for item in items}) == len(items)


def test_colors_agree_with_the_gender_of_names():
    assert write_item(middle_of("chair", "red"), "es") == "silla roja"
    assert write_item(middle_of("tree", "red"), "es") == "árbol rojo"
    assert write_item(middle_of("house", "green"), "de") == "grünes Haus"
    assert write_item(middle_of("tree", "blue"), "ru") == "синее дерево"
    assert write_item(middle_of("chair", "orange")) == "an orange chair"
