import itertools

import numpy as np
import pytest

from lumina.modalities.point_pairing import pair_noise


def test_paired_noise_is_the_same_noise():
    rng = np.random.default_rng(0)
    noise, points = rng.normal(size=(2, 40, 3))
    paired = pair_noise(noise, points)
    assert sorted(map(tuple, paired)) == sorted(map(tuple, noise))


def test_no_other_order_is_nearer():
    rng = np.random.default_rng(1)
    noise, points = rng.normal(size=(2, 6, 3))
    least = min(
        np.square(noise[list(order)] - points).sum() for order in itertools.permutations(range(6))
    )
    assert np.square(pair_noise(noise, points) - points).sum() == pytest.approx(least)
