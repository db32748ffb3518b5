"""Networks from one format to another, one weight in memory at a time."""

import argparse
import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from lumina.backbones.sharing import are_equal
from lumina.backbones.transformer import FlowTransformer
from lumina.checkpoints.headers import AGAIN
from lumina.checkpoints.keys import is_copy, original_names, to_original
from lumina.checkpoints.network import ARGUMENTS, CONFIG, find_network
from lumina.checkpoints.original import arguments_of
from lumina.checkpoints.shapes import listed
from lumina.checkpoints.weights import Weights
from lumina.checkpoints.writing import bytes_of, unfinished, write_safetensors
from lumina.errors import LuminaError, UnknownNameError

_log = logging.getLogger(__name__)

FORMATS = ("diffusers", "original", "single")

DTYPES = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}

MAX_SHARD = "10GB"
"""Size of the files of a folder, as diffusers has it."""

_THETA = 10000  # of every released model
_OTHER = "convert it to diffusers or single"
_NAME = "diffusion_pytorch_model"
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}
_OURS = re.compile(rf"config\.json|{_NAME}.*|consolidated.*|{re.escape(ARGUMENTS)}")


def convert(
    source: str | Path,
    target: str | Path,
    *,
    to: str | None = None,
    dtype: str | None = None,
    max_shard: str | None = None,
    force: bool = False,
    config: Mapping[str, Any] | None = None,
) -> Path:
    """Write a network in another format. Every number stays as it is, unless a type is asked for.

    Args:
        source: As of `load_backbone`. Of a pipeline, its transformer is taken.
        target: The file or folder to write. It is complete, or not there.
        to: "diffusers", a folder that diffusers loads where it has the network; "original", a
            folder as of the original release; "single", one file. None is "single" if the target
            ends in `.safetensors`, else "diffusers".
        dtype: Type of the numbers, such as "bf16". None keeps them.
        max_shard: Largest size of a file of a diffusers folder, such as "4GB". None is "10GB".
        force: Replace what is there.
        config: Arguments of the network that its weights do not tell.

    Returns:
        The target.

    Raises:
        LuminaError: If the source is no network of the family, the target is there already, or the
            format has no place for the network.
    """
    target = Path(target)
    to = to or ("single" if target.suffix == ".safetensors" else "diffusers")
    if to not in FORMATS:
        raise UnknownNameError.among(FORMATS, to, kind="format")
    if dtype is not None and dtype not in DTYPES:
        raise UnknownNameError.among(DTYPES, dtype, kind="dtype")
    if max_shard is not None and to != "diffusers":
        raise LuminaError(
            f"a checkpoint in the format {to} is one file", hint="leave out --max-shard"
        )
    limit = read_bytes(max_shard or MAX_SHARD)
    _check_target(target, to=to, force=force)
    network = find_network(source, config or {})
    if network.format == "gguf":
        raise LuminaError(
            f"{network.where} is quantized", hint="use the weights that it was made from"
        )
    if network.unread:
        _log.warning("%s: left out: %s", network.where, listed(network.unread))
    model = network.build()
    network.differences(model).refuse(network.where, hint=AGAIN)
    weights = {
        name: weight.to(DTYPES[dtype] if dtype else None)
        for name, weight in network.weights.items()
    }
    with unfinished(target, force=force) as path:
        if to == "single":
            write_safetensors(path, weights, {CONFIG: model.to_json_string()})
        elif to == "original":
            _write_original(path, weights, model, where=network.where)
        else:
            _write_diffusers(path, weights, model, limit=limit)
    return target


def read_bytes(text: str) -> int:
    """Bytes of a size such as "4GB".

    Raises:
        LuminaError: If it is none.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]?)B?", text.strip(), re.IGNORECASE)
    size = float(match[1]) * _UNITS[match[2].upper()] if match else 0
    if size < 1:
        raise LuminaError(f"{text!r} is no size of a file", hint="give one such as 4GB or 500MB")
    return int(size)


def _check_target(target: Path, *, to: str, force: bool) -> None:
    if not target.exists() or not force:
        return
    if target.is_dir() != (to != "single"):
        kind, other = ("folder", "file") if target.is_dir() else ("file", "folder")
        raise LuminaError(f"{target} is a {kind}, and {to} is a {other}", hint="give another name")
    if not target.is_dir():
        return
    # What is replaced is the whole folder, which must not be one of other things as well.
    if others := sorted(p.name for p in target.iterdir() if not _OURS.fullmatch(p.name)):
        raise LuminaError(
            f"{target} holds more than a network: {', '.join(others[:3])}",
            hint="give the name of a new folder",
        )


def _write_diffusers(folder: Path, weights: Weights, model: FlowTransformer, *, limit: int) -> None:
    folder.mkdir()
    (folder / "config.json").write_text(model.to_json_string())
    shards = _shards(weights, limit)
    if len(shards) == 1:
        write_safetensors(folder / f"{_NAME}.safetensors", weights, {})
        return
    places = {}
    for number, shard in enumerate(shards, 1):
        file = f"{_NAME}-{number:05}-of-{len(shards):05}.safetensors"
        write_safetensors(folder / file, shard, {})
        places |= dict.fromkeys(shard, file)
    index = {
        "metadata": {"total_size": sum(map(bytes_of, weights.values()))},
        "weight_map": dict(sorted(places.items())),
    }
    (folder / f"{_NAME}.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def _shards(weights: Weights, limit: int) -> list[Weights]:
    shards, free = [], 0
    for name, weight in weights.items():
        size = bytes_of(weight)
        if size > free or not shards:
            shards.append({})
            free = limit
        shards[-1][name] = weight
        free -= size
    return shards


def _write_original(folder: Path, weights: Weights, model: FlowTransformer, *, where: str) -> None:
    config = model.config
    if config.get("rope_axes") or config["rope_theta"] != _THETA:
        raise LuminaError(
            f"{where} turns positions in a way that the original code does not", hint=_OTHER
        )
    try:
        names = original_names({name: weight.shape for name, weight in weights.items()})
    except KeyError as error:
        raise LuminaError(
            f"{where}: the original code has no {error.args[0]}",
            hint=_OTHER,
        ) from error
    for name in filter(is_copy, weights):
        first, second = weights[name.replace(".attn2.", ".attn1.")], weights[name]
        if first is not second and not are_equal(first.read(), second.read()):
            raise LuminaError(
                f"{where}: the original code has no place for {name}, which differs from "
                "that of attn1",
                hint=_OTHER,
            )
    folder.mkdir()
    write_safetensors(folder / "consolidated.00-of-01.safetensors", to_original(weights, names), {})
    arguments = argparse.Namespace(**arguments_of(type(model).__name__, config))
    torch.save(arguments, folder / ARGUMENTS)
