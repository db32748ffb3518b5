import pytest
import torch

from lumina.backbones.next_dit import NextDiT
from lumina.modalities.points import (
    MOST_POINTS,
    TRAINED_POINTS,
    PointVelocity,
    draw_noise,
    network_settings,
)


@pytest.fixture(scope="module")
def network() -> NextDiT:
    """A small network whose weights are all random: a new one begins as the identity."""
    torch.manual_seed(0)
    network = NextDiT(**network_settings(width=32, depth=2, heads=2, text_width=16))
    with torch.no_grad():
        for weight in network.parameters():
            weight.normal_(std=0.2)
    return network.eval().requires_grad_(False)


def velocity(network: NextDiT, **settings) -> PointVelocity:
    text = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(1))
    return PointVelocity(network, text, **settings)


def noise(count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.stack([draw_noise(count, generator) for _ in range(2)])


@pytest.mark.parametrize("count", [TRAINED_POINTS, 400])
def test_the_velocity_of_points_in_another_order_is_the_same_in_that_order(network, count):
    x = noise(count)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(3))
    follow = velocity(network)
    expected = follow(x, torch.tensor(0.4))
    assert expected.shape == x.shape
    assert expected.std() > 0.1
    # Sums over tokens are taken in another order, in float32.
    assert follow(x[..., order], torch.tensor(0.4)) == pytest.approx(expected[..., order], abs=1e-4)


def test_density_and_proportional_attention_change_nothing_at_the_trained_number_of_points(network):
    x, t = noise(TRAINED_POINTS), torch.tensor(0.8)
    plain = velocity(network, scaled=False)(x, t)
    for settings in [{"scaled": True}, {"proportional": True}]:
        assert velocity(network, **settings)(x, t) == pytest.approx(plain, abs=1e-5)


def test_density_and_proportional_attention_change_what_is_seen_of_more_points(network):
    x, t = noise(1024), torch.tensor(0.8)
    plain = velocity(network, scaled=False)(x, t)
    for settings in [{"scaled": True}, {"scaled": False, "proportional": True}]:
        assert (velocity(network, **settings)(x, t) - plain).abs().max() > 1e-3


def test_a_time_for_each_cloud_gives_what_each_has_alone(network):
    x, times = noise(TRAINED_POINTS), torch.tensor([0.2, 0.9])
    follow = velocity(network)
    both = follow(x, times)
    for index, time in enumerate(times):
        assert follow(x, time)[index] == pytest.approx(both[index], abs=1e-5)


def test_one_network_takes_the_most_points(network):
    out = velocity(network)(noise(MOST_POINTS), torch.tensor(0.5))
    assert out.shape == (2, 3, MOST_POINTS)
    assert out.isfinite().all()
