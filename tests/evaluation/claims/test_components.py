import numpy as np
import pytest

from lumina.evaluation.claims.components import likeness_to, look, split_parts
from lumina.worlds.shapes import SHAPES, Shape, is_inside, paint_shape


def canvas_with(*shapes, side=64):
    """Shapes on white; the darkest wins where they overlap."""
    return np.min([paint_shape(shape, side) for shape in shapes], axis=0)


def disc(left, top, size=0.3, color="red"):
    return Shape("disc", color, left, top, size)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_as_many_objects_are_counted_as_were_painted(count):
    places = [(0.05, 0.05), (0.6, 0.05), (0.05, 0.6), (0.6, 0.6)]
    picture = canvas_with(*(disc(*place) for place in places[:count]))
    assert look(picture, smallest=20).objects == count


def test_touching_objects_are_one_part():
    picture = canvas_with(disc(0.1, 0.3), disc(0.38, 0.3))
    assert look(picture, smallest=20).objects == 1


def test_an_empty_canvas_has_no_object():
    assert look(np.full((64, 64, 3), 255, np.uint8), smallest=20) == (0, 0.0, 0.0, 0.0)


def test_specks_are_no_objects():
    picture = canvas_with(disc(0.1, 0.1))
    picture[55:58, 55:58] = 0
    assert look(picture, smallest=40).objects == 1
    assert look(picture, smallest=5).objects == 2


def test_what_covers_the_canvas_is_no_object():
    picture = canvas_with(Shape("square", "blue", 0.1, 0.1, 0.8))
    assert look(picture, smallest=20).objects == 0


@pytest.mark.parametrize("side", [64, 128])
def test_size_is_a_share_of_the_canvas(side):
    seen = look(canvas_with(Shape("square", "green", 0.2, 0.3, 0.35), side=side), smallest=20)
    assert seen.size == pytest.approx(0.35, abs=0.05)


def test_a_blurred_object_is_less_sharp():
    sharp = canvas_with(Shape("square", "black", 0.3, 0.3, 0.4)).astype(float)
    soft = sharp
    for _ in range(4):
        padded = np.pad(soft, ((1, 1), (1, 1), (0, 0)), mode="edge")
        windows = [padded[y : y + 64, x : x + 64] for y in range(3) for x in range(3)]
        soft = np.mean(windows, axis=0)
    first, second = (look(p.astype(np.uint8), smallest=20).sharpness for p in (sharp, soft))
    assert first > 0.5
    assert second < 0.5 * first


@pytest.mark.parametrize("kind", SHAPES)
def test_a_shape_is_most_like_itself(kind):
    line = (np.arange(40) + 0.5) / 40
    likeness = {other: likeness_to(is_inside(kind, line, line), other) for other in SHAPES}
    assert likeness.pop(kind) == 1
    assert max(likeness.values()) < 0.8


def test_parts_touch_by_corners_or_sides():
    mask = np.zeros((6, 6), bool)
    mask[0, 0] = mask[1, 1] = mask[4, 4] = True
    assert sorted(part.sum() for part in split_parts(mask)) == [1, 2]
    assert split_parts(np.zeros((3, 3), bool)) == []
