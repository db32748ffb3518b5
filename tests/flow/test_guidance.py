import pytest
import torch

from lumina.errors import LuminaError
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


def test_each_sample_may_have_a_guidance_of_its_own():
    scales = torch.tensor([1.0, 2.0, 5.0])
    steered = Guidance(scale=scales, channels=3).steer(CONDITIONAL, UNCONDITIONAL)
    for row, scale in enumerate(scales.tolist()):
        alone = Guidance(scale=scale, channels=3).steer(
            CONDITIONAL[row : row + 1], UNCONDITIONAL[row : row + 1]
        )
        torch.testing.assert_close(steered[row : row + 1], alone)


def test_rescaling_brings_the_spread_of_each_sample_back():
    def spread(values):
        return values.flatten(1).std(1)

    plain = Guidance(scale=6.0).steer(CONDITIONAL, UNCONDITIONAL)
    back = Guidance(scale=6.0, rescale=1.0).steer(CONDITIONAL, UNCONDITIONAL)
    torch.testing.assert_close(spread(back), spread(CONDITIONAL))
    half = Guidance(scale=6.0, rescale=0.5).steer(CONDITIONAL, UNCONDITIONAL)
    torch.testing.assert_close(half, (plain + back) / 2)


def test_normalization_shortens_what_got_longer_and_nothing_else():
    def length(values):
        return values.flatten(1).norm(dim=1)

    longer = Guidance(scale=6.0, normalize=True).steer(CONDITIONAL, UNCONDITIONAL)
    torch.testing.assert_close(length(longer), length(CONDITIONAL))
    shorter = Guidance(scale=4.0, normalize=True).steer(CONDITIONAL, 1.1 * CONDITIONAL)
    torch.testing.assert_close(shorter, Guidance(scale=4.0).steer(CONDITIONAL, 1.1 * CONDITIONAL))


@pytest.mark.parametrize(
    ("time", "is_on"), [(0.0, False), (0.2, True), (0.79, True), (0.8, False), (1.0, False)]
)
def test_there_is_guidance_between_two_times(time, is_on):
    assert Guidance(interval=(0.2, 0.8)).is_on_at(time) is is_on


def test_without_an_interval_there_is_guidance_at_both_ends():
    assert Guidance().is_on_at(0.0)
    assert Guidance().is_on_at(1.0)


@pytest.mark.parametrize("interval", [(0.5, 0.5), (-0.1, 1.0), (0.8, 0.2), (0.0, 1.1)])
def test_an_interval_that_is_none_is_refused(interval):
    with pytest.raises(LuminaError, match="guidance interval"):
        Guidance(interval=interval)


def test_a_rescaling_out_of_range_is_refused():
    with pytest.raises(LuminaError, match="out of range"):
        Guidance(rescale=1.5)


def test_a_sample_whose_scale_is_below_one_follows_its_condition():
    steered = Guidance(scale=torch.tensor([0.5, 1.0, 4.0])).steer(CONDITIONAL, UNCONDITIONAL)
    torch.testing.assert_close(steered[:2], CONDITIONAL[:2])


def test_no_velocity_stays_none_however_it_is_rescaled():
    zero = torch.zeros(2, 4, 2, 2)
    assert torch.equal(Guidance(rescale=1.0, normalize=True).steer(zero, zero), zero)
