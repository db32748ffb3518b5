"""Taking over a transformer that was loaded as diffusers' class."""

from typing import cast

import torch
from diffusers import LuminaNextDiT2DModel
from torch import nn

from lumina.backbones.next_dit import NextDiT

_QUANTIZER_MARKS = (
    "hf_quantizer",
    "is_quantized",
    "quantization_method",
    "is_loaded_in_4bit",
    "is_loaded_in_8bit",
)
"""What diffusers sets on a model it quantizes, and asks for before it moves or saves one."""


def adopt(transformer: nn.Module | None) -> nn.Module | None:
    """Turn diffusers' transformer into ours, around the same weights.

    Its linear layers move over whole, so that quantized weights and the hooks on them keep
    working. Nothing is copied.

    Args:
        transformer: Any transformer. All but diffusers' own class come back as they are.

    Raises:
        ValueError: If the transformer is spread over several devices.
    """
    if type(transformer) is not LuminaNextDiT2DModel:
        return transformer
    if len(set(getattr(transformer, "hf_device_map", {}).values())) > 1:
        raise ValueError(
            "The transformer is spread over several devices by hooks that hold on to diffusers'"
            " class. Please load it with `lumina.NextDiT.from_pretrained` and the same"
            " `device_map`."
        )
    with torch.device("meta"):
        ours = cast(NextDiT, NextDiT.from_config(transformer.config))
    for name, theirs in transformer.named_modules():
        if isinstance(theirs, nn.Linear):
            ours.set_submodule(name, theirs)
            continue
        for key, parameter in theirs.named_parameters(recurse=False):
            setattr(ours.get_submodule(name), key, parameter)
    ours.share_queries()
    for mark in _QUANTIZER_MARKS:
        if hasattr(transformer, mark):
            setattr(ours, mark, getattr(transformer, mark))
    return ours.train(transformer.training)
