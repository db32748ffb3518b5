"""Weights of GGUF files, which diffusers keeps quantized and reads layer by layer."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lumina.backbones.transformer import FlowTransformer
from lumina.checkpoints.headers import AGAIN
from lumina.checkpoints.weights import Weight
from lumina.errors import LuminaError, refuse_missing_library


def open_gguf(file: Path) -> dict[str, Weight]:
    """All weights of a file; those that are quantized have the shape that they stand for.

    Raises:
        LuminaError: If the package `gguf` is not installed, the file is damaged, or diffusers does
            not know a way in which it is quantized.
    """
    refuse_missing_library("gguf", extra="gguf")
    import gguf
    from diffusers.quantizers.gguf.utils import SUPPORTED_GGUF_QUANT_TYPES

    try:
        tensors = gguf.GGUFReader(file).tensors
    except (ValueError, IndexError, KeyError) as error:
        raise LuminaError(f"{file} is damaged: {error}", hint=AGAIN) from error
    kinds = gguf.GGMLQuantizationType
    plain = {kinds.F32: torch.float32, kinds.F16: torch.float16, kinds.BF16: torch.bfloat16}
    weights = {}
    for tensor in tensors:
        kind = tensor.tensor_type
        shape = tuple(int(size) for size in reversed(tensor.shape))
        if kind in plain:
            read = partial(_read_plain, tensor.data, plain[kind], shape)
            weights[tensor.name] = Weight(shape, plain[kind], read)
        elif kind in SUPPORTED_GGUF_QUANT_TYPES:
            read = partial(_read_quantized, tensor.data, kind)
            weights[tensor.name] = Weight(shape, torch.uint8, read)
        else:
            raise LuminaError(
                f"{file}: {tensor.name} is quantized as {kind.name}",
                hint=f"known: {', '.join(sorted(k.name for k in SUPPORTED_GGUF_QUANT_TYPES))}",
            )
    return weights


def fill_quantized(
    model: FlowTransformer, tensors: Mapping[str, Tensor], dtype: torch.dtype | None
) -> None:
    """Give a model that has no memory yet the weights of a GGUF file, as diffusers does.

    Args:
        model: A model whose weights are on the meta device.
        tensors: All its weights by name, quantized or not.
        dtype: What to compute with. None is float32.
    """
    from diffusers import GGUFQuantizationConfig
    from diffusers.models.model_loading_utils import load_model_dict_into_meta
    from diffusers.quantizers import DiffusersAutoQuantizer
    from diffusers.quantizers.gguf.utils import dequantize_gguf_tensor

    dtype = dtype or torch.float32
    quantizer: Any = DiffusersAutoQuantizer.from_config(GGUFQuantizationConfig(compute_dtype=dtype))
    quantizer.validate_environment()
    linear = {
        f"{name}.weight" for name, layer in model.named_modules() if isinstance(layer, nn.Linear)
    }
    tensors = {
        name: tensor if name in linear else dequantize_gguf_tensor(tensor)
        for name, tensor in tensors.items()
    }
    model.separate_queries()
    settings = {"state_dict": tensors, "keep_in_fp32_modules": []}
    quantizer.preprocess_model(model=model, device_map=None, **settings)
    load_model_dict_into_meta(
        model,
        dtype=dtype,
        device_map={"": torch.device("cpu")},
        hf_quantizer=quantizer,
        unexpected_keys=[],
        **settings,
    )
    quantizer.postprocess_model(model)
    model.hf_quantizer = quantizer


def _read_plain(data: Any, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    return torch.from_numpy(data.copy()).view(dtype).reshape(shape)


def _read_quantized(data: Any, kind: Any) -> Tensor:
    from diffusers.quantizers.gguf.utils import GGUFParameter

    parameter: Any = GGUFParameter  # its `__new__` takes more than that of its base class
    return parameter(torch.from_numpy(data.copy()), quant_type=kind)
