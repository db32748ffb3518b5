import math

import pytest
import torch

from lumina.errors import UnknownNameError
from lumina.nn.extrapolation import (
    UNSCALED,
    RopeScaling,
    extrapolate,
    frequency_aware_ntk,
    yarn_share,
)
from lumina.nn.rope import rope_table
from lumina.requests import EXTRAPOLATIONS

CHANNELS, THETA, LENGTH = (0, 36, 36), 10000.0, 64
WIDTH = sum(CHANNELS)


def frequencies(method, *, scale=2.0, time=1.0, length=LENGTH):
    """Radians for each column, by the angle of a token far less than a turn away."""
    scaling = extrapolate(
        method, scale=scale, length=length, head_width=WIDTH, theta=THETA, time=time
    )
    return angles(scaling, [0.0, 0.0, 1e-3]) / 1e-3


def angles(scaling, position):
    table = rope_table(torch.tensor([position]), channels=CHANNELS, theta=THETA, scaling=scaling)
    turned = torch.atan2(table[0, :, 1], table[0, :, 0])
    return turned[1::2]  # of columns


def plain():
    return frequencies("none")


def unseen(found):
    """Frequencies that never complete a turn in training, and go where they never were."""
    incomplete = plain() * LENGTH < 2 * math.pi
    # The first two columns that reach a position as far as the last of training.
    return int((incomplete & (found * 2 * LENGTH > plain() * LENGTH * (1 + 1e-3))).sum())


@pytest.mark.parametrize("method", EXTRAPOLATIONS)
def test_no_method_changes_the_trained_size(method):
    torch.testing.assert_close(frequencies(method, scale=1.0), plain(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("method", "count"), [("none", 13), ("linear", 0), ("ntk", 13)])
def test_unseen_phases_at_twice_the_length_are_those_of_the_analysis(method, count):
    # 18 frequencies an axis, of which 5 complete a turn on 64 patches.
    assert unseen(frequencies(method)) == pytest.approx(count, abs=1)


def test_frequency_aware_scaling_leaves_no_unseen_phase_and_interpolates_fast_waves_less():
    found = frequencies("frequency-aware")
    assert unseen(found) == 0
    assert (found >= plain() / 2 * (1 - 1e-4)).all()
    assert found[1] > plain()[1] / 2 * 1.1


def test_the_wave_as_long_as_the_grid_is_interpolated_exactly():
    exponent = math.log(LENGTH / (2 * math.pi), THETA)
    ntk = frequency_aware_ntk(2.0, length=LENGTH, theta=THETA)
    assert (THETA * ntk) ** -exponent == pytest.approx(THETA**-exponent / 2)


def test_where_no_wave_fits_into_the_grid_all_but_the_first_are_interpolated():
    found = frequencies("frequency-aware", length=6.0)
    torch.testing.assert_close(found[1:], plain()[1:] / 2, rtol=1e-4, atol=1e-7)


def test_time_aware_scaling_goes_from_interpolation_to_ntk():
    early, late = frequencies("time-aware", time=0.0), frequencies("time-aware", time=1.0)
    torch.testing.assert_close(early[1:], plain()[1:] / 2, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(late, frequencies("ntk"), rtol=1e-4, atol=1e-7)
    counts = [unseen(frequencies("time-aware", time=time)) for time in (0.0, 0.3, 0.6, 1.0)]
    assert counts == sorted(counts)
    assert counts[0] == 0 < counts[-1]


def test_the_watershed_parts_interpolation_from_ntk():
    torch.testing.assert_close(frequencies("watershed", time=0.29), frequencies("linear"))
    torch.testing.assert_close(frequencies("watershed", time=0.3), frequencies("ntk"))


def test_yarn_keeps_fast_waves_interpolates_slow_ones_and_sharpens_attention():
    length = 4096.0
    found = frequencies("yarn", length=length)
    turns = length * plain() / (2 * math.pi)
    torch.testing.assert_close(found[turns > 32], plain()[turns > 32], rtol=1e-4, atol=0)
    torch.testing.assert_close(found[turns < 1], plain()[turns < 1] / 2, rtol=1e-4, atol=0)
    assert (turns > 32).any()
    assert (turns < 1).any()
    scaling = extrapolate("yarn", scale=2.0, length=length, head_width=WIDTH)
    assert scaling.attention == pytest.approx((0.1 * math.log(2) + 1) ** 2)
    assert yarn_share(torch.tensor([1.0]), 2 * math.pi * 16.5).item() == pytest.approx(0.5)


@pytest.mark.parametrize("method", ["linear", "ntk", "frequency-aware", "time-aware", "yarn"])
def test_each_axis_may_have_a_scale_of_its_own(method):
    both = extrapolate(method, scale=(1.0, 1.0, 2.0), length=LENGTH, head_width=WIDTH, time=0.5)
    cols = extrapolate(method, scale=2.0, length=LENGTH, head_width=WIDTH, time=0.5)
    table = rope_table(torch.tensor([[0.0, 3.0, 0.0]]), channels=CHANNELS, scaling=both)
    unscaled = rope_table(torch.tensor([[0.0, 3.0, 0.0]]), channels=CHANNELS)
    torch.testing.assert_close(table, unscaled, atol=1e-5, rtol=0)
    torch.testing.assert_close(angles(both, [0.0, 0.0, 1e-3]), angles(cols, [0.0, 0.0, 1e-3]))


@pytest.mark.parametrize("method", ["frequency-aware", "time-aware", "yarn"])
def test_smaller_grids_are_read_as_they_are(method):
    assert (
        extrapolate(method, scale=0.5, length=LENGTH, head_width=WIDTH)._replace(
            kept_above=None, floor=None
        )
        == UNSCALED
    )


def test_a_scaling_for_other_axes_is_refused():
    with pytest.raises(ValueError, match="values for 2 axes, and positions have 3"):
        rope_table(torch.zeros(1, 3), channels=CHANNELS, scaling=RopeScaling(linear=(1.0, 2.0)))


def test_an_unknown_method_is_refused():
    with pytest.raises(UnknownNameError, match="time-aware"):
        extrapolate("time-awar", scale=2.0, length=LENGTH, head_width=WIDTH)
