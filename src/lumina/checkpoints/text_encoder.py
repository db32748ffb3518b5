"""Text encoders of pipelines: whole, or as what makes one differ from that of another model."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import AutoModel, PreTrainedModel

from lumina.checkpoints.difference import add_difference
from lumina.checkpoints.folder import DIFFERENCE, base_of, part_folder


def load_text_encoder(folder: Path, *, dtype: torch.dtype) -> PreTrainedModel:
    """The text encoder of a folder.

    Args:
        folder: The part "text_encoder" of a pipeline, or any folder that transformers reads.
        dtype: Of its weights.

    Raises:
        LuminaError: If it is told by a difference, and the base is not there or does not fit.
        OSError: If transformers cannot read the folder.
    """
    if not (folder / DIFFERENCE).is_file():
        return AutoModel.from_pretrained(folder, dtype=dtype)
    origin = part_folder(base_of(folder.parent), folder.name)
    encoder: Any = load_text_encoder(origin, dtype=torch.float32)
    add_difference(encoder, load_file(folder / DIFFERENCE), where=folder, origin=origin)
    return encoder.to(dtype)
