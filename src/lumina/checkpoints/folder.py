"""Checkpoint folders in diffusers' layout, checked before any weight is read.

Loaders fill what a file lacks with random numbers and at most warn about it.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lumina.errors import LuminaError

INDEX = "model_index.json"
PARTS = ("transformer", "vae", "text_encoder")
PIPELINES = ("LuminaPipeline", "LuminaText2ImgPipeline")

Shapes = dict[str, tuple[int, ...]]

_NAMED = 3
_SAMPLES = 16
_SAMPLE_BYTES = 1 << 16
_AGAIN = "copy the checkpoint again, or run `lumina get` again if it came from the hub"


def check_folder(folder: Path) -> None:
    """Hold the weight files of a checkpoint against the models that its configuration describes.

    Raises:
        LuminaError: If the folder is no checkpoint of a text-to-image pipeline, a file is
            missing or damaged, or tensors are missing, left over or of another shape.
    """
    index = read_index(folder)
    for part in (*PARTS, "scheduler", "tokenizer"):
        if not (folder / part).is_dir():
            raise LuminaError(f"{folder} has no folder {part}", hint=_AGAIN)
    for part in ("scheduler", "tokenizer"):
        files = list((folder / part).glob("*.json"))
        if not files:
            raise LuminaError(f"{folder / part} is empty", hint=_AGAIN)
        for file in files:
            _read_json(file)
    for part in PARTS:
        config = read_config(folder / part)
        found = read_shapes(folder / part)
        # Quantized tensors, and pickled ones, are for their own loaders to judge.
        if found and "quantization_config" not in config:
            _compare(folder / part, found, _expected(part, folder / part, index[part]))


def read_index(folder: Path) -> dict[str, Any]:
    """The parts of a checkpoint, by name: library and class.

    Raises:
        LuminaError: If the folder is no checkpoint of a text-to-image pipeline.
    """
    if not (folder / INDEX).is_file():
        raise LuminaError(
            f"{folder} is no checkpoint: it has no {INDEX}",
            hint="give the folder that `save_pretrained` wrote",
        )
    index = _read_json(folder / INDEX)
    kind = index.get("_class_name")
    if kind not in PIPELINES:
        raise LuminaError(
            f"{folder} holds a {kind}, not a {PIPELINES[0]}",
            hint=f"diffusers.{kind}.from_pretrained may load it",
        )
    if missing := [part for part in PARTS if not _names_a_class(index.get(part))]:
        raise LuminaError(f"{folder / INDEX} names no {_list(missing)}", hint=_AGAIN)
    return index


def read_shapes(folder: Path) -> Shapes:
    """Shapes of all tensors of one model, from the headers of its files.

    Returns:
        Names and shapes; nothing when the weights are pickled.

    Raises:
        LuminaError: If a file is missing or damaged.
    """
    shapes: Shapes = {}
    for file in weight_files(folder):
        if not file.is_file():
            raise LuminaError(f"{file} is missing", hint=_AGAIN)
        if file.suffix == ".safetensors":
            shapes |= _read_header(file)
    return shapes


def count_parameters(folder: Path) -> int:
    """How many numbers the weights of all parts of a checkpoint are."""
    shapes = (shape for part in PARTS for shape in read_shapes(folder / part).values())
    return sum(map(math.prod, shapes))


def read_config(folder: Path) -> dict[str, Any]:
    """The configuration of one model.

    Raises:
        LuminaError: If it is missing or damaged.
    """
    return _read_json(folder / "config.json")


def read_setting_of(folder: Path, name: str) -> Any:
    """One setting of the configuration of a model.

    Raises:
        LuminaError: If the configuration is missing or damaged, or does not have it.
    """
    config = read_config(folder)
    if name not in config:
        raise LuminaError(f"{folder / 'config.json'} has no {name}", hint=_AGAIN)
    return config[name]


def weight_files(folder: Path) -> list[Path]:
    """Files that hold the weights of one model, whether they exist or not.

    Raises:
        LuminaError: If the folder has none.
    """
    for name in ("diffusion_pytorch_model", "model", "pytorch_model"):
        for suffix in (".safetensors", ".bin"):
            file = folder / f"{name}{suffix}"
            index = folder / f"{file.name}.index.json"
            if index.is_file():
                parts = _read_json(index)["weight_map"].values()
                return [folder / part for part in sorted(set(parts))]
            if file.is_file():
                return [file]
    raise LuminaError(f"{folder} has no weights", hint=_AGAIN)


def fingerprint(folder: Path) -> str:
    """Twelve hex digits that tell the weights of one checkpoint from those of another.

    They depend on the size of each weight file and on samples along it, so that ten gigabytes
    take no longer than ten megabytes.
    """
    digest = hashlib.sha256()
    for part in PARTS:
        for file in weight_files(folder / part):
            size = file.stat().st_size
            digest.update(f"{part}/{file.name}:{size}".encode())
            with file.open("rb") as stream:
                for sample in range(_SAMPLES):
                    stream.seek(max(0, size - _SAMPLE_BYTES) * sample // (_SAMPLES - 1))
                    digest.update(stream.read(_SAMPLE_BYTES))
    return digest.hexdigest()[:12]


def _names_a_class(source: Any) -> bool:
    return isinstance(source, list) and len(source) == 2 and all(source)


def _expected(part: str, folder: Path, source: list[str]) -> Shapes:
    """Shapes of a model that is built, without memory for its weights, from its configuration.

    Raises:
        LuminaError: If no model can be built from it.
    """
    try:
        return _build(part, folder, source)
    except Exception as error:  # whatever the libraries' constructors raise at wrong values
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise LuminaError(
            f"{folder / 'config.json'} describes no {source[1]}: {reason[0]}", hint=_AGAIN
        ) from error


def _build(part: str, folder: Path, source: list[str]) -> Shapes:
    import diffusers
    import torch
    import transformers

    from lumina.backbones.next_dit import NextDiT

    library, name = source
    with torch.device("meta"):
        if library == "transformers":
            config = transformers.AutoConfig.from_pretrained(folder)
            model = getattr(transformers, name)(config)
        else:
            kind: Any = NextDiT if part == "transformer" else getattr(diffusers, name)
            model = kind.from_config(read_config(folder))
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def _compare(folder: Path, found: Shapes, expected: Shapes) -> None:
    if folder.name == "text_encoder":
        # A file of a whole language model is read as one of its encoder, without the head.
        found = {name.removeprefix("model."): shape for name, shape in found.items()}
        found = {name: shape for name, shape in found.items() if name in expected}
    if missing := [name for name in expected if name not in found]:
        raise LuminaError(f"{folder} lacks {_list(missing)}", hint=_AGAIN)
    if unexpected := [name for name in found if name not in expected]:
        raise LuminaError(
            f"{folder} has {_list(unexpected)}, which its configuration does not describe",
            hint="config.json and the weights must come from the same model",
        )
    for name, shape in expected.items():
        if found[name] != shape:
            raise LuminaError(
                f"{folder}: {name} has the shape {list(found[name])}, not {list(shape)}",
                hint="config.json and the weights must come from the same model",
            )


def _read_header(file: Path) -> Shapes:
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = stream.read(length) if length <= size else b""
    try:
        tensors: Mapping[str, Any] = json.loads(header)
    except ValueError:
        raise LuminaError(f"{file} is damaged", hint=_AGAIN) from None
    tensors = {name: facts for name, facts in tensors.items() if name != "__metadata__"}
    end = 8 + length + max((facts["data_offsets"][1] for facts in tensors.values()), default=0)
    if size < end:
        raise LuminaError(f"{file} is cut off: {size:,} of {end:,} bytes", hint=_AGAIN)
    return {name: tuple(facts["shape"]) for name, facts in tensors.items()}


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise LuminaError(f"cannot read {file}: {error.strerror}", hint=_AGAIN) from error
    except ValueError:
        raise LuminaError(f"{file} is damaged: not JSON", hint=_AGAIN) from None
    if not isinstance(content, dict):
        raise LuminaError(f"{file} is damaged: not an object", hint=_AGAIN)
    return content


def _list(names: list[str]) -> str:
    named = ", ".join(names[:_NAMED])
    return named if len(names) <= _NAMED else f"{named} and {len(names) - _NAMED} more tensors"
