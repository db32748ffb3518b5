import pytest
import torch

from lumina.backbones.named import NETWORKS, build_backbone
from lumina.errors import UnknownNameError


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_has_as_many_parameters_as_its_entry_says(name):
    with torch.device("meta"):
        network = build_backbone(name)
    assert type(network).__name__ == NETWORKS[name].kind
    assert sum(weight.numel() for weight in network.parameters()) == NETWORKS[name].parameters


def test_settings_can_be_changed():
    network = build_backbone("next-dit-2b-gqa", num_layers=1, hidden_size=64, num_attention_heads=8)
    assert len(network.layers) == 1
    assert network.config["num_kv_heads"] == 8


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(UnknownNameError, match="did you mean 'flag-dit-5b'"):
        build_backbone("flag-dit-5")
