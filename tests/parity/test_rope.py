"""Every rotary table is that of the original code, in all its modes."""

import json

import torch
from safetensors import safe_open

from lumina.nn.extrapolation import RopeScaling, frequency_aware_ntk, time_aware_ntk
from lumina.nn.rope import grid_positions, rope_table

TRAINED_LENGTH = 128  # fixed in the original code's frequency-aware mode


def read_scaling(run):
    """The fields of `RopeScaling` for a recorded run."""
    mode = run["kind"].rpartition(" ")[2]
    scale, width, time = run.get("scale_factor"), run["head_dim"], run.get("timestep")
    if "watershed" in mode:
        return {"linear" if time < run["scale_watershed"] else "ntk": scale}
    if mode in ("1d", "ImageNet"):
        return {"linear": run["rope_scaling_factor"], "ntk": run["ntk_factor"]}
    return {
        "none": {},
        "interpolation": {"linear": scale},
        "ntk_v1": {"ntk": scale},
        "ntk_v2": {"ntk": frequency_aware_ntk(scale, length=TRAINED_LENGTH)},
        "ntk_v3": {"ntk": time_aware_ntk(scale, time or 0, head_width=width), "floor": scale},
    }[mode]


def test_tables_are_those_that_were_recorded(golden, assert_recorded):
    with safe_open(golden / "rope_tables.safetensors", "pt") as file:
        runs = json.loads(file.metadata()["config"])["runs"]
        assert runs
        for run in runs:
            count, width = run["end"], run["head_dim"]
            if run["kind"] == "1d":
                positions, channels = torch.arange(count).float()[:, None], (width,)
            else:
                positions = grid_positions(rows=count, cols=count)
                channels = (0, width // 2, width // 2)
            table = rope_table(
                positions, channels=channels, scaling=RopeScaling(**read_scaling(run))
            )
            for part, name in zip(table.unbind(-1), ("cos", "sin"), strict=True):
                recorded = file.get_tensor(f"outputs.{run['name']}.{name}")
                assert_recorded(part.view_as(recorded), recorded)
