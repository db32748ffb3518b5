"""Networks of the original release: what a checkpoint holds, told by the shapes of its weights."""

from collections.abc import Mapping
from typing import Any

from lumina.checkpoints.keys import Shapes, table
from lumina.nn.layers import feed_forward_width

RELEASED_HEADS = 32
"""Heads of every released model; weights of models of classes do not tell them."""

_PATCH = 2  # of every released model of pictures
_MULTIPLES = (256, 128, 64, 32, 16, 8, 4, 2, 1)


def infer_config(shapes: Shapes, *, heads: int | None = None) -> tuple[str, dict[str, Any]]:
    """Class and configuration of the network that weights of these shapes belong to.

    Args:
        shapes: Names and shapes of an original checkpoint.
        heads: Heads of the queries, for models of classes, whose weights do not tell them. None
            is what every released model has.

    Returns:
        "FlagDiT" or "NextDiT", and its arguments.

    Raises:
        KeyError: If a name belongs to no model of the family, or one that all have is missing.
    """
    ours = {ours: tuple(shapes[name]) for name, ours in table(shapes).items()}
    return infer_config_of_ours(ours, heads=heads)


def infer_config_of_ours(
    ours: Mapping[str, tuple[int, ...]], *, heads: int | None = None
) -> tuple[str, dict[str, Any]]:
    """The same from names and shapes of a network of ours.

    Raises:
        KeyError: If a weight that all have is missing.
    """
    width, values = ours["patch_embedder.proj.weight"]
    # Of the models of text, only those of sound never pad.
    is_sound = "pad_token" not in ours and "time_caption_embed.caption_embedder.0.weight" in ours
    patch = 1 if is_sound else _PATCH
    channels = values // patch**2
    parts = ours["layers.0.norm1.linear.bias"][0] // width
    has_second = "layers.0.second_norm2.weight" in ours
    routers = [
        name for name in ours if name.startswith("layers.0.") and name.endswith("d.gate.weight")
    ]
    kind = "FlagDiT" if parts == 6 and not has_second else "NextDiT"
    heads = ours["layers.0.gate"][0] if "layers.0.gate" in ours else heads or RELEASED_HEADS
    expert = "experts.0." if routers else ""
    inner = ours[f"layers.0.feed_forward.{expert}linear_1.weight"][0]
    config: dict[str, Any] = {
        "patch_size": patch,
        "in_channels": channels,
        "hidden_size": width,
        "num_layers": 1 + max(int(name.split(".")[1]) for name in ours if "layers." in name),
        "num_attention_heads": heads,
        "num_kv_heads": ours["layers.0.attn1.to_k.weight"][0] * heads // width,
        "multiple_of": _multiple_of(width, inner),
        "learn_sigma": ours["norm_out.linear_2.bias"][0] != values,
        "qk_norm": "layers.0.attn1.norm_q.weight" in ours,
    }
    if kind == "FlagDiT":
        config["has_line_token"] = "line_token" in ours
        config["has_frame_token"] = "frame_token" in ours
    if "layers.0.norm1_context.weight" in ours:
        config["cross_attention_dim"] = ours["layers.0.norm1_context.weight"][0]
    else:
        config["num_classes"] = ours["time_class_embed.label_embedder.weight"][0] - 1
    if routers:
        config |= _read_routers(ours, width)
    return kind, config


def _read_routers(ours: Mapping[str, tuple[int, ...]], width: int) -> dict[str, Any]:
    experts, reads = ours["layers.0.feed_forward.gate.weight"]
    if "layers.0.second_forward.gate.weight" in ours:
        routing = "both"
    else:
        # Where the embedding of the time is as wide as the tokens, the two look the same.
        routing = "space" if reads == width else "time"
    return {"moe_routing": routing, "num_experts": experts}


def _multiple_of(width: int, inner: int) -> int:
    """What the inner width of feed-forward networks was rounded up to a multiple of."""
    for multiple in _MULTIPLES:
        if feed_forward_width(width, multiple_of=multiple, multiplier=None) == inner:
            return multiple
    raise KeyError(f"feed-forward width {inner} at width {width}")
