import numpy as np
import pytest
from PIL import Image, ImageFilter

from lumina.types import Size
from lumina.worlds.captions import PLACES, RELATIONS, Brief, stage
from lumina.worlds.drawings import PALETTE, paint, reference
from lumina.worlds.judge import Lineup, cut_out, nearest_color, place_of, split

BASE = Size(128, 128)


@pytest.fixture(scope="module")
def lineup(patterns):
    return Lineup(list(patterns), references(patterns))


@pytest.fixture(scope="module")
def things(patterns):
    return list(patterns)


def references(patterns):
    return np.stack([reference(thing, drawing_of=patterns.get) for thing in patterns])


def picture(patterns, brief, *, size=BASE, seed=None):
    rng = None if seed is None else np.random.default_rng(seed)
    return np.asarray(paint(stage(brief, rng), size, drawing_of=patterns.get))


@pytest.mark.parametrize("size", [BASE, Size(96, 96), Size(192, 96), Size(112, 160)])
def test_a_painted_thing_is_found(patterns, lineup, things, size):
    for seed, thing in enumerate(things):
        brief = Brief((thing,))
        verdict = lineup.judge(brief, picture(patterns, brief, size=size, seed=seed))
        assert verdict.is_found
        assert verdict.is_color_right
        assert verdict.found == (thing,)


def test_another_thing_is_found_as_often_as_chance_has_it(patterns, lineup, things):
    rng = np.random.default_rng(0)
    verdicts = [
        lineup.judge(Brief((thing,)), picture(patterns, Brief((things[k],))))
        for thing in things
        for k in rng.integers(len(things), size=5)
    ]
    assert np.mean([v.is_found for v in verdicts]) < 0.1
    assert np.mean([v.is_near for v in verdicts]) < 0.25


@pytest.mark.parametrize("color", PALETTE)
def test_every_background_is_told(patterns, lineup, things, color):
    for brief in (Brief((things[0],), color), Brief((things[1],), color, "left")):
        assert lineup.judge(brief, picture(patterns, brief)).is_color_right


@pytest.mark.parametrize("place", PLACES)
def test_every_place_is_told_from_the_others_and_the_middle(patterns, lineup, things, place):
    for seed, thing in enumerate(things):
        brief = Brief((thing,), place=place)
        pixels = picture(patterns, brief, seed=seed)
        assert lineup.judge(brief, pixels).is_place_right
        for other in {*PLACES, None} - {place}:
            assert not lineup.judge(Brief((thing,), place=other), pixels).is_place_right


@pytest.mark.parametrize("relation", RELATIONS)
@pytest.mark.parametrize("size", [BASE, Size(192, 96), Size(96, 192)])
def test_pairs_are_found_and_only_in_their_relation(patterns, lineup, things, relation, size):
    for seed, (first, second) in enumerate(zip(things[:8], things[8:16], strict=True)):
        brief = Brief((first, second), relation=relation)
        pixels = picture(patterns, brief, size=size, seed=seed)
        assert lineup.judge(brief, pixels).is_found
        assert not lineup.judge(Brief((second, first), relation=relation), pixels).is_found


def test_one_thing_is_not_a_pair(patterns, lineup, things):
    pixels = picture(patterns, Brief((things[0],), place="left"))
    verdict = lineup.judge(Brief((things[0], things[1]), relation="to the left of"), pixels)
    assert verdict.found == (things[0], None)
    assert not verdict.is_found


def test_an_empty_picture_shows_nothing(lineup, things):
    verdict = lineup.judge(Brief((things[0],)), np.full((64, 64, 3), 255, np.uint8))
    assert verdict.found == (None,)
    assert verdict.place is None
    assert not verdict.is_near


def test_moving_a_thing_changes_no_distance(patterns, lineup, things):
    pixels = picture(patterns, Brief((things[3],), "green", "left"))
    moved = np.roll(pixels, (17, 40), axis=(0, 1))
    before, after = (lineup.distances(cut_out(p)) for p in (pixels, moved))
    np.testing.assert_array_equal(before, after)


def test_distances_are_those_to_the_drawings_painted_on_the_background(patterns, lineup, things):
    drawings = references(patterns) / 255
    cut = cut_out(picture(patterns, Brief((things[2],), "orange")))
    opacity = drawings[..., 3:]
    painted = drawings[..., :3] * opacity + cut.background / 255 * (1 - opacity)
    crop = np.asarray(Image.fromarray(cut.pixels[cut.box]))
    rows, cols, _ = crop.shape
    square = np.broadcast_to(cut.background.astype(np.uint8), (rows, rows, 3)).copy()
    square[:, (rows - cols) // 2 :][:, :cols] = crop
    seen = np.asarray(Image.fromarray(square).resize((32, 32), Image.Resampling.BOX)) / 255
    expected = np.sqrt(np.square(painted - seen).mean((1, 2, 3)))
    np.testing.assert_allclose(lineup.distances(cut), expected, atol=2e-4)


@pytest.mark.parametrize("damage", ["noise", "blur", "specks"])
def test_mild_damage_hides_nothing(patterns, lineup, things, damage):
    rng = np.random.default_rng(0)
    for thing in things:
        pixels = picture(patterns, Brief((thing,)), seed=1)
        if damage == "noise":
            noisy = pixels + rng.normal(0, 10, pixels.shape)
            pixels = noisy.round().clip(0, 255).astype(np.uint8)
        elif damage == "blur":
            pixels = np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(1.5)))
        else:
            pixels = pixels.copy()
            pixels[3:6, 3:6] = pixels[120:123, 90:93] = (200, 0, 90)
        assert lineup.judge(Brief((thing,)), pixels).is_found


def test_blots_that_touch_only_at_the_end_of_a_detour_are_one():
    pixels = np.full((40, 40, 3), 255, np.uint8)
    pixels[5:35, 5:10] = pixels[30:35, 5:35] = pixels[5:35, 30:35] = 0
    pixels[5:8, 18:21] = 0  # smaller than a fiftieth of the arch, once smoothed, it is not
    rows, cols = cut_out(pixels).box
    assert (rows.start, rows.stop, cols.start, cols.stop) == (4, 36, 4, 36)


def test_the_background_is_found_when_a_thing_touches_the_border():
    pixels = np.full((40, 60, 3), (60, 170, 70), np.uint8)
    pixels[:, :15] = 0
    cut = cut_out(pixels)
    assert nearest_color(cut.background) == "green"
    assert place_of(cut) == "left"


def test_two_things_are_parted_where_least_is_between_them():
    pixels = np.full((100, 100, 3), 255, np.uint8)
    pixels[40:60, 5:45] = pixels[40:60, 57:95] = 0
    pixels[50, 45:57] = 0
    left, right = split(cut_out(pixels), "to the left of")
    assert 45 <= left.box[1].stop <= 57
    assert right.box[1].start == left.box[1].stop


def test_palette_colors_are_nearest_to_themselves():
    for name, rgb in PALETTE.items():
        assert nearest_color(np.array(rgb, float) + 8) == name
