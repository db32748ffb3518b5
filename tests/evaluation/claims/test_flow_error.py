import pytest
import torch

from lumina.evaluation.claims.flow_error import (
    gaussian_velocity,
    local_errors,
    mixture_velocity,
    shape_of,
)


def test_the_error_of_a_step_is_that_of_a_known_flow():
    x = torch.full((1, 1), 2.0, dtype=torch.float64)
    errors = local_errors(lambda x, t: -x, x, steps=10, fine=20)
    step = torch.tensor(0.1, dtype=torch.float64)
    for number, error in enumerate(errors):
        start = 2 * torch.exp(-number * step)
        exact = (start * torch.exp(-step) - start * (1 - step)).abs().item()
        assert error == pytest.approx(exact, rel=1e-6)


def test_a_straight_flow_has_no_error():
    x = torch.randn(4, 3, dtype=torch.float64)
    assert max(local_errors(lambda x, t: torch.ones_like(x), x)) < 1e-12


def test_ends_are_compared_with_the_middle():
    errors = [4.0, 4.0] + [1.0] * 16 + [2.0, 2.0]
    assert shape_of(errors) == {"noise": 4, "data": 2, "noise_to_data": 2}


def test_one_mode_flows_as_the_normal_law():
    variances = torch.full((3,), 0.25, dtype=torch.float64)
    x, t = torch.randn(5, 3, dtype=torch.float64), torch.tensor(0.4, dtype=torch.float64)
    mode = mixture_velocity(torch.zeros(1, 3, dtype=torch.float64), spread=0.5)
    torch.testing.assert_close(mode(x, t), gaussian_velocity(variances)(x, t))


def test_the_velocity_of_a_mixture_is_the_expected_difference_of_data_and_noise():
    generator = torch.Generator().manual_seed(0)
    centers, spread, t = torch.tensor([[-1.0], [1.0]]).double(), 0.3, 0.6
    modes = torch.randint(2, (400_000,), generator=generator)
    data = centers[modes] + spread * torch.randn(400_000, 1, generator=generator).double()
    noise = torch.randn(400_000, 1, generator=generator).double()
    points = t * data + (1 - t) * noise
    near = (points - 0.5).abs() < 0.02
    expected = (data - noise)[near].mean()
    exact = mixture_velocity(centers, spread)(torch.tensor([[0.5]]).double(), torch.tensor(t))
    assert exact.item() == pytest.approx(expected.item(), abs=0.02)
