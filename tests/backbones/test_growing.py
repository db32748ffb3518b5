import pytest
import torch

from lumina import LuminaError
from lumina.backbones.flag_dit import FlagDiT
from lumina.backbones.growing import grow
from lumina.backbones.next_dit import NextDiT


def network(kind=NextDiT, **settings):
    torch.manual_seed(0)
    made = kind(
        **{
            "sample_size": 8,
            "in_channels": 4,
            "hidden_size": 32,
            "num_layers": 2,
            "num_attention_heads": 2,
            "multiple_of": 16,
            "cross_attention_dim": 8,
        }
        | settings
    ).eval()
    for weight in made.parameters():
        weight.data = torch.randn_like(weight) * 0.2
    return made


@torch.no_grad()
def ask(model, data):
    generator = torch.Generator().manual_seed(5)
    text = torch.randn(len(data), 3, 8, generator=generator)
    return model(data, torch.full((len(data),), 0.4), text, torch.ones(len(data), 3))[0]


def test_new_channels_change_nothing_at_first():
    small = network()
    grown = grow(small, {"in_channels": 9, "out_channels": 4})
    data = torch.randn(2, 9, 4, 6)
    assert torch.allclose(ask(grown, data), ask(small, data[:, :4])[:, :4], atol=1e-6)


def test_a_grown_network_sees_frames():
    grown = grow(network(), {"rope_lent": 8})
    clip, order = torch.randn(1, 4, 3, 4, 4), torch.tensor([1, 0, 2])
    assert not torch.allclose(ask(grown, clip[:, :, order]), ask(grown, clip)[:, :, order])


def test_one_position_of_one_frame_is_as_it_was():
    small = network()
    grown = grow(small, {"rope_lent": 8})
    data = torch.randn(2, 4, 2, 2)
    assert torch.allclose(ask(grown, data), ask(small, data), atol=1e-6)


def test_nothing_to_change_gives_the_network_itself():
    small = network()
    assert grow(small, {"in_channels": 4, "sample_size": 99}) is small


@pytest.mark.parametrize(
    ("settings", "reason"),
    [({"in_channels": 3}, "reads 16 values"), ({"out_channels": 9}, "gives 8 channels")],
)
def test_a_network_does_not_shrink_or_learn_outputs(settings, reason):
    with pytest.raises(LuminaError, match=reason):
        grow(network(), settings)


def test_a_sequence_does_not_grow():
    with pytest.raises(LuminaError, match="does not grow"):
        grow(network(FlagDiT), {"in_channels": 9})
