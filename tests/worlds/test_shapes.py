import numpy as np
import pytest

from lumina.worlds.shapes import (
    CLASSES,
    COLORS,
    LARGEST,
    SHAPES,
    SMALLEST,
    Shape,
    draw_shape,
    paint_shape,
)

AREAS = {"disc": np.pi / 4, "square": 1.0, "triangle": 0.5}


@pytest.mark.parametrize("kind", SHAPES)
def test_a_shape_covers_its_share_of_the_canvas(kind):
    picture = paint_shape(Shape(kind, "black", 0.25, 0.25, 0.5), 64)
    dark = (255 - picture[..., 0].astype(float)) / (255 - COLORS["black"][0])
    assert dark.mean() == pytest.approx(AREAS[kind] / 4, rel=0.02)


def test_a_canvas_of_twice_the_side_shows_the_same_picture():
    shape = Shape("triangle", "red", 0.3, 0.2, 0.35)
    small, large = (paint_shape(shape, side).astype(float) for side in (32, 64))
    reduced = large.reshape(32, 2, 32, 2, 3).mean((1, 3))
    # Edges are sampled four times a pixel, and a pixel is half as large there.
    assert abs(reduced - small).max() <= 255 / 4
    assert abs(reduced - small).mean() < 0.5


def test_every_class_is_a_shape_in_a_color_within_the_canvas():
    rng = np.random.default_rng(0)
    shapes = [draw_shape(rng, label) for label in range(CLASSES)]
    assert {(shape.kind, shape.color) for shape in shapes} == {
        (kind, color) for kind in SHAPES for color in COLORS
    }
    for shape in shapes:
        assert SMALLEST <= shape.side <= LARGEST
        assert min(shape.left, shape.top) >= 0
        assert max(shape.left, shape.top) + shape.side <= 1
