import pytest
import torch

from lumina.evaluation.claims.phases import RELEASED, SHAPES, frequencies, unseen


def test_frequencies_are_powers_of_the_base():
    found = frequencies(SHAPES, "none", scale=1.0, time=0.0)
    expected = SHAPES.theta ** (-torch.arange(12).double() / 12)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("method", ["linear", "frequency-aware"])
@pytest.mark.parametrize("shape", [RELEASED, SHAPES])
def test_interpolation_shows_no_new_phases(shape, method):
    assert unseen(shape, method, scale=2.0, time=0.5)[0] == 0


@pytest.mark.parametrize("method", ["none", "ntk"])
def test_all_slow_frequencies_turn_further_without_interpolation(method):
    new, slow = unseen(RELEASED, method, scale=2.0, time=0.5)
    assert new == slow == 13


def test_nothing_is_new_at_the_trained_size():
    assert unseen(RELEASED, "none", scale=1.0, time=0.5)[0] == 0


def test_time_aware_scaling_shows_more_and_more_of_them():
    counts = [unseen(RELEASED, "time-aware", scale=2.0, time=t)[0] for t in (0.0, 0.5, 1.0)]
    assert counts == sorted(counts)
    assert counts[0] == 0
    assert counts[-1] == 13
