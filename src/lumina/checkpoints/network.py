"""Which network of the family a file or folder holds, told without reading its weights."""

import argparse
import inspect
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lumina.backbones.transformer import FlowTransformer
from lumina.checkpoints.folder import (
    DIFFERENCE,
    INDEX,
    STEM_OF_DIFFUSERS,
    base_of,
    read_config,
    weight_files,
)
from lumina.checkpoints.headers import AGAIN, format_of, read_header
from lumina.checkpoints.keys import from_original, with_copies
from lumina.checkpoints.kinds import KINDS
from lumina.checkpoints.original import (
    config_of_arguments,
    infer_config,
    infer_config_of_ours,
    open_settings,
)
from lumina.checkpoints.parts import find_parts, open_parts
from lumina.checkpoints.shapes import Differences
from lumina.checkpoints.weights import (
    Weight,
    Weights,
    open_diffusers,
    open_file,
    read_pickle,
)
from lumina.errors import LuminaError, UnknownNameError

PREFIXES = ("model.diffusion_model.", "transformer.", "module.")
"""What user interfaces, pipelines and wrappers put before each name."""

CONFIG = "config"
"""Where the metadata of a single file holds the configuration."""

ARGUMENTS = "model_args.pth"
"""Where the original release holds how a training run was started."""

OTHERS = {
    "transformer_blocks.0.attn.to_q.weight": "Stable Diffusion 3 or Flux",
    "double_blocks.0.img_attn.qkv.weight": "Flux",
    "joint_blocks.0.x_block.attn.qkv.weight": "Stable Diffusion 3",
    "input_blocks.0.0.weight": "a Stable Diffusion U-Net",
    "down_blocks.0.resnets.0.conv1.weight": "a Stable Diffusion U-Net",
    "context_refiner.0.attention.qkv.weight": "Lumina-Image 2.0",
    "context_refiner.0.attn.to_q.weight": "Lumina-Image 2.0",
    "blocks.0.attn.qkv.weight": "DiT or SiT",
    "blocks.0.self_attn.q.weight": "Wan",
    "decoder.conv_in.weight": "an autoencoder",
    "first_stage_model.decoder.conv_in.weight": "an autoencoder",
    "layers.0.self_attn.q_proj.weight": "a language model",
    "model.layers.0.self_attn.q_proj.weight": "a language model",
}
"""Families that are taken for this one, and a weight that each of them has."""

ADAPTERS = "pytorch_lora_weights.safetensors"
"""What diffusers calls the file of adapters in their folder."""


@dataclass(frozen=True)
class Network:
    """A network on disk, or in memory."""

    where: str
    format: str
    """"diffusers", "original", "single", "gguf" or "memory"."""
    files: list[Path]
    kind: str
    config: dict[str, Any]
    """Of its arguments those that are known."""
    weights: Weights
    """Under our names."""
    unread: list[str]
    """Names of weights beside those of the network."""
    assumed: list[str]
    """Arguments that nothing tells, and that are taken to be those of the released models."""

    def build(self) -> FlowTransformer:
        """The network without memory for its weights.

        Raises:
            LuminaError: If its configuration makes no network.
        """
        known = inspect.signature(KINDS[self.kind].__init__).parameters
        config = {name: value for name, value in self.config.items() if name in known}
        try:
            with torch.device("meta"):
                return KINDS[self.kind](**config)
        except (ValueError, TypeError) as error:
            raise LuminaError(
                f"{self.where}: {error}",
                hint="give the right setting: `--config num_attention_heads=N`, or in Python"
                ' config={"num_attention_heads": N}',
            ) from error

    def differences(self, model: FlowTransformer) -> Differences:
        """Where the weights do not fit what `build` gave."""
        return Differences.between(_shapes(self.weights), _shapes(model.state_dict()))


def find_network(source: str | Path | Mapping[str, Any], config: Mapping[str, Any]) -> Network:
    """Find out which network a file or folder holds.

    Args:
        source: As of `load_backbone`.
        config: Arguments of the network that are used whatever the checkpoint says.

    Raises:
        UnknownNameError: If `config` names an argument that no network has.
        LuminaError: If there is none, or it is damaged or quantized by diffusers.
    """
    _check_names(config)
    if isinstance(source, Mapping):
        weights = {name: Weight.of(tensor) for name, tensor in source.items()}
        return _identify(weights, {}, config, where="the weights", format="memory", files=[])
    path = Path(source)
    if not path.exists():
        raise LuminaError(f"{path} does not exist", hint="give a file or folder of weights")
    folder = network_folder(path)
    if folder is not None:
        return _find_in_diffusers(folder, config)
    if parts := find_parts(path):
        return _identify(
            open_parts(parts),
            _read_arguments(parts[0].parent),
            config,
            where=str(parts[0] if len(parts) == 1 else path),
            format="original",
            files=parts,
        )
    if (path / ADAPTERS).is_file():
        raise LuminaError(
            f"{path} holds adapters, and no model to put them on", hint=f"give it as --lora {path}"
        )
    if path.is_dir():
        raise LuminaError(
            f"{path} holds no weights of the family",
            hint="give a folder with model_index.json, config.json or consolidated.00-of-01.*",
        )
    return _identify(
        open_file(path),
        _read_metadata(path),
        config,
        where=str(path),
        format="gguf" if format_of(path) == "gguf" else "single",
        files=[path],
    )


