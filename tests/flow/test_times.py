import pytest
import torch

from lumina.flow.times import shift_times, uniform_times


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
