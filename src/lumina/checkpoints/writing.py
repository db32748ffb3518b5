"""Safetensors files, written one weight at a time."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import torch

from lumina.checkpoints.weights import DTYPES, Weight, Weights
from lumina.errors import LuminaError

_NAMES = {dtype: name for name, dtype in DTYPES.items()}


@contextmanager
def unfinished(target: Path, *, force: bool) -> Iterator[Path]:
    """A name beside a target for a new file or folder, which takes its place when it is whole.

    Args:
        target: Where the file or folder is to be in the end.
        force: Replace what is there now.

    Raises:
        LuminaError: If there is something, and it is not to be replaced.
    """
    if target.exists() and not force:
        raise LuminaError(f"{target} is there already", hint="--force replaces it")
    target.parent.mkdir(parents=True, exist_ok=True)
    path = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        yield path
        if target.is_dir():
            old = target.with_name(f".{target.name}.{os.getpid()}.old")
            target.rename(old)
            path.rename(target)
            shutil.rmtree(old)
            return
        path.replace(target)
    finally:
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)


def write_safetensors(file: Path, weights: Weights, metadata: Mapping[str, str]) -> None:
    """Write weights to a file, with one of them in memory at a time.

    Args:
        file: Where to write.
        weights: Any weights. Readers want the widest numbers first, so that all are aligned.
        metadata: What the file is to say about itself.
    """
    ordered = sorted(weights.items(), key=lambda item: (-item[1].dtype.itemsize, item[0]))
    with file.open("wb") as stream:
        stream.write(_header(ordered, metadata))
        for name, weight in ordered:
            _write(stream, name, weight)


def bytes_of(weight: Weight) -> int:
    """How many bytes a weight takes."""
    return weight.dtype.itemsize * torch.Size(weight.shape).numel()


def _write(stream: BinaryIO, name: str, weight: Weight) -> None:
    tensor = weight.read()
    if tuple(tensor.shape) != weight.shape or tensor.dtype != weight.dtype:
        raise LuminaError(f"{name} changed while it was read", hint="try again")
    stream.write(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)


def _header(weights: list[tuple[str, Weight]], metadata: Mapping[str, str]) -> bytes:
    header: dict[str, object] = {"__metadata__": {"format": "pt"} | dict(metadata)}
    end = 0
    for name, weight in weights:
        begin, end = end, end + bytes_of(weight)
        header[name] = {
            "dtype": _NAMES[weight.dtype],
            "shape": list(weight.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
