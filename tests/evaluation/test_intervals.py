import math
from statistics import NormalDist

import numpy as np
import pytest

from lumina.evaluation.intervals import Z, interval_of_mean, wilson

CASES = [(0, 1), (1, 1), (0, 40), (7, 40), (20, 40), (40, 40), (3, 1000)]


def test_z_leaves_a_twentieth_outside():
    assert NormalDist().inv_cdf(0.975) == pytest.approx(Z)


@pytest.mark.parametrize(
    ("right", "count", "low", "high"),
    # From the formula in any textbook, and R's prop.test(..., correct=FALSE).
    [
        (0, 10, 0.0, 0.2775),
        (5, 10, 0.2366, 0.7634),
        (10, 10, 0.7225, 1.0),
        (81, 263, 0.2553, 0.3662),
    ],
)
def test_wilson_gives_published_intervals(right, count, low, high):
    assert wilson(right, count) == pytest.approx((low, high), abs=1e-4)


@pytest.mark.parametrize(("right", "count"), CASES)
def test_at_the_ends_of_wilson_the_share_is_z_deviations_away(right, count):
    for end in wilson(right, count):
        if 0.0 < end < 1.0:
            deviation = math.sqrt(end * (1 - end) / count)
            assert abs(right / count - end) == pytest.approx(Z * deviation)


@pytest.mark.parametrize(("right", "count"), CASES)
def test_wilson_of_what_is_wrong_mirrors_that_of_what_is_right(right, count):
    low, high = wilson(right, count)
    assert wilson(count - right, count) == pytest.approx((1 - high, 1 - low))


@pytest.mark.parametrize(("right", "count"), CASES)
def test_wilson_holds_the_share_and_stays_a_share(right, count):
    low, high = wilson(right, count)
    assert 0 <= low <= right / count <= high + 1e-12
    assert low < high <= 1


@pytest.mark.parametrize("count", [1, 10, 1000])
def test_all_or_nothing_is_never_certain(count):
    assert wilson(0, count)[1] > 1 / count / 2
    assert wilson(count, count)[0] < 1 - 1 / count / 2


@pytest.mark.parametrize("count", [10, 60, 150])
def test_wilson_covers_the_truth_in_about_95_of_100_cases(count):
    intervals = [wilson(right, count) for right in range(count + 1)]

    def coverage(share: float) -> float:
        return sum(
            math.comb(count, right) * share**right * (1 - share) ** (count - right)
            for right, (low, high) in enumerate(intervals)
            if low <= share <= high
        )

    assert np.mean([coverage(share) for share in np.linspace(0.01, 0.99, 99)]) == pytest.approx(
        0.95, abs=0.015
    )


def test_the_interval_of_two_values_is_known():
    # Their mean is 1, its standard error 1.
    assert interval_of_mean([0.0, 2.0]) == pytest.approx((1 - Z, 1 + Z))


def test_equal_values_leave_no_doubt():
    assert interval_of_mean([3.5] * 4) == (3.5, 3.5)


def test_an_interval_moves_and_grows_with_its_values():
    values = np.random.default_rng(0).normal(size=30)
    low, high = interval_of_mean(values.tolist())
    assert interval_of_mean((5 + 2 * values).tolist()) == pytest.approx((5 + 2 * low, 5 + 2 * high))


def test_four_times_the_values_halve_the_interval():
    values = np.random.default_rng(0).normal(size=400).tolist()
    (low, high), (lower, higher) = interval_of_mean(values), interval_of_mean(values * 4)
    assert higher - lower == pytest.approx((high - low) / 2, rel=0.01)


def test_the_interval_covers_the_mean_in_about_95_of_100_cases():
    samples = np.random.default_rng(0).normal(7, 3, size=(1000, 60))
    ends = [interval_of_mean(sample.tolist()) for sample in samples]
    # Three standard deviations of a share of 0.95 in 1000.
    assert np.mean([low <= 7 <= high for low, high in ends]) == pytest.approx(0.95, abs=0.021)
