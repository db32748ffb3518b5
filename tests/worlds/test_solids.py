from collections import Counter

import numpy as np
import pytest

from lumina.worlds.solid_kinds import KINDS
from lumina.worlds.solid_names import NAMES, name_of
from lumina.worlds.solid_parts import box, join, turned
from lumina.worlds.solids import (
    Solid,
    build_surface,
    draw_cloud,
    draw_names,
    draw_solid,
    held_out_solids,
    sample_points,
    tell,
)
from lumina.worlds.vocabulary import LANGUAGES


def middle(kind: str, **units: float) -> Solid:
    """The average solid of a kind, with some numbers set."""
    return Solid(kind, tuple(units.get(name, 0.5) for name in KINDS[kind].ranges))


def extreme(kind: str, unit: float) -> Solid:
    return Solid(kind, (unit,) * len(KINDS[kind].ranges))


@pytest.mark.parametrize("kind", KINDS)
def test_every_solid_fills_the_unit_box_along_its_longest_side(kind):
    rng = np.random.default_rng(0)
    for solid in [extreme(kind, 0.0), extreme(kind, 0.999), draw_solid(rng, kind)]:
        surface = build_surface(solid)
        assert np.isfinite(surface).all()
        low, high = surface.min((0, 1)), surface.max((0, 1))
        assert (high - low).max() == pytest.approx(1)
        assert low == pytest.approx(-high)
        assert abs(draw_cloud(solid, 256, rng)).max() <= 0.5 + 1e-6


def test_points_lie_on_the_surface():
    points = sample_points(box((0, 0, 0), (1, 2, 3)), 500, np.random.default_rng(0))
    sides = np.abs(np.abs(points) - np.array([0.5, 1, 1.5]))
    assert sides.min(1) == pytest.approx(0, abs=1e-6)


def test_a_face_gets_points_by_its_area():
    count = 20_000
    boxes = join(box((0, 0, 0), (1, 1, 1)), box((5, 0, 0), (2, 2, 2)))
    points = sample_points(boxes, count, np.random.default_rng(0))
    share = (points[:, 0] > 2).mean()
    assert share == pytest.approx(24 / 30, abs=4 * np.sqrt(0.16 / count))


def test_a_triangle_is_covered_evenly():
    count = 20_000
    triangle = np.array([[[0.0, 0, 0], [1, 0, 0], [0, 1, 0]]])
    points = sample_points(triangle, count, np.random.default_rng(0))
    assert points.mean(0) == pytest.approx([1 / 3, 1 / 3, 0], abs=4 * np.sqrt(1 / 18 / count))
    near_corner = (points.sum(1) < 0.5).mean()
    assert near_corner == pytest.approx(0.25, abs=0.02)


def test_a_line_around_an_axis_sweeps_a_cylinder():
    surface = turned([(2, 0), (2, 3)])
    edges = surface[:, 1:] - surface[:, :1]
    area = np.linalg.norm(np.cross(edges[:, 0], edges[:, 1]), axis=-1).sum() / 2
    assert area == pytest.approx(2 * np.pi * 2 * 3, rel=0.01)


def test_a_seed_means_one_cloud_and_another_seed_another_shape():
    def draw(seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        return draw_cloud(draw_solid(rng, "chair"), 256, rng)

    assert np.array_equal(draw(0), draw(0))
    assert not np.array_equal(draw(0), draw(1))


def test_held_out_solids_are_of_all_kinds_by_chance_and_differ_from_those_of_training():
    counts = Counter(solid.kind for solid in held_out_solids(1200))
    assert counts.keys() == KINDS.keys()
    # As binomial numbers spread, four times.
    assert all(abs(count - 100) < 4 * 10 for count in counts.values())
    assert len(set(counts.values())) > 3
    solids = held_out_solids(36)
    assert solids == held_out_solids(36)
    others = held_out_solids(36, seed=1)
    rng = np.random.default_rng(0)
    trained = [draw_solid(rng, solid.kind) for solid in solids]
    assert not set(solids) & {*others, *trained}


@pytest.mark.parametrize(
    ("solid", "names", "caption"),
    [
        (middle("chair", back=0.9), ("back",), "a chair with a tall back"),
        (middle("chair", back=0.1, arms=0.9), ("back", "arms"), "a chair with a low back and arms"),
        (middle("table", length=0.9), (), "a table"),
        (middle("table", length=0.9, legs=0), ("length", "legs"), "a long table with thin legs"),
        (middle("table"), ("length", "height"), "a table"),
        (middle("ring", oval=0.99), ("oval",), "an oval ring"),
        (middle("stairs", steps=0.0, rise=0.9), ("steps", "rise"), "steep stairs with three steps"),
        (middle("star", points=0.99), ("points",), "a star with eight points"),
    ],
)
def test_a_caption_says_what_shapes_the_solid(solid, names, caption):
    assert tell(solid, names) == caption


def test_numbers_that_are_told_have_words():
    rng = np.random.default_rng(0)
    for _ in range(200):
        solid = draw_solid(rng)
        names = draw_names(solid, rng)
        assert len(names) <= 2
        plain = tell(solid)
        assert all(tell(solid, [name]) != plain for name in names)


def test_a_number_of_steps_is_the_one_that_is_told():
    counts = {middle("stairs", steps=unit).shape["steps"] for unit in np.arange(0, 1, 0.01)}
    assert counts == {3, 4, 5, 6, 7}
    for unit, count in [(0.1, 3), (0.5, 5), (0.9, 7)]:
        solid = middle("stairs", steps=unit)
        word = {3: "three", 5: "five", 7: "seven"}[count]
        assert solid.shape["steps"] == count
        assert tell(solid, ["steps"]) == f"stairs with {word} steps"


def test_words_are_of_numbers_that_there_are():
    for kind in KINDS.values():
        assert set(kind.words) <= set(kind.ranges)


def test_kinds_have_a_name_of_their_own_in_each_language():
    assert set(NAMES) == set(LANGUAGES)
    for language in LANGUAGES:
        assert len({name_of(kind, language) for kind in KINDS}) == len(KINDS)
    assert name_of("bed", "id") == "tempat tidur"
