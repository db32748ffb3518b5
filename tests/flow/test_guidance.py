import pytest
import torch

from lumina.flow.guidance import Guidance, guide

CONDITIONAL, UNCONDITIONAL = torch.randn(2, 3, 4, 2, 2, generator=torch.Generator().manual_seed(0))


def velocity(x, t):
    return torch.cat([CONDITIONAL, UNCONDITIONAL]) * t + x * 0


def guided(guidance, channels=None):
    return guide(velocity, Guidance(scale=guidance, channels=channels))(
        torch.zeros(3, 4, 2, 2), torch.tensor(1.0)
    )


def test_one_follows_the_condition_and_zero_ignores_it():
    torch.testing.assert_close(guided(1.0), CONDITIONAL)
    torch.testing.assert_close(guided(0.0), UNCONDITIONAL)


def test_guidance_goes_on_in_a_straight_line():
    torch.testing.assert_close(guided(3.0) - guided(1.0), 2 * (guided(2.0) - guided(1.0)))


def test_other_channels_follow_the_condition_alone():
    result = guided(4.0, channels=3)
    assert torch.equal(result[:, 3:], CONDITIONAL[:, 3:])
    torch.testing.assert_close(result[:, :3], guided(4.0)[:, :3])


@pytest.mark.parametrize("shape", [(3, 4, 5, 2, 2), (3, 4, 7)])
def test_the_grid_may_have_any_number_of_axes(shape):
    zero = guide(lambda x, t: x, Guidance(scale=4.0, channels=3))(
        torch.zeros(shape), torch.tensor(0.5)
    )
    assert zero.shape == shape
