"""Laws of velocities of points: what the modality has a network read, and what comes out."""

from pathlib import Path

import pytest
import torch

from lumina.backbones.next_dit import NextDiT
from lumina.modalities.points import MODALITY, MOST_POINTS, TRAINED_POINTS, draw_noise


@pytest.fixture(scope="module")
def network() -> NextDiT:
    """A small network whose weights are all random: a new one begins as the identity."""
    torch.manual_seed(0)
    settings = MODALITY.network(Path(), (TRAINED_POINTS,))
    sizes = {"hidden_size": 32, "num_layers": 2, "num_attention_heads": 2, "multiple_of": 32}
    network = NextDiT(**settings, **sizes, cross_attention_dim=16)
    with torch.no_grad():
        for weight in network.parameters():
            weight.normal_(std=0.2)
    return network.eval().requires_grad_(False)


def velocity(network: NextDiT, x: torch.Tensor, time: float) -> torch.Tensor:
    text = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(1))[: len(x)]
    times = torch.full((len(x),), time)
    read = MODALITY.enter(x, times)
    return network(read, times, text, torch.ones(len(x), 5), return_dict=False)[0]


def noise(count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.stack([draw_noise(count, generator) for _ in range(2)])


@pytest.mark.parametrize("count", [TRAINED_POINTS, 400])
def test_the_velocity_of_points_in_another_order_is_the_same_in_that_order(network, count):
    x = noise(count)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(3))
    expected = velocity(network, x, 0.4)
    assert expected.shape == x.shape
    assert expected.std() > 0.1
    # Sums over tokens are taken in another order, in float32.
    found = velocity(network, x[..., order], 0.4)
    assert found == pytest.approx(expected[..., order], abs=1e-4)


def test_one_network_takes_the_most_points(network):
    out = velocity(network, noise(MOST_POINTS)[:1], 0.5)
    assert out.shape == (1, 3, MOST_POINTS)
    assert out.isfinite().all()
