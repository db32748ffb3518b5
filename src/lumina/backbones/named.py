"""Networks of the family by name: their class, configuration and true size.

Nothing heavy is imported before one is built.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lumina.errors import UnknownNameError

if TYPE_CHECKING:
    from lumina.backbones.transformer import FlowTransformer


@dataclass(frozen=True, kw_only=True)
class Network:
    """A network that can be asked for by name.

    Args:
        kind: "NextDiT" or "FlagDiT".
        parameters: How many numbers its weights are.
        original: What the original release calls it, and in which of its folders.
        config: What differs from the defaults of the class.
    """

    kind: str
    parameters: int
    original: str
    config: Mapping[str, Any] = field(default_factory=dict)


_600M: dict[str, Any] = {"hidden_size": 1536, "num_layers": 16}
_2B: dict[str, Any] = {"hidden_size": 2304, "num_layers": 24}
_3B: dict[str, Any] = {"hidden_size": 3072, "num_layers": 32}
_7B: dict[str, Any] = {"hidden_size": 4096, "num_layers": 32}
_CLASSES: dict[str, Any] = {"num_classes": 1000, "sample_size": 32}
_NO_LINES: dict[str, Any] = {"has_line_token": False}
_SOUND: dict[str, Any] = {
    "patch_size": 1,
    "in_channels": 20,
    "hidden_size": 768,
    "num_layers": 16,
    "cross_attention_dim": 1024,
    "learn_sigma": False,
    "qk_norm": False,
}


def _next(parameters: int, original: str, **config: Any) -> Network:
    return Network(kind="NextDiT", parameters=parameters, original=original, config=config)


def _flag(parameters: int, original: str, **config: Any) -> Network:
    return Network(kind="FlagDiT", parameters=parameters, original=original, config=config)


_IMAGENET, _OLD_IMAGENET, _MOE = "Next-DiT-ImageNet", "Flag-DiT-ImageNet", "Next-DiT-MoE"

NETWORKS = {
    "next-dit-2b": _next(1_988_524_576, "lumina_next_t2i: NextDiT_2B_patch2", **_2B),
    "next-dit-2b-gqa": _next(
        1_627_386_400, "lumina_next_t2i: NextDiT_2B_GQA_patch2", **_2B, num_kv_heads=8
    ),
    "next-dit-imagenet-600m": _next(
        559_455_776, f"{_IMAGENET}: DiT_Llama_600M_patch2", **_600M, **_CLASSES
    ),
    "next-dit-imagenet-2b": _next(
        1_763_043_104, f"{_IMAGENET}: DiT_Llama_2B_patch2", **_2B, **_CLASSES
    ),
    "next-dit-imagenet-3b": _next(
        4_036_300_832, f"{_IMAGENET}: DiT_Llama_3B_patch2", **_3B, **_CLASSES
    ),
    "next-dit-imagenet-7b": _next(
        7_025_122_336, f"{_IMAGENET}: DiT_Llama_7B_patch2", **_7B, **_CLASSES
    ),
    "next-dit-moe-time": _next(
        2_673_516_064, f"{_MOE}: DiT_Llama_600M_patch2", **_600M, **_CLASSES, moe_routing="time"
    ),
    "next-dit-moe-time-gqa": _next(
        2_616_856_096,
        f"{_MOE}: DiT_Llama_600M_GQA_patch2",
        **_600M,
        **_CLASSES,
        moe_routing="time",
        num_kv_heads=8,
    ),
    "next-dit-moe-space": _next(
        2_673_581_600,
        f"{_MOE}: DiT_Llama_600M_patch2_Spatial",
        **_600M,
        **_CLASSES,
        moe_routing="space",
    ),
    "next-dit-moe-both": _next(
        2_723_954_208,
        f"{_MOE}: DiT_Llama_600M_patch2_Both",
        **_600M,
        **_CLASSES,
        moe_routing="both",
        num_experts=4,
    ),
    "flag-dit-5b": _flag(5_046_643_744, "lumina_t2i: DiT_Llama_5B_patch2", **_3B),
    "flag-dit-imagenet-600m": _flag(
        609_836_576, f"{_OLD_IMAGENET}: DiT_Llama_600M_patch2", **_600M, **_CLASSES, **_NO_LINES
    ),
    "flag-dit-imagenet-3b": _flag(
        4_237_824_032, f"{_OLD_IMAGENET}: DiT_Llama_3B_patch2", **_3B, **_CLASSES, **_NO_LINES
    ),
    "flag-dit-imagenet-7b": _flag(
        7_293_819_936, f"{_OLD_IMAGENET}: DiT_Llama_7B_patch2", **_7B, **_CLASSES, **_NO_LINES
    ),
    "flag-dit-sound": _flag(
        197_940_244, "lumina_audio, lumina_music: FlagDiTv2", **_SOUND, **_NO_LINES
    ),
}
"""Every named size of the original release. "3b" has 4 billion weights, as "2b" has 1.6 to 2."""


def build_backbone(name: str, **config: Any) -> "FlowTransformer":
    """Make a network of the family with new weights.

    Args:
        name: A name in `NETWORKS`.
        config: Arguments of its class that shall differ.

    Raises:
        UnknownNameError: If there is no such name.
    """
    from lumina.backbones.flag_dit import FlagDiT
    from lumina.backbones.next_dit import NextDiT

    if name not in NETWORKS:
        raise UnknownNameError.among(NETWORKS, name, kind="network")
    network = NETWORKS[name]
    kind = {"FlagDiT": FlagDiT, "NextDiT": NextDiT}[network.kind]
    return kind(**{**network.config, **config})
