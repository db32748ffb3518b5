"""Networks of the original release: what a checkpoint holds, told by the shapes of its weights."""

from collections.abc import Mapping
from typing import Any

from lumina.checkpoints.keys import is_of_sound, table
from lumina.checkpoints.shapes import Shapes
from lumina.nn.layers import feed_forward_width

RELEASED_HEADS = 32
"""Heads of every released model; weights of models of classes do not tell them."""

RELEASED_SIZE_OF_CLASSES = 32
"""Latents on a side, for which every released model of classes was trained: 256 pixels."""

_PATCH = 2  # of every released model of pictures
_MULTIPLES = (256, 128, 64, 32, 16, 8, 4, 2, 1)


def infer_config(
    shapes: Shapes, *, heads: int | None = None, patch: int | None = None
) -> tuple[str, dict[str, Any]]:
    """Class and configuration of the network that weights of these shapes belong to.

    Args:
        shapes: Names and shapes of an original checkpoint.
        heads: Heads of the queries, for models of classes, whose weights do not tell them. None
            is what every released model has.
        patch: Height and width of a patch. None is what every released model has.

    Returns:
        "FlagDiT" or "NextDiT", and its arguments.

    Raises:
        KeyError: If a name belongs to no model of the family, or one that all have is missing.
    """
    ours = {ours: tuple(shapes[name]) for name, ours in table(shapes).items()}
    return infer_config_of_ours(ours, heads=heads, patch=patch)


def infer_config_of_ours(
    ours: Mapping[str, tuple[int, ...]], *, heads: int | None = None, patch: int | None = None
) -> tuple[str, dict[str, Any]]:
    """The same from names and shapes of a network of ours.

    Raises:
        KeyError: If a weight that all have is missing.
    """
    width, values = ours["patch_embedder.proj.weight"]
    patch = patch or (1 if is_of_sound(ours) else _PATCH)
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
        **_inner_width(width, inner),
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
        config["sample_size"] = RELEASED_SIZE_OF_CLASSES
    if routers:
        config |= _read_routers(ours, width)
    return kind, config


def open_settings(ours: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Arguments that change what a network computes, and that these shapes leave open.

    Args:
        ours: Names and shapes of a network of ours.
    """
    names = [] if "layers.0.gate" in ours else ["num_attention_heads"]
    width, _ = ours["patch_embedder.proj.weight"]
    _, embedded = ours["layers.0.norm1.linear.weight"]
    has_one_router = "layers.0.second_forward.gate.weight" not in ours
    if "layers.0.feed_forward.gate.weight" in ours and has_one_router and embedded == width:
        names.append("moe_routing")
    return names


def config_of_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What the arguments of a training run tell of a network and its weights do not.

    Args:
        arguments: What `model_args.pth` holds. The original code stores how it was started there,
            and `arguments_of` also how the network is built.
    """
    config = {ours: arguments[name] for name, ours in _ARGUMENTS.items() if name in arguments}
    if "image_size" in arguments:
        config["sample_size"] = int(arguments["image_size"]) // _PIXELS_PER_LATENT
    return config


def arguments_of(kind: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """What `model_args.pth` is to hold, for the original code and for `config_of_arguments`.

    Args:
        kind: "FlagDiT" or "NextDiT".
        config: All arguments of the network.
    """
    arguments = {name: config[ours] for name, ours in _ARGUMENTS.items() if ours in config}
    arguments["image_size"] = config["sample_size"] * _PIXELS_PER_LATENT
    arguments["qk_norm"] = config["qk_norm"]
    has_text = config["num_classes"] is None
    size = _SIZES.get((config["hidden_size"], config["num_layers"], has_text))
    if size is not None:
        family = "NextDiT" if kind == "NextDiT" and has_text else "DiT_Llama"
        heads, kv_heads = config["num_attention_heads"], config["num_kv_heads"]
        shared = "_GQA" if kv_heads not in (None, heads) else ""
        arguments["model"] = f"{family}_{size}{shared}_patch{config['patch_size']}"
    return arguments


_PIXELS_PER_LATENT = 8

_ARGUMENTS = {
    "patch_size": "patch_size",
    "n_heads": "num_attention_heads",
    "norm_eps": "norm_eps",
    "moe": "moe_routing",
    "num_experts_per_tok": "experts_per_token",
}
"""Arguments that the weights of some models do not tell, and what we call them."""

_SIZES = {
    (1536, 16, False): "600M",
    (2304, 24, False): "2B",
    (3072, 32, False): "3B",
    (4096, 32, False): "7B",
    (2304, 24, True): "2B",
    (3072, 32, True): "5B",
}
"""What the original code calls networks by width, blocks, and whether they read text."""


def _read_routers(ours: Mapping[str, tuple[int, ...]], width: int) -> dict[str, Any]:
    experts, reads = ours["layers.0.feed_forward.gate.weight"]
    if "layers.0.second_forward.gate.weight" in ours:
        routing = "both"
    else:
        # Where the embedding of the time is as wide as the tokens, the two look the same.
        routing = "space" if reads == width else "time"
    return {"moe_routing": routing, "num_experts": experts}


def _inner_width(width: int, inner: int) -> dict[str, Any]:
    """Settings that give feed-forward networks an inner width, the usual ones if any do."""
    for multiple in _MULTIPLES:
        if feed_forward_width(width, multiple_of=multiple, multiplier=None) == inner:
            return {"multiple_of": multiple}
    usual = feed_forward_width(width, multiple_of=1, multiplier=None)
    # Half a channel more, since the product is rounded down.
    return {"multiple_of": 1, "ffn_dim_multiplier": (inner + 0.5) / usual}
