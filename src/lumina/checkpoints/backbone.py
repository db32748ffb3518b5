"""A network alone, out of whatever file or folder holds its weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lumina.backbones.sharing import are_equal
from lumina.backbones.transformer import FlowTransformer
from lumina.checkpoints.difference import load_difference
from lumina.checkpoints.folder import DIFFERENCE, read_config
from lumina.checkpoints.headers import AGAIN
from lumina.checkpoints.keys import is_copy
from lumina.checkpoints.kinds import KINDS
from lumina.checkpoints.network import class_of, find_network, network_folder
from lumina.checkpoints.quantized import fill_quantized
from lumina.checkpoints.weights import Weights
from lumina.errors import LuminaError


def load_backbone(
    source: str | Path | Mapping[str, Tensor],
    config: Mapping[str, Any] | None = None,
    *,
    dtype: torch.dtype | None = None,
) -> FlowTransformer:
    """Load a network of the family, whatever format its weights are in.

    Args:
        source: Weights by name; or a file: safetensors, GGUF, or a `.pth` or `.ckpt` that holds
            nothing but tensors; or a folder: of diffusers, or of the original release with
            `consolidated*` files, in one part or several.
        config: Arguments of the network that its weights do not tell, such as
            `num_attention_heads` of a model of classes. What is given here is used.
        dtype: Of the weights, and of what quantized ones are computed with. None keeps that of the
            file, and is float32 for one that is told by a difference.

    Returns:
        A `FlagDiT` or `NextDiT`, in evaluation mode.

    Raises:
        LuminaError: If there is no such file, it is damaged, holds anything but tensors, or its
            weights are not those of a network of the family.
    """
    if not isinstance(source, Mapping):
        folder = network_folder(Path(source))
        if folder is not None and (folder / DIFFERENCE).is_file():
            if config:
                raise LuminaError(
                    f"{folder} tells what it differs in from another model, which has its settings",
                    hint="leave config out",
                )
            return load_difference(folder, dtype=dtype or torch.float32).eval()
        if folder is not None and "quantization_config" in read_config(folder):
            return KINDS[class_of(folder)].from_pretrained(folder, torch_dtype=dtype)
    network = find_network(source, config or {})
    model = network.build()
    network.differences(model).refuse(network.where, hint=AGAIN)
    if network.format == "gguf":
        fill_quantized(model, _read(network.weights, None), dtype)
    else:
        model.load_state_dict(_read(network.weights, dtype), assign=True)
    model.share_queries()
    return model.eval()


def _read(weights: Weights, dtype: torch.dtype | None) -> dict[str, Tensor]:
    """Read all weights, of equal queries one."""
    tensors: dict[str, Tensor] = {}
    for name in sorted(weights):
        tensor = weights[name].to(dtype).read()
        first = name.replace(".attn2.", ".attn1.")
        is_same = is_copy(name) and are_equal(tensor, tensors[first])
        tensors[name] = tensors[first] if is_same else tensor
    return tensors
