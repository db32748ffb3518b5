"""Every named model of the original release has the weights it had there."""

import json

import pytest
import torch

from lumina.backbones.flag_dit import FlagDiT
from lumina.backbones.named import NETWORKS
from lumina.backbones.next_dit import NextDiT
from lumina.checkpoints.keys import COPIES, table
from lumina.checkpoints.original import infer_config

KINDS = {"FlagDiT": FlagDiT, "NextDiT": NextDiT}


def expand(keys, config):
    """Names with a number for each layer."""
    layers = config.get("n_layers") or config["depth"]
    return {
        name.replace("{i}", str(layer)): shape
        for name, shape in keys.items()
        for layer in (range(layers) if "{i}" in name else [0])
    }


def test_every_named_network_is_known_by_its_shapes_and_built_with_them(golden):
    recorded = json.loads((golden / "state_dict_shapes.json").read_text())["models"]
    networks = [entry for entry in recorded if entry["name"] != "AutoencoderKL"]
    assert networks
    for entry in networks:
        shapes = expand(entry["keys"], entry["config"])
        kind, config = infer_config(shapes)
        with torch.device("meta"):
            model = KINDS[kind](**config)
        built = {name: list(weight.shape) for name, weight in model.state_dict().items()}
        names = table(shapes)
        assert {names[name]: list(shape) for name, shape in shapes.items()} == {
            name: shape
            for name, shape in built.items()
            if not ("attn2" in name and any(part in name for part in COPIES))
        }, entry["name"]
        count = sum(weight.numel() for weight in model.parameters())
        assert count == entry["parameters"], entry["name"]


@pytest.mark.parametrize("name", ["next_t2i", "flag_t2i", "flag_imagenet", "moe_both", "moe_time"])
def test_weights_go_to_ours_and_back_unchanged(name, read_case):
    from lumina.checkpoints.keys import from_original, to_original

    weights = read_case(name).weights
    names = table({key: weight.shape for key, weight in weights.items()})
    assert len(set(names.values())) == len(names)
    back = to_original(from_original(weights), names)
    assert back.keys() == weights.keys()
    assert all(torch.equal(back[key], weight) for key, weight in weights.items())


def test_every_named_network_has_an_entry_with_its_size(golden):
    recorded = json.loads((golden / "state_dict_shapes.json").read_text())["models"]
    networks = [entry for entry in recorded if entry["name"] != "AutoencoderKL"]
    sizes = {network.original: network.parameters for network in NETWORKS.values()}
    for entry in networks:
        names = [name for name in sizes if name.endswith(f": {entry['name']}")]
        assert entry["parameters"] in [sizes[name] for name in names], entry["name"]
