"""Names of cached results: hashes of everything that they depend on."""

import hashlib
import json
from pathlib import Path
from typing import Any

from lumina.checkpoints.folder import fingerprint_of, weight_files, with_bases
from lumina.errors import LuminaError
from lumina.training.data.buckets import Crop, Whole

VERSION = 1
"""Changes when the same inputs give other results, such as after a change of `cut`."""


def latents_key(medium: str, crop: Crop | Whole, *, model: str, dtype: str) -> str:
    """Name of the latents of a medium.

    Args:
        medium: Hash of what it is made from (`Medium.digest`).
        crop: The part of it, and the size it is shown at.
        model: Hash of the autoencoder (`model_key`).
        dtype: Type of the stored numbers.
    """
    return _hash(["latents", VERSION, medium, crop, model, dtype])


def text_key(text: str, *, model: str, max_tokens: int, layer: int, dtype: str) -> str:
    """Name of the features of a text.

    Args:
        text: As it goes to the tokenizer.
        model: Hash of the text encoder and its tokenizer (`model_key`).
        max_tokens: Where longer texts are cut.
        layer: Which hidden states the features are.
        dtype: Type of the stored numbers.
    """
    return _hash(["text", VERSION, text, model, max_tokens, layer, dtype])


def model_key(*folders: Path) -> str:
    """Hash of the weights and of all files of settings of one model in one or more folders.

    Raises:
        LuminaError: If a folder is missing, or the first has no weights.
    """
    for folder in folders:
        if not folder.is_dir():
            raise LuminaError(f"there is no folder {folder}", hint="name the folder of the model")
    settings = [file.read_text() for folder in folders for file in sorted(folder.glob("*.json"))]
    weights = [
        fingerprint_of({file.name: file for file in weight_files(own)})
        for own in with_bases(folders[0])
    ]
    return _hash(["model", *weights, settings])


def _hash(parts: list[Any]) -> str:
    return hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode()).hexdigest()[:40]
