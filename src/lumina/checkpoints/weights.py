"""Weights in files, each read when it is asked for."""

import argparse
import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lumina.checkpoints.folder import STEM_OF_DIFFUSERS, weight_files
from lumina.checkpoints.headers import AGAIN, format_of, read_header, refuse_pointer
from lumina.errors import LuminaError

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""What safetensors files call each type of number that weights and buffers have."""


@dataclass(frozen=True)
class Weight:
    """A tensor that is somewhere, and what is known of it without reading it."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[], Tensor]

    @classmethod
    def of(cls, tensor: Tensor) -> "Weight":
        """A tensor that is in memory."""
        return cls(tuple(tensor.shape), tensor.dtype, lambda: tensor)

    def to(self, dtype: torch.dtype | None) -> "Weight":
        """The same in another type of number, if it is one of floating-point numbers."""
        if dtype is None or not self.dtype.is_floating_point or self.dtype == dtype:
            return self
        return replace(self, dtype=dtype, read=lambda: self.read().to(dtype))


Weights = Mapping[str, Weight]

_REFUSED = re.compile(r"GLOBAL (\S+) (?:was not an allowed|whose module)")
"""How PyTorch names what a pickle asks for and may not have."""

_ZIP, _PICKLE = b"PK", b"\x80"
"""How files of PyTorch begin: new ones, and old ones."""


def open_file(file: Path) -> dict[str, Weight]:
    """All weights of a file, whatever its name ends in.

    Args:
        file: Safetensors, GGUF, or a pickle that holds nothing but tensors.

    Raises:
        LuminaError: If the file is missing, damaged or a pointer of Git LFS, or would run code.
    """
    format = format_of(file)
    if format == "gguf":
        # Reads by a library that is optional.
        from lumina.checkpoints.quantized import open_gguf

        return open_gguf(file)
    if format == "safetensors":
        return _open_safetensors(file)
    return {name: Weight.of(tensor) for name, tensor in _tensors_of(read_pickle(file), file)}


def open_diffusers(folder: Path) -> dict[str, Weight]:
    """All weights of one model in diffusers' layout, in one file or several, of any variant.

    Raises:
        LuminaError: If there are none, a file is missing or damaged, or there are several variants
            and nothing else.
    """
    weights = {}
    for file in weight_files(folder, [STEM_OF_DIFFUSERS]):
        weights |= open_file(file)
    return weights


def read_pickle(file: Path) -> Any:
    """What a file of PyTorch holds, if that is tensors, plain values and `argparse.Namespace`.

    Raises:
        LuminaError: If it is damaged or holds anything else, nothing of which is run.
    """
    refuse_pointer(file)
    try:
        # The original release stores its arguments as a namespace; nothing else is allowed.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(
                file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file)
            )
    except Exception as error:  # whatever a damaged or hostile pickle makes the reader raise
        raise _refusal(file, str(error)) from error


def _refusal(file: Path, reason: str) -> LuminaError:
    """What to say of a pickle that PyTorch does not read, by what it says."""
    if refused := _REFUSED.search(reason):
        return LuminaError(
            f"{file} holds {refused[1]}, which is no tensor; nothing of it was run",
            hint="convert it to safetensors where you trust it",
        )
    with file.open("rb") as stream:
        start = stream.read(2)
    if not start.startswith((_ZIP, _PICKLE)):
        return LuminaError(
            f"{file} is no file of weights, or is damaged; nothing of it was run",
            hint="give one of safetensors, GGUF or PyTorch, or copy it again",
        )
    if start == _ZIP and not zipfile.is_zipfile(file):
        return LuminaError(f"{file} is cut off; nothing of it was run", hint=AGAIN)
    return LuminaError(
        f"{file} holds more than tensors, or is damaged; nothing of it was run",
        hint="convert it to safetensors where you trust it, or copy it again",
    )


def _open_safetensors(file: Path) -> dict[str, Weight]:
    entries = read_header(file).entries
    unknown = {entry.dtype for entry in entries.values()} - DTYPES.keys()
    if unknown:
        raise LuminaError(
            f"{file} holds numbers of type {unknown.pop()}", hint=f"known: {', '.join(DTYPES)}"
        )
    return {
        name: Weight(entry.shape, DTYPES[entry.dtype], partial(_read_safetensors, file, name))
        for name, entry in entries.items()
    }


def _read_safetensors(file: Path, name: str) -> Tensor:
    # Each tensor maps the file by itself, so that the pages of one that is let go are let go too.
    try:
        with safe_open(file, "pt") as tensors:
            return tensors.get_tensor(name)
    except (SafetensorError, OSError) as error:
        raise LuminaError(f"{file}: {name} cannot be read: {error}", hint=AGAIN) from error


def _tensors_of(content: Any, file: Path) -> list[tuple[str, Tensor]]:
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping):
        raise LuminaError(f"{file} holds no weights by name", hint=AGAIN)
    return [(name, value) for name, value in content.items() if isinstance(value, Tensor)]
