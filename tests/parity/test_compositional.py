"""Attention of regions to their own texts is what the original code computed."""

import pytest
import torch

from lumina.backbones.next_dit import NextDiT
from lumina.checkpoints.keys import from_original
from lumina.flow.guidance import Guidance
from lumina.nn.extrapolation import RopeScaling
from lumina.nn.regional import attend_regions
from lumina.pipelines.compose import join_texts

NAMES = {
    "dim": "hidden_size",
    "n_layers": "num_layers",
    "n_heads": "num_attention_heads",
    "n_kv_heads": "num_kv_heads",
    "cap_feat_dim": "cross_attention_dim",
}


def make_model(case):
    config = {NAMES.get(name, name): value for name, value in case.config.items()}
    with torch.no_grad():
        model = NextDiT(**config).eval()
        model.load_state_dict(from_original(case.weights))
    return model


def cells(call, rows, cols):
    """Which tokens belong to each cell of a grid; what is left over belongs to none."""
    down, across = call["args"]["h_split_num"], call["args"]["w_split_num"]
    height, width = rows // down, cols // across
    weights = torch.zeros(down, across, rows, cols)
    for row in range(down):
        for col in range(across):
            area = slice(row * height, (row + 1) * height), slice(col * width, (col + 1) * width)
            weights[row, col, *area] = 1
    return weights.flatten(0, 1).flatten(1)


def read_scaling(call, time):
    """How the call scales positions and attention at a time, as arguments of `forward`."""
    args = call["args"]
    factor = args.get("scale_factor", 1.0)
    is_linear = time.item() < args.get("scale_watershed", 1.0)
    scaling = {"rope": RopeScaling(linear=factor) if is_linear else RopeScaling(ntk=factor)}
    if args.get("proportional_attn"):
        scaling["cross_attention_kwargs"] = {"base_sequence_length": args["base_seqlen"]}
    return scaling


def compute(model, case, call):
    """What both rows of the batch come out as: that of the regions, and the negative one."""
    args = call["args"]
    x, times = case.value(args["x"]), case.value(args["t"])
    features, masks = case.value(args["cap_feats"]), case.value(args["cap_mask"])
    whole = case.value(args["global_cap_feats"]), case.value(args["global_cap_mask"])
    of_cells = cells(call, *(side // case.config["patch_size"] for side in x.shape[-2:]))
    is_guided = call["method"] == "forward_with_cfg"
    # The texts of the grid's cells, and the negative one. All are pooled alike.
    rows = [
        (x[:1], features[:-1], masks[:-1], of_cells),
        (x[:1] if is_guided else x[1:], features[-1:], masks[-1:], torch.ones_like(of_cells[:1])),
    ]
    found = []
    for state, texts, seen, weights in rows:
        joined = join_texts(torch.cat([whole[0], texts]), torch.cat([whole[1], seen]))
        weights = torch.cat([torch.zeros_like(weights[:1]), weights])
        output = model(
            state,
            times[:1],
            *joined,
            attend_text=attend_regions(weights),
            **read_scaling(call, times[0]),
            return_dict=False,
        )[0]
        found.append(output[:, : x.shape[1]])
    if not is_guided:
        return torch.cat(found)
    guided = Guidance(scale=args["cfg_scale"], channels=3).steer(*found)
    return torch.cat([guided, torch.cat([guided[:, :3], found[1][:, 3:]], dim=1)])


@pytest.mark.parametrize("name", ["compositional", "compositional_gqa"])
@torch.no_grad()
def test_regions_read_their_texts_as_in_the_original(name, read_case, assert_recorded):
    case = read_case(name)
    assert case.calls
    model = make_model(case)
    for call in case.calls:
        assert_recorded(compute(model, case, call), case.output(call))