def network_folder(path: Path) -> Path | None:
    """The folder with the network of a pipeline or model in diffusers' layout, if it is one."""
    if not path.is_dir():
        return None
    for folder in (path / "transformer", path):
        if (folder / "config.json").is_file():
            return folder
    if (path / INDEX).is_file():
        raise LuminaError(
            f"{path} has no transformer/config.json", hint="only transformers can be read"
        )
    return None


def class_of(folder: Path) -> str:
    """The class that the configuration in a folder names.

    Raises:
        LuminaError: If it is none of the family, or the configuration is damaged.
    """
    name = read_config(folder).get("_class_name")
    if name in KINDS:
        return name
    hint = f"diffusers.{name}.from_pretrained may load it" if name else "check config.json"
    raise LuminaError(f"{folder} holds a {name}, no network of the family", hint=hint)


def _check_names(config: Mapping[str, Any]) -> None:
    known = [name for kind in KINDS.values() for name in inspect.signature(kind).parameters]
    for name in config:
        if name not in known and not name.startswith("_"):
            raise UnknownNameError.among(dict.fromkeys(known), name, kind="setting")


def _find_in_diffusers(folder: Path, given: Mapping[str, Any]) -> Network:
    kind = class_of(folder)
    config = read_config(folder)
    if (folder / DIFFERENCE).is_file():
        raise LuminaError(
            f"{folder} has what differs from {base_of(folder.parent).name}, and no whole network",
            hint="`lumina.load` puts both together; its `transformer.save_pretrained` writes all",
        )
    if "quantization_config" in config:
        raise LuminaError(f"{folder} is quantized", hint="use the weights that it was made from")
    return Network(
        where=str(folder),
        format="diffusers",
        files=weight_files(folder, [STEM_OF_DIFFUSERS]),
        kind=KINDS[kind].__name__,
        config=config | dict(given),
        weights=open_diffusers(folder),
        unread=[],
        assumed=[],
    )


def _identify(
    weights: Weights,
    told: Mapping[str, Any],
    given: Mapping[str, Any],
    *,
    where: str,
    format: str,
    files: list[Path],
) -> Network:
    prefix = prefix_of(weights)
    own = _without(prefix, weights)
    facts = dict(told) | dict(given)
    untold = {"heads": facts.get("num_attention_heads"), "patch": facts.get("patch_size")}
    try:
        if "patch_embedder.proj.weight" in own:
            own = with_copies(own)
            kind, config = infer_config_of_ours(_shapes(own), **untold)
        else:
            kind, config = infer_config(_shapes(own), **untold)
            own = from_original(own)
    except KeyError as error:
        raise LuminaError(
            f"{where}: {error.args[0]} is no weight of this family, or is missing",
            hint=_looks_like(own, weights),
        ) from error
    except (ValueError, IndexError, ZeroDivisionError) as error:
        raise LuminaError(
            f"{where}: its weights have shapes of no network of this family", hint=AGAIN
        ) from error
    return Network(
        where=where,
        format=format,
        files=files,
        kind=KINDS[facts.get("_class_name", kind)].__name__,
        config=config | facts,
        weights=own,
        unread=[name for name in weights if not name.startswith(prefix)],
        assumed=[name for name in open_settings(_shapes(own)) if name not in facts],
    )


def prefix_of(weights: Iterable[str]) -> str:
    """What the names of a network have before them, in a file that may hold more."""
    names = list(weights)
    return next((p for p in PREFIXES if any(name.startswith(p) for name in names)), "")


def _without(prefix: str, weights: Weights) -> dict[str, Weight]:
    return {
        name.removeprefix(prefix): weight
        for name, weight in weights.items()
        if name.startswith(prefix)
    }


def _read_arguments(folder: Path) -> dict[str, Any]:
    file = folder / ARGUMENTS
    if not file.is_file():
        return {}
    arguments = read_pickle(file)
    if isinstance(arguments, argparse.Namespace):
        return config_of_arguments(vars(arguments))
    raise LuminaError(f"{file} holds no arguments", hint="copy it again, or take it away")


def _read_metadata(file: Path) -> dict[str, Any]:
    """The configuration that a safetensors file holds, if it is one of ours."""
    if format_of(file) != "safetensors":
        return {}
    try:
        config = json.loads(read_header(file).metadata.get(CONFIG, "null"))
    except ValueError:  # other programs put other things there
        return {}
    return config if isinstance(config, dict) and config.get("_class_name") in KINDS else {}


def _looks_like(*names: Iterable[str]) -> str:
    known = {name for some in names for name in some}
    if any("lora_" in name for name in known):
        return "it looks like a LoRA, which `load_lora_weights` of a pipeline reads"
    looks = next((family for name, family in OTHERS.items() if name in known), None)
    return f"it looks like {looks}" if looks else "lumina reads Flag-DiT and Next-DiT"


def _shapes(weights: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(weight.shape) for name, weight in weights.items()}
