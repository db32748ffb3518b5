"""Every backbone computes what the original code computed with the same weights."""

import pytest
import torch

from lumina.backbones.flag_dit import FlagDiT
from lumina.backbones.next_dit import NextDiT
from lumina.checkpoints.keys import from_original
from lumina.flow.guidance import Guidance, guide
from lumina.flow.path import flow_loss
from lumina.flow.solvers import SOLVERS, integrate
from lumina.flow.times import shift_times, uniform_times
from lumina.nn.extrapolation import RopeScaling

CLASSES = {
    "next_t2i": NextDiT,
    "next_t2i_noqknorm": NextDiT,
    "next_imagenet": NextDiT,
    "moe_time": NextDiT,
    "moe_space": NextDiT,
    "moe_both": NextDiT,
    "flag_t2i": FlagDiT,
    "flag_imagenet": FlagDiT,
    "audio_flagdit": FlagDiT,
}
NAMES = {
    "dim": "hidden_size",
    "n_layers": "num_layers",
    "n_heads": "num_attention_heads",
    "n_kv_heads": "num_kv_heads",
    "cap_feat_dim": "cross_attention_dim",
    "context_dim": "cross_attention_dim",
    "depth": "num_layers",
    "num_heads": "num_attention_heads",
    "input_size": "sample_size",
}
SAME = (
    "patch_size",
    "in_channels",
    "multiple_of",
    "ffn_dim_multiplier",
    "norm_eps",
    "learn_sigma",
    "qk_norm",
    "num_classes",
    "hidden_size",
)


def make_model(case, overrides):
    """The model of a case, with constructor arguments changed that concern the model."""
    given = case.config | overrides
    config = {NAMES.get(name, name): value for name, value in given.items()}
    kind = CLASSES[case.name]
    config = {name: value for name, value in config.items() if name in (*SAME, *NAMES.values())}
    if "max_len" in case.config:
        config |= {"patch_size": 1, "learn_sigma": False, "qk_norm": False}
    if kind is FlagDiT:
        config["has_line_token"] = "eol_token" in case.weights
    if case.fixed:
        config |= {
            "moe_routing": case.fixed["moe"],
            "num_experts": case.fixed["num_experts"],
            "experts_per_token": case.fixed["num_experts_per_tok"],
        }
    with torch.no_grad():
        model = kind(**config).eval()
        model.load_state_dict(from_original(case.weights))
    return model


def read_scaling(case, call, time):
    """How the call scales positions and attention at a time, as arguments of `forward`."""
    args, given = call["args"], case.config | call.get("ctor", {})
    factor = args.get("scale_factor", 1.0)
    linear = time.item() < args.get("scale_watershed", 1.0)
    rope = RopeScaling(linear=factor) if linear else RopeScaling(ntk=factor)
    if call["method"] == "forward":
        rope = RopeScaling(ntk=given.get("scale_factor", 1.0))
    for ours, theirs in (("linear", "rope_scaling_factor"), ("ntk", "ntk_factor")):
        value = args.get(theirs, given.get(theirs))
        if value is not None:
            rope = rope._replace(**{ours: value})
    scaling = {"rope": rope}
    if args.get("proportional_attn"):
        scaling["cross_attention_kwargs"] = {"base_sequence_length": args["base_seqlen"]}
    return scaling


def read_condition(case, args):
    return {
        ours: case.value(args[theirs])
        for ours, theirs in (
            ("encoder_hidden_states", "cap_feats"),
            ("encoder_mask", "cap_mask"),
            ("encoder_hidden_states", "context"),
            ("class_labels", "y"),
        )
        if theirs in args
    }


def compute(model, case, call):
    args = call["args"]
    x, times = case.value(args["x"]), case.value(args["t"])
    if call["method"] == "forward":
        return velocity_of(model, case, call, times[0])(x, times)
    return both_halves(model, case, call)(x, times[0])


def velocity_of(model, case, call, time):
    """The model with the condition and the scaling of a call, at a time."""
    settings = read_condition(case, call["args"]) | read_scaling(case, call, time)

    def velocity(x, t):
        t = t if t.ndim else t.expand(len(x))
        sample = model(x, t, **settings, return_dict=False)[0]
        if isinstance(sample, list):
            return [part[: len(one)] for part, one in zip(sample, x, strict=True)]
        return sample[:, : x.shape[1]]

    return velocity


def both_halves(model, case, call):
    """Guidance as in the original code: of three channels, and both halves are returned."""

    def velocity(x, t):
        plain = velocity_of(model, case, call, t)
        half = x[: len(x) // 2]
        guided = guide(plain, Guidance(scale=call["args"]["cfg_scale"], channels=3))(half, t)
        away = plain(torch.cat([half, half]), t).chunk(2)[1]
        return torch.cat([guided, torch.cat([guided[:, :3], away[:, 3:]], dim=1)])

    return velocity


@pytest.mark.parametrize("name", CLASSES)
@torch.no_grad()
def test_a_backbone_computes_what_the_original_did(name, read_case, assert_recorded):
    case = read_case(name)
    calls = [call for call in case.calls if "kind" not in call]
    assert calls
    for call in calls:
        model = make_model(case, call.get("ctor", {}))
        assert_recorded(compute(model, case, call), case.output(call))


@torch.no_grad()
def test_a_guided_flow_goes_the_way_that_was_recorded(read_case, assert_recorded):
    case = read_case("next_t2i")
    calls = [call for call in case.calls if call.get("kind") == "ode"]
    assert {call["sampling_method"] for call in calls} == {"euler", "midpoint", "rk4"}
    model = make_model(case, {})
    for call in calls:
        velocity = both_halves(model, case, call)
        times = shift_times(uniform_times(call["num_steps"] - 1), call["time_shifting_factor"])
        points = integrate(
            velocity, case.value(call["init"]), times, solver=SOLVERS[call["sampling_method"]]
        )
        assert_recorded(points, case.output(call))


@torch.no_grad()
def test_losses_are_those_that_were_recorded(read_case, assert_recorded):
    case = read_case("next_t2i")
    calls = [call for call in case.calls if call.get("kind") == "loss"]
    assert any(isinstance(call["x1"], list) for call in calls)
    model = make_model(case, {})
    for call in calls:
        noise, data, times = (case.value(call[name]) for name in ("x0", "x1", "t"))
        losses = flow_loss(velocity_of(model, case, call, times[0]), noise, data, times)
        assert_recorded(losses, case.output(call))
