import pytest
import torch

from lumina.errors import LuminaError
from lumina.flow.times import (
    SIGMOID,
    check_times,
    draw_logit_normal,
    draw_uniform,
    resolution_shift,
    shift_times,
    sigmoid_times,
    uniform_times,
)


def test_steps_are_equal_and_reach_from_noise_to_data():
    times = uniform_times(5)
    assert times[0] == 0
    assert times[-1] == 1
    torch.testing.assert_close(times.diff(), torch.full((5,), 0.2))


@pytest.mark.parametrize("factor", [0.3, 1.0, 4.0])
def test_shifting_keeps_both_ends_and_is_undone_by_the_inverse_factor(factor):
    times = uniform_times(9)
    shifted = shift_times(times, factor)
    assert shifted[0] == 0
    torch.testing.assert_close(shifted[-1], torch.tensor(1.0))
    torch.testing.assert_close(shift_times(shifted, 1 / factor), times)


def test_a_factor_above_one_moves_toward_noise():
    assert (shift_times(uniform_times(4), 3.0) <= uniform_times(4)).all()
    torch.testing.assert_close(shift_times(torch.tensor([0.5]), 3.0), torch.tensor([0.25]))


def test_the_sigmoid_keeps_both_ends_and_takes_its_largest_step_in_the_middle():
    times = sigmoid_times(uniform_times(20), **SIGMOID)
    assert (times[0], times[-1]) == (0, 1)
    steps = times.diff()
    assert (steps > 0).all()
    assert steps.argmax() == 12  # from 0.6
    assert steps[0] < 0.05
    assert steps[-1] < 0.05


def test_two_equal_slopes_around_one_half_are_symmetric():
    times = sigmoid_times(uniform_times(8), middle=0.5, start_slope=4.0, end_slope=4.0)
    torch.testing.assert_close(times, 1 - times.flip(0))


def test_four_times_the_tokens_shift_by_two():
    assert resolution_shift(4096, base=1024) == 2


@pytest.mark.parametrize("times", [[0.0], [0.0, 1.5], [0.0, 0.5, 0.5, 1.0], [1.0, 0.0]])
def test_lists_that_no_sampler_can_follow_are_refused(times):
    with pytest.raises(LuminaError, match="times"):
        check_times(times)


def test_no_step_is_refused():
    with pytest.raises(LuminaError, match="steps is 0"):
        uniform_times(0)


def test_times_to_train_on_lie_where_they_should():
    generator = torch.Generator().manual_seed(0)
    even = draw_uniform(20_000, low=0.2, high=0.8, generator=generator)
    assert 0.2 <= even.min() < 0.21
    assert 0.79 < even.max() < 0.8
    assert even.mean().item() == pytest.approx(0.5, abs=0.01)
    middle = draw_logit_normal(20_000, mean=1.0, spread=0.5, generator=generator)
    assert middle.logit().mean().item() == pytest.approx(1, abs=0.02)
    assert middle.logit().std().item() == pytest.approx(0.5, abs=0.02)
