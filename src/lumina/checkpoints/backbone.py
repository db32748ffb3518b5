"""A network alone, out of whatever file or folder holds its weights."""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from lumina.backbones.blocks import FlowTransformer
from lumina.backbones.flag_dit import FlagDiT
from lumina.backbones.next_dit import NextDiT
from lumina.checkpoints.keys import from_original
from lumina.checkpoints.original import infer_config, infer_config_of_ours
from lumina.errors import LuminaError, UnknownNameError

KINDS: dict[str, type[FlowTransformer]] = {
    "FlagDiT": FlagDiT,
    "NextDiT": NextDiT,
    "LuminaNextDiT2DModel": NextDiT,
}
PREFIXES = ("model.diffusion_model.", "transformer.", "module.")
"""What user interfaces, pipelines and wrappers put before each name."""

LFS_POINTER = b"version https://git-lfs"
FAMILIES = {
    "transformer_blocks.0.attn.to_q.weight": "Stable Diffusion 3 or Flux",
    "double_blocks.0.img_attn.qkv.weight": "Flux",
    "joint_blocks.0.x_block.attn.qkv.weight": "Stable Diffusion 3",
    "input_blocks.0.0.weight": "a Stable Diffusion U-Net",
    "context_refiner.0.attention.qkv.weight": "Lumina-Image 2.0",
    "blocks.0.attn.qkv.weight": "DiT or SiT",
}
_AGAIN = "copy or download it again"


def load_backbone(
    source: str | Path | Mapping[str, Tensor],
    config: Mapping[str, Any] | None = None,
    *,
    dtype: torch.dtype | None = None,
) -> FlowTransformer:
    """Load a network of the family, whatever format its weights are in.

    Args:
        source: Weights by name; or a file: safetensors, or a `.pth` or `.ckpt` that holds nothing
            but tensors; or a folder: of diffusers, or of the original release with
            `consolidated*` files.
        config: Arguments of the network that its weights do not tell, such as
            `num_attention_heads` of a model of classes. What is given here is used.
        dtype: Of the weights. None keeps that of the file.

    Returns:
        A `FlagDiT` or `NextDiT`, in evaluation mode.

    Raises:
        LuminaError: If there is no such file, it is damaged, holds anything but tensors, or its
            weights are not those of a network of the family.
    """
    if isinstance(source, Mapping):
        return _build(dict(source), config or {}, dtype, "the weights")
    path = Path(source)
    if not path.exists():
        raise LuminaError(f"{path} does not exist", hint="give a file or folder of weights")
    if path.is_dir() and (path / "transformer" / "config.json").is_file():
        path = path / "transformer"
    if path.is_dir() and (path / "config.json").is_file():
        return _load_diffusers(path, dtype)
    file = _find_original(path) if path.is_dir() else path
    return _build(read_weights(file), config or {}, dtype, str(file))


def read_weights(file: Path) -> dict[str, Tensor]:
    """Weights of a safetensors file, or of a pickle that holds nothing but tensors.

    Raises:
        LuminaError: If the file is damaged, or a pickle would run code.
    """
    with file.open("rb") as stream:
        if stream.read(len(LFS_POINTER)) == LFS_POINTER:
            raise LuminaError(
                f"{file} is a pointer of Git LFS, not the weights", hint="run `git lfs pull`"
            )
    if file.suffix == ".safetensors":
        try:
            return load_file(file)
        except (SafetensorError, ValueError) as error:
            raise LuminaError(f"{file} is damaged: {error}", hint=_AGAIN) from error
    try:
        # The original release stores its arguments as a namespace; nothing else is allowed.
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged or hostile pickle makes the reader raise
        raise LuminaError(
            f"{file} holds more than tensors, or is damaged; nothing of it was run",
            hint="convert it to safetensors where you trust it",
        ) from error
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping):
        raise LuminaError(f"{file} holds no weights by name", hint=_AGAIN)
    return {name: value for name, value in content.items() if isinstance(value, Tensor)}


def _load_diffusers(folder: Path, dtype: torch.dtype | None) -> FlowTransformer:
    name = json.loads((folder / "config.json").read_text())["_class_name"]
    if name not in KINDS:
        raise UnknownNameError.among(KINDS, name, kind="network")
    return KINDS[name].from_pretrained(folder, torch_dtype=dtype)


def _find_original(folder: Path) -> Path:
    """The one file of weights of a folder; averaged weights before those of the last step."""
    for name in ("consolidated_ema", "consolidated"):
        for suffix in ("safetensors", "pth"):
            files = sorted(folder.glob(f"{name}.*-of-*.{suffix}"))
            if len(files) > 1:
                raise LuminaError(
                    f"{folder} holds {len(files)} parts of one model",
                    hint="only checkpoints of one part can be read",
                )
            if files:
                return files[0]
    raise LuminaError(
        f"{folder} holds no weights of the family",
        hint="give a folder with config.json, or with consolidated.00-of-01.safetensors",
    )


def _build(
    weights: dict[str, Tensor], given: Mapping[str, Any], dtype: torch.dtype | None, where: str
) -> FlowTransformer:
    weights = _without_prefix(weights)
    shapes = {name: tuple(weight.shape) for name, weight in weights.items()}
    heads = given.get("num_attention_heads")
    try:
        if "patch_embedder.proj.weight" in weights:
            kind, config = infer_config_of_ours(shapes, heads=heads)
        else:
            kind, config = infer_config(shapes, heads=heads)
            weights = from_original(weights)
    except KeyError as error:
        looks = next((name for key, name in FAMILIES.items() if key in weights), None)
        raise LuminaError(
            f"{where}: {error.args[0]} is no weight of this family, or is missing",
            hint=f"it looks like {looks}" if looks else "lumina reads Flag-DiT and Next-DiT",
        ) from error
    with torch.device("meta"):
        model = KINDS[kind](**config | dict(given))
    if dtype is not None:
        weights = {name: weight.to(dtype) for name, weight in weights.items()}
    try:
        missing, unexpected = model.load_state_dict(weights, strict=False, assign=True)
    except RuntimeError as error:
        raise LuminaError(
            f"{where}: {str(error).splitlines()[-1].strip()}",
            hint="the configuration that was given does not fit the weights",
        ) from error
    if missing or unexpected:
        word, names = ("lacks", missing) if missing else ("has no place for", unexpected)
        raise LuminaError(f"{where}: the network {word} {', '.join(names[:3])}", hint=_AGAIN)
    model.share_queries()
    return model.eval()


def _without_prefix(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in PREFIXES:
        if any(name.startswith(prefix) for name in weights):
            return {
                name.removeprefix(prefix): weight
                for name, weight in weights.items()
                if name.startswith(prefix)
            }
    return weights
