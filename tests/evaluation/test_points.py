import numpy as np
import pytest

from lumina.evaluation.intervals import wilson
from lumina.evaluation.points import (
    CloudScores,
    chamfer_among,
    chamfer_matrix,
    nearest_neighbor_accuracy,
    score_distances,
)


def clouds(count: int, *, points: int = 16, seed: int = 0, shift: float = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(points, 3)) + shift for _ in range(count)]


def chamfer(first: np.ndarray, second: np.ndarray) -> float:
    return chamfer_matrix([first], [second]).item()


def score(made: list[np.ndarray], real: list[np.ndarray]) -> CloudScores:
    return score_distances(chamfer_among(made), chamfer_matrix(made, real), chamfer_among(real))


def test_chamfer_distance_equals_that_of_all_pairs_of_points():
    first, second = clouds(2, points=50)
    second = second[:30]
    squares = np.square(first[:, None] - second[None]).sum(-1)
    expected = squares.min(1).mean() + squares.min(0).mean()
    assert chamfer(first, second) == pytest.approx(expected, rel=1e-12)


def test_chamfer_distance_between_two_points_is_twice_their_squared_distance():
    origin, corner = np.zeros((1, 3)), np.array([[1.0, 2, 2]])
    assert chamfer(origin, corner) == pytest.approx(18)


def test_chamfer_distance_is_zero_to_the_same_points_in_another_order():
    (cloud,) = clouds(1)
    assert chamfer(cloud, cloud[::-1].copy()) == 0


def test_matrices_hold_the_distance_of_each_pair():
    first, second = clouds(3), clouds(2, seed=1)
    matrix = chamfer_matrix(first, second)
    assert matrix.shape == (3, 2)
    assert matrix[2, 1] == pytest.approx(chamfer(first[2], second[1]), rel=1e-12)
    assert chamfer_among(first) == pytest.approx(chamfer_matrix(first, first), rel=1e-12)


def test_clouds_that_copy_the_real_ones_match_and_cover_all():
    real = clouds(8)
    scores = score([cloud + 1e-6 for cloud in real], real)
    assert scores.matching.value == pytest.approx(0, abs=1e-9)
    assert scores.coverage.value == 1
    # The nearest of each is its copy on the other side.
    assert scores.nearest.value == 0


def test_clouds_far_from_the_real_ones_are_told_apart_always():
    scores = score(clouds(8, seed=1, shift=50), clouds(8))
    assert scores.nearest.value == 1
    assert scores.matching.value > 1000


def test_one_cloud_made_again_and_again_covers_one_real_cloud():
    real = clouds(8)
    rng = np.random.default_rng(3)
    made = [real[5] + 1e-6 * rng.normal(size=(16, 3)) for _ in real]
    assert score(made, real).coverage.value == 1 / 8


def test_sets_of_one_distribution_are_told_apart_half_of_the_time():
    """And the interval holds a half as often as it says, where wilson's for all clouds does not."""
    rng = np.random.default_rng(0)
    trials, count = 400, 100
    held, held_by_wilson, values = 0, 0, []
    is_made = np.arange(2 * count) < count
    for _ in range(trials):
        places = rng.random((2 * count, 2))
        distances = np.square(places[:, None] - places[None]).sum(-1)
        measured = nearest_neighbor_accuracy(distances, is_made)
        low, high = wilson(round(measured.value * 2 * count), 2 * count)
        held += measured.low <= 0.5 <= measured.high
        held_by_wilson += low <= 0.5 <= high
        values.append(measured.value)
    assert np.mean(values) == pytest.approx(0.5, abs=0.01)
    assert held / trials == pytest.approx(0.95, abs=0.025)
    assert held_by_wilson / trials < 0.92
