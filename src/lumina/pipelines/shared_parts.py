"""Parts that a checkpoint has of another model, and networks that are told by a difference."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from transformers import AutoTokenizer

from lumina.catalog import MODELS, find
from lumina.checkpoints.difference import load_difference
from lumina.checkpoints.folder import (
    DIFFERENCE,
    INDEX,
    PARTS_OF,
    PIPELINES,
    part_folder,
    read_config,
    read_index,
    read_json,
)
from lumina.checkpoints.text_encoder import load_text_encoder
from lumina.errors import LuminaError
from lumina.modalities.sound.autoencoder import MelAutoencoder
from lumina.pipelines.audio import load_vocoder


def locate(source: str | Path) -> str | Path:
    """The folder of a model of the catalog; folders and hub ids as they are.

    Raises:
        LuminaError: If the model is not on this machine, or is stored in files of its own.
    """
    if Path(source).is_dir() or str(source) not in MODELS:
        return source
    found = find(source)
    if not (found.folder / INDEX).is_file():
        raise LuminaError(
            f"{source} is not stored as diffusers stores pipelines",
            hint=f'open it with lumina.load("{source}")',
        )
    return found.folder


def shared_parts(source: str | Path, given: Mapping[str, Any]) -> dict[str, Any]:
    """Parts of a pipeline that diffusers would not find in its folder.

    Args:
        source: A folder, or anything else, of which there are none.
        given: Arguments of `from_pretrained`: their numbers are taken, and parts among them left
            out.

    Raises:
        LuminaError: If the model whose parts they are is not there.
    """
    folder = Path(source)
    if not (folder / INDEX).is_file() or PARTS_OF not in read_json(folder / INDEX):
        return {}
    parts = {}
    for part in PIPELINES[read_index(folder)["_class_name"]]:
        if part in given:
            continue
        own = part_folder(folder, part)
        if own.parent != folder or (own / DIFFERENCE).is_file():
            parts[part] = _LOADERS[part](own, _numbers_of(part, given))
    return parts


def _numbers_of(part: str, given: Mapping[str, Any]) -> torch.dtype:
    """The numbers that diffusers would load a part with."""
    numbers = given.get("dtype") or given.get("torch_dtype")
    if isinstance(numbers, Mapping):
        numbers = numbers.get(part, numbers.get("default"))
    return numbers if isinstance(numbers, torch.dtype) else torch.float32


_LOADERS: dict[str, Callable[[Path, torch.dtype], Any]] = {
    "transformer": lambda folder, dtype: load_difference(folder, dtype=dtype).eval(),
    "vae": lambda folder, dtype: _vae_class(folder).from_pretrained(folder, torch_dtype=dtype),
    "vocoder": lambda folder, dtype: load_vocoder(folder, dtype=dtype),
    "text_encoder": lambda folder, dtype: load_text_encoder(folder, dtype=dtype),
    "tokenizer": lambda folder, _: AutoTokenizer.from_pretrained(folder),
}
"""How parts are loaded that another model has, or that are told by a difference from its own."""


def _vae_class(folder: Path) -> Any:
    is_of_sound = read_config(folder).get("_class_name") == MelAutoencoder.__name__
    return MelAutoencoder if is_of_sound else AutoencoderKL
