import pytest
import torch

from lumina.backbones.next_dit import NextDiT
from lumina.evaluation.claims.gates import at_random, closed, gates_of, smallest


@pytest.fixture
def network():
    network = NextDiT(hidden_size=24, num_layers=2, num_attention_heads=3, cross_attention_dim=8)
    for number, block in enumerate(network.layers):
        torch.nn.init.constant_(block.gate, number + 1.0)
    return network


def test_the_smallest_gates_are_chosen_by_absolute_value():
    gates = torch.tensor([[-0.9, 0.1], [0.2, -0.05]])
    assert smallest(gates, 0.5).tolist() == [[False, True], [False, True]]
    assert smallest(gates, 0.0).sum() == 0
    assert smallest(gates, 1.0).all()


def test_as_many_are_chosen_at_random():
    gates = torch.randn(4, 5)
    assert at_random(gates, 0.8).sum() == smallest(gates, 0.8).sum() == 16


def test_gates_are_closed_only_within(network):
    before = gates_of(network)
    with closed(network, smallest(before, 0.5)):
        assert gates_of(network)[0].tolist() == [0, 0, 0]
        assert torch.equal(gates_of(network)[1], before[1])
    assert torch.equal(gates_of(network), before)
