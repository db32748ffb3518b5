"""Taking over a transformer that was loaded as diffusers' class."""

import torch
from diffusers import LuminaNextDiT2DModel
from torch import nn

from lumina.backbones.next_dit import NextDiT


def adopt(transformer: nn.Module | None) -> nn.Module | None:
    """Turn diffusers' transformer into ours, around the same weights.

    Layers move over whole where ours is a plain linear one too, so that quantized weights and
    the hooks on them keep working. Nothing is copied.

    Args:
        transformer: Any transformer. All but diffusers' own class come back as they are.
    """
    if type(transformer) is not LuminaNextDiT2DModel:
        return transformer
    with torch.device("meta"):
        ours = NextDiT.from_config(transformer.config)
    for name, theirs in transformer.named_modules():
        if isinstance(theirs, nn.Linear):
            ours.set_submodule(name, theirs)
            continue
        for key, parameter in theirs.named_parameters(recurse=False):
            setattr(ours.get_submodule(name), key, parameter)
    return ours.train(transformer.training)
