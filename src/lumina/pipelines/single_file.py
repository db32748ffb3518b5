"""Pipelines around the transformer of one file, as user interfaces have it."""

from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from diffusers import AutoencoderKL, DiffusionPipeline

from lumina.checkpoints.backbone import load_backbone
from lumina.checkpoints.weights import open_file
from lumina.errors import LuminaError

PARTS = ("text_encoder", "tokenizer", "vae", "scheduler")
"""What a pipeline consists of beside its transformer."""

VAE_PREFIXES = ("first_stage_model.", "vae.")
"""What files that hold a VAE put before its names."""

Pipeline = TypeVar("Pipeline", bound=DiffusionPipeline)


def load_single_file(
    kind: type[Pipeline],
    file: str | Path,
    *,
    config: str | Path | None,
    dtype: torch.dtype | None,
    parts: dict[str, Any],
) -> Pipeline:
    """Load the transformer of a file, and put a pipeline around it.

    Args:
        kind: The class of the pipeline.
        file: Whatever `load_backbone` reads. If it also holds a VAE, that is used.
        config: A pipeline in diffusers' layout, a folder or the id of one on the hub, which gives
            the parts that are not given. None needs all of them.
        dtype: Of the weights. None keeps those of the files.
        parts: Parts of the pipeline by name.

    Raises:
        LuminaError: If the file holds no transformer of the family, or parts are missing.
    """
    if unknown := parts.keys() - set(PARTS):
        raise LuminaError(
            f"a pipeline has no part {min(unknown)!r}", hint=f"known: {', '.join(PARTS)}"
        )
    parts = dict(parts)
    if "vae" not in parts and (vae := _find_vae(Path(file))):
        parts["vae"] = _load_vae(Path(file), vae, config, dtype)
    if getattr(kind, "_makes_scheduler", False):
        parts.setdefault("scheduler", None)
    missing = [part for part in PARTS if part not in parts]
    if missing and config is None:
        raise LuminaError(
            f"{file} holds no {', '.join(missing)}",
            hint=f"pass {', '.join(f'{part}=...' for part in missing)}, or as config= a folder or "
            "hub id that has them",
        )
    parts["transformer"] = load_backbone(file, dtype=dtype)
    if config is None:
        return kind(**parts)
    parts = {name: part for name, part in parts.items() if part is not None}
    return kind.from_pretrained(config, dtype=dtype, **parts)


def _find_vae(file: Path) -> str | None:
    """The prefix of the VAE in a file, if it holds one."""
    names = open_file(file) if file.is_file() else {}
    return next((p for p in VAE_PREFIXES if any(name.startswith(p) for name in names)), None)


def _load_vae(
    file: Path, prefix: str, config: str | Path | None, dtype: torch.dtype | None
) -> AutoencoderKL:
    if config is None:
        raise LuminaError(
            f"{file} holds a VAE without its configuration",
            hint="pass vae=..., or as config= a folder or hub id that has the configuration",
        )
    weights = {
        name.removeprefix(prefix): weight.read()
        for name, weight in open_file(file).items()
        if name.startswith(prefix)
    }
    try:
        return AutoencoderKL.from_single_file(
            cast(Any, weights), config=str(config), subfolder="vae", dtype=dtype
        )
    except NotImplementedError as error:  # a weight that was not given cannot be moved
        raise LuminaError(f"{file}: weights of its VAE are missing", hint="pass vae=...") from error
    except (ValueError, KeyError, RuntimeError) as error:
        raise LuminaError(
            f"{file}: its VAE is not the one that {config} describes: {error}",
            hint="pass vae=...",
        ) from error
