"""When two layers may hold the very same weights, adapters and quantization in mind."""

import torch
from torch import Tensor, nn


def have_equal_weights(own: nn.Module, other: nn.Module) -> bool:
    """Whether two layers of one kind are known to have equal weights.

    Those that are sharded, quantized by bitsandbytes or without values are not compared.
    """
    pairs = zip(own.parameters(), other.parameters(), strict=True)
    return all(_are_equal(*pair) for pair in pairs)


def are_equal(own: Tensor, other: Tensor) -> bool:
    """Whether two plain tensors hold the same numbers, of 8 bits too."""
    is_tiny = own.dtype.is_floating_point and own.dtype.itemsize == 1
    if own.dtype == other.dtype and is_tiny:  # which `torch.equal` does not take
        return torch.equal(own.view(torch.uint8), other.view(torch.uint8))
    return torch.equal(own, other)


def without_adapters(layer: nn.Module) -> nn.Module:
    """The layer that adapters of peft wrap, or the layer itself."""
    return getattr(layer, "get_base_layer", lambda: layer)()


def _are_equal(own: Tensor, other: Tensor) -> bool:
    if type(own) is not type(other) or own.is_meta or other.is_meta:
        return False
    # Torchao's quantized tensors, which `torch.equal` does not take, name what they consist of.
    if parts := getattr(own, "tensor_data_names", ()):
        return all(torch.equal(getattr(own, part), getattr(other, part)) for part in parts)
    is_plain = type(own) is nn.Parameter and type(own.data) is type(other.data) is Tensor
    return is_plain and are_equal(own.data, other.data)
