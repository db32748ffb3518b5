"""Adapters that a request names: their files, whether they fit a model, and their use."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from diffusers.loaders.lora_base import LORA_WEIGHT_NAME_SAFE

from lumina.backbones.transformer import FlowTransformer
from lumina.catalog import Checkpoint
from lumina.checkpoints.folder import INDEX, fingerprint_of, read_config
from lumina.checkpoints.headers import read_header
from lumina.checkpoints.kinds import KINDS
from lumina.checkpoints.network import class_of, find_network
from lumina.errors import LuminaError
from lumina.pipelines.adapters import read_lora
from lumina.requests import read_adapter

if TYPE_CHECKING:
    from lumina.pipelines.images import ImagePipeline

_SUFFIX = ".safetensors"


def check_fit(texts: Sequence[str], checkpoint: Checkpoint) -> dict[str, str]:
    """Refuse adapters that are not there or were made for another model, by their headers alone.

    Args:
        texts: Of each adapter, the path and maybe a strength, as `read_adapter` takes them.
        checkpoint: The model that they are to be used with.

    Returns:
        For each text, twelve hex digits that tell the weights of the adapter from others.

    Raises:
        LuminaError: If one cannot be used.
    """
    if not texts:
        return {}
    network = _outline(checkpoint)
    hashes = {}
    for text in texts:
        file = find_file(read_adapter(text).path)
        entries = read_header(file).entries
        weights = {
            name: torch.empty(entry.shape, device="meta")
            for name, entry in entries.items()
            if not name.endswith(".alpha")  # a number, which fits anywhere
        }
        read_lora(weights, network, where=str(file))
        hashes[text] = fingerprint_of({file.name: file})
    return hashes


def use_adapters(pipeline: "ImagePipeline", texts: Sequence[str]) -> None:
    """Have a pipeline, which has no adapters yet, draw with all of some.

    Args:
        pipeline: Whose transformer is adapted.
        texts: As in `check_fit`.

    Raises:
        LuminaError: If one does not fit.
    """
    adapters = [read_adapter(text) for text in texts]
    names = [f"lora_{number}" for number in range(len(adapters))]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Already found a `peft_config`")  # several are meant
        for name, adapter in zip(names, adapters, strict=True):
            pipeline.load_lora_weights(find_file(adapter.path), adapter_name=name)
    if names:
        pipeline.set_adapters(names, [adapter.scale for adapter in adapters])


def find_file(path: str) -> Path:
    """The file of an adapter, which may be in a folder that a run wrote.

    Raises:
        LuminaError: If there is none, or it is not clear which one.
    """
    place = Path(path)
    if place.is_file():
        if place.suffix != _SUFFIX:
            raise LuminaError(f"{path} is no {_SUFFIX} file", hint="adapters are stored as such")
        return place
    if not place.is_dir():
        raise LuminaError(
            f"there is no adapter {path}",
            hint="give the folder of a run with lora_rank, such as runs/lora/last, or a"
            f" {_SUFFIX} file; a strength is a number behind a colon: runs/lora/last:0.8",
        )
    usual = place / LORA_WEIGHT_NAME_SAFE
    files = [usual] if usual.is_file() else sorted(place.glob(f"*{_SUFFIX}"))
    if len(files) == 1:
        return files[0]
    if (place / INDEX).is_file():
        raise LuminaError(
            f"{path} is a whole model, and no adapter", hint=f"--model {path} draws with it"
        )
    raise LuminaError(
        f"{path} holds {len(files) or 'no'} {_SUFFIX} files",
        hint=f"name the file: {files[0]}" if files else f"adapters are in {usual.name}",
    )


def _outline(checkpoint: Checkpoint) -> FlowTransformer:
    """The network of a model, without memory for its weights; they may be quantized."""
    if checkpoint.is_network:
        return find_network(checkpoint.folder, {}).build()
    folder = checkpoint.folder / "transformer"
    with torch.device("meta"):
        made = KINDS[class_of(folder)].from_config(read_config(folder))
    return cast(FlowTransformer, made)
