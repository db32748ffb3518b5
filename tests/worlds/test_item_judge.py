import numpy as np
import pytest

from lumina.worlds.item_judge import Showroom, color_of, find_agreement, outline_of
from lumina.worlds.item_kinds import KINDS
from lumina.worlds.items import COLORS, Item, azimuths_around, render_views

pytest.importorskip("embreex")

AROUND = azimuths_around(4)
SIDE = 64


@pytest.fixture(scope="module")
def showroom():
    return Showroom(AROUND)


def item_of(kind, color="blue", seed=0):
    units = np.random.default_rng(seed).random(len(KINDS[kind].ranges))
    return Item(kind, color, tuple(units.tolist()))


@pytest.mark.parametrize("kind", KINDS)
def test_true_views_are_told(showroom, kind):
    for seed, color in enumerate(("red", "cyan")):
        item = item_of(kind, color, seed)
        verdict = showroom.judge(item, render_views(item, SIDE, AROUND))
        assert verdict.kind_share == verdict.color_share == 1
        assert verdict.is_of_one_color
        assert verdict.overlap > 0.85
        assert verdict.agreement > 0.97


def test_views_of_another_item_are_told_from_what_was_asked_for(showroom):
    views = render_views(item_of("tree", "green"), SIDE, AROUND)
    verdict = showroom.judge(item_of("airplane", "red"), views)
    assert verdict.kind_share == verdict.color_share == 0
    assert verdict.kinds == ("tree",) * 4
    assert verdict.overlap < 0.5
    assert verdict.agreement > 0.97


@pytest.mark.parametrize("kind", ["chair", "dog", "car"])
def test_views_in_another_order_overlap_less_and_disagree(showroom, kind):
    item = item_of(kind)
    views = render_views(item, SIDE, AROUND)
    right, wrong = showroom.judge(item, views), showroom.judge(item, views[[0, 2, 3, 1]])
    assert wrong.overlap < right.overlap - 0.1
    assert wrong.agreement < right.agreement - 0.05


def test_views_of_two_colors_are_not_of_one(showroom):
    red, blue = (render_views(item_of("mug", color), SIDE, AROUND) for color in ("red", "blue"))
    verdict = showroom.judge(item_of("mug", "red"), np.concatenate([red[:3], blue[3:]]))
    assert verdict.color_share == 0.75
    assert not verdict.is_of_one_color


@pytest.mark.parametrize("color", COLORS)
def test_noise_hides_no_color(color):
    rng = np.random.default_rng(0)
    for kind in ("airplane", "house"):
        view = render_views(item_of(kind, color), SIDE, AROUND[:1])[0]
        noisy = (view + rng.normal(0, 10, view.shape)).clip(0, 255).astype(np.uint8)
        assert color_of(noisy) == color


def test_white_views_show_nothing(showroom):
    white = np.full((4, SIDE, SIDE, 3), 255, np.uint8)
    verdict = showroom.judge(item_of("car"), white)
    assert verdict.kinds == verdict.colors == (None,) * 4
    assert verdict.overlap == verdict.agreement == 0


def test_a_ball_agrees_with_itself_from_everywhere_and_with_no_larger_one():
    line = (np.arange(48) + 0.5) / 48 - 0.5
    distance = np.hypot(*np.meshgrid(line, line))
    small, large = (np.stack([distance < radius] * 4) for radius in (0.2, 0.4))
    assert find_agreement(small, AROUND) > 0.99
    mixed = np.concatenate([small[:2], large[2:]])
    # A large disc is filled at most by what the small one lets through.
    assert find_agreement(mixed, AROUND) < 0.7


def test_outlines_of_any_size_are_compared_at_one():
    item = item_of("house")
    small, large = (outline_of(render_views(item, side, AROUND[:1])[0]) for side in (48, 144))
    assert small.shape == large.shape
    # They differ along edges alone, which are a twentieth of the picture.
    assert (small != large).mean() < 0.03
