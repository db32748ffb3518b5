"""Random networks of every kind, and those that the original code recorded."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from lumina import FlagDiT, NextDiT
from lumina.checkpoints.keys import original_names, to_original

TINY = {
    "sample_size": 8,
    "hidden_size": 48,
    "num_layers": 2,
    "num_attention_heads": 6,
    "num_kv_heads": 2,
    "multiple_of": 16,
    "cross_attention_dim": 32,
}
SETTINGS = {
    "Next-DiT": (NextDiT, {}),
    "without norms of queries": (NextDiT, {"qk_norm": False}),
    "without a second half": (NextDiT, {"learn_sigma": False}),
    "narrow networks": (NextDiT, {"multiple_of": 8, "ffn_dim_multiplier": 0.4}),
    "of classes": (NextDiT, {"num_classes": 5}),
    "experts by time": (NextDiT, {"num_classes": 5, "moe_routing": "time", "num_experts": 3}),
    "experts by space": (NextDiT, {"num_classes": 5, "moe_routing": "space", "num_experts": 3}),
    "experts by both": (NextDiT, {"num_classes": 5, "moe_routing": "both", "num_experts": 3}),
    "Flag-DiT": (FlagDiT, {}),
    "Flag-DiT of sound": (FlagDiT, {"patch_size": 1, "has_line_token": False}),
    "Flag-DiT of classes": (FlagDiT, {"num_classes": 5, "has_line_token": False}),
}
RECORDED = [
    "next_t2i",
    "next_t2i_noqknorm",
    "flag_t2i",
    "flag_imagenet",
    "next_imagenet",
    "moe_time",
    "moe_space",
    "moe_both",
    "audio_flagdit",
    "compositional",
    "compositional_gqa",
]


def _make_model(kind=NextDiT, **settings):
    torch.manual_seed(0)
    model = kind(**TINY | settings)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_()
    return model.eval()


def _plain(model):
    """Weights, none of which share memory."""
    return {name: weight.clone() for name, weight in model.state_dict().items()}


def _as_original(model):
    """Weights as the original code calls them."""
    weights = _plain(model)
    return to_original(weights, original_names({name: w.shape for name, w in weights.items()}))


@pytest.fixture
def make_model():
    """Build a small network, all of whose weights are random, norms and gates included."""
    return _make_model


@pytest.fixture(params=SETTINGS)
def every_model(request):
    """A network of each kind, one test after another."""
    kind, settings = SETTINGS[request.param]
    return _make_model(kind, **settings)


@pytest.fixture
def plain():
    return _plain


@pytest.fixture
def as_original():
    return _as_original


@pytest.fixture
def assert_equal():
    """Compare weights by name, bit by bit."""

    def assert_equal(found, expected):
        assert found.keys() == expected.keys()
        for name, weight in expected.items():
            assert found[name].dtype == weight.dtype, name
            assert torch.equal(found[name], weight), name

    return assert_equal


@pytest.fixture
def read_recorded():
    """Configuration and weights that the original code recorded."""
    folder = os.environ.get("LUMINA_GOLDEN")
    if not folder:
        pytest.skip("LUMINA_GOLDEN names no folder of recorded outputs")

    def read(name):
        with safe_open(Path(folder) / f"{name}.safetensors", "pt") as file:
            weights = {
                name.removeprefix("weights."): file.get_tensor(name)
                for name in file.keys()  # noqa: SIM118  (it is no dict)
                if name.startswith("weights.")
            }
            metadata = file.metadata()
        return json.loads(metadata["config"]), weights, metadata

    return read


@pytest.fixture(params=RECORDED)
def recorded(request, read_recorded):
    """Arguments and weights of each recorded network."""
    config, weights, metadata = read_recorded(request.param)
    fixed = json.loads(metadata.get("fixed_in_source", "{}"))
    return config | fixed, weights
