"""Checkpoint folders in diffusers' layout, checked before any weight is read.

Loaders fill what a file lacks with random numbers and at most warn about it.
"""

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lumina.checkpoints.headers import AGAIN, read_header, refuse_pointer
from lumina.checkpoints.shapes import Differences, Shapes, listed
from lumina.errors import LuminaError
from lumina.requests import OF_MODALITIES, OF_TEXT

INDEX = "model_index.json"
MADE_BY = "training.json"
"""File beside weights that says which run made them."""

PARTS = ("transformer", "vae", "text_encoder", "vocoder")
"""Models that a pipeline may have."""

DIFFERENCE = "difference.safetensors"
"""File of a network that is stored as what makes it differ from that of another model."""

PARTS_OF = "_parts_of"
"""What an index says of the model whose folders stand for those that are not there."""

STEM_OF_DIFFUSERS = "diffusion_pytorch_model"
STEMS = (STEM_OF_DIFFUSERS, "model", "pytorch_model", DIFFERENCE.removesuffix(".safetensors"))
"""What files of weights are called by diffusers, by transformers, and by its older versions."""

OPENED_BY_US = " (open it with lumina.load)"
"""What stands behind a class name that diffusers lacks, since it shows the name in its error."""

PIPELINES = {
    "LuminaPipeline": OF_TEXT,
    "LuminaText2ImgPipeline": OF_TEXT,
    "OriginalLuminaPipeline": OF_TEXT,
    "OriginalAudioPipeline": (*OF_TEXT, "vocoder"),
    "LuminaFlagPipeline": OF_TEXT,
    "LuminaAnagramPipeline": OF_TEXT,
    "LuminaComposePipeline": OF_TEXT,
    "LuminaImg2ImgPipeline": OF_TEXT,
    "LuminaInpaintPipeline": OF_TEXT,
    "LuminaInterpolationPipeline": OF_TEXT,
    "LuminaPanoramaPipeline": OF_TEXT,
    "LuminaRewritePipeline": OF_TEXT,
    "LuminaStylePipeline": OF_TEXT,
    "LuminaUpscalePipeline": OF_TEXT,
    "LuminaClassPipeline": ("transformer", "vae", "scheduler"),
    "LuminaRecognitionPipeline": ("transformer",),
    **{kind.pipeline: kind.parts for kind in OF_MODALITIES.values()},
}
"""Pipelines that can be loaded, and the folders that each has."""

_SAMPLES = 16
_SAMPLE_BYTES = 1 << 16


def check_folder(folder: Path) -> None:
    """Hold the weight files of a checkpoint against the models that its configuration describes.

    Raises:
        LuminaError: If the folder is no checkpoint of a text-to-image pipeline, a file is
            missing or damaged, or tensors are missing, left over or of another shape.
    """
    index = read_index(folder)
    parts = PIPELINES[index["_class_name"]]
    for part in parts:
        if not part_folder(folder, part).is_dir():
            raise LuminaError(f"{folder} has no folder {part}", hint=AGAIN)
    for part in parts:
        own = part_folder(folder, part)
        if part not in PARTS:
            _check_settings(own)
            continue
        *differences, own = with_bases(own)
        for one in differences:
            read_config(one)
            read_header(one / DIFFERENCE)
        source = read_index(own.parent)[part] if differences else index[part]
        config = read_config(own)
        found = read_shapes(own)
        # Quantized tensors, and pickled ones, are for their own loaders to judge.
        if found and "quantization_config" not in config:
            compare(own, found, expected_shapes(own, source)).refuse(str(own), hint=AGAIN)


def part_folder(folder: Path, part: str) -> Path:
    """The folder of a part of a checkpoint: its own, or that of the model whose parts it has."""
    own = folder / part
    return own if own.is_dir() or not _names_base(folder) else part_folder(base_of(folder), part)


def differs_from(folder: Path, base: str) -> bool:
    """Whether the network of a checkpoint is stored as what makes it differ from that of a base."""
    return (folder / "transformer" / DIFFERENCE).is_file() and _names_base(folder) == base


def base_of(folder: Path) -> Path:
    """The model whose parts a checkpoint has: beside it, or of those that ship.

    Raises:
        LuminaError: If it names none, or that is not there.
    """
    name = _names_base(folder)
    for place in (folder.parent, Path(__file__).parents[1] / "weights"):
        if name and (place / name / INDEX).is_file():
            return place / name
    raise LuminaError(
        f"{folder} has parts of {name or 'no model'}, which is not there",
        hint=f"put the folder {name} beside it" if name else AGAIN,
    )


def _names_base(folder: Path) -> str:
    if not (folder / INDEX).is_file():
        return ""
    return str(read_json(folder / INDEX).get(PARTS_OF, ""))


def _check_settings(folder: Path) -> None:
    files = list(folder.glob("*.json"))
    if not files:
        raise LuminaError(f"{folder} is empty", hint=AGAIN)
    for file in files:
        read_json(file)


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
    index = read_json(folder / INDEX)
    kind = index["_class_name"] = str(index.get("_class_name")).removesuffix(OPENED_BY_US)
    if kind not in PIPELINES:
        raise LuminaError(
            f"{folder} holds a {kind}, not one of {', '.join(PIPELINES)}",
            hint=f"`lumina.load` loads those alone; `diffusers.{kind}` may load it",
        )
    parts = [part for part in PIPELINES[kind] if part in PARTS]
    if missing := [part for part in parts if not _names_a_class(index.get(part))]:
        raise LuminaError(f"{folder / INDEX} names no {listed(missing)}", hint=AGAIN)
    return index


def worlds_of(folder: Path) -> list[str]:
    """Generated worlds that a model was trained on, as its records name them."""
    found = []
    # A run that changes one part of a model leaves the record of the others within them.
    for record in (folder / MADE_BY, folder / "transformer" / MADE_BY):
        if record.is_file():
            recipe = json.loads(record.read_text("utf-8"))["recipe"]
            tables = [recipe, *recipe.get("data", [])]
            found += [table["world"] for table in tables if table.get("world")]
    return list(dict.fromkeys(found))


def read_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of all tensors of one model, from the headers of its files.

    Returns:
        Names and shapes; nothing when the weights are pickled.

    Raises:
        LuminaError: If a file is missing or damaged.
    """
    shapes = {}
    for file in weight_files(folder):
        refuse_pointer(file)
        if file.suffix == ".safetensors":
            shapes |= {name: entry.shape for name, entry in read_header(file).entries.items()}
    return shapes


def count_parameters(folder: Path) -> int:
    """How many numbers the weights of all parts of a checkpoint are."""
    shapes = (shape for own in _part_folders(folder) for shape in read_shapes(own).values())
    return sum(map(math.prod, shapes))


def read_config(folder: Path) -> dict[str, Any]:
    """The configuration of one model.

    Raises:
        LuminaError: If it is missing or damaged.
    """
    return read_json(folder / "config.json")


def read_setting_of(folder: Path, name: str) -> Any:
    """One setting of the configuration of a model.

    Raises:
        LuminaError: If the configuration is missing or damaged, or does not have it.
    """
    config = read_config(folder)
    if name not in config:
        raise LuminaError(f"{folder / 'config.json'} has no {name}", hint=AGAIN)
    return config[name]


def weight_files(folder: Path, stems: Sequence[str] = STEMS) -> list[Path]:
    """Files that hold the weights of one model, of any variant, whether they exist or not.

    Args:
        folder: The folder of the model.
        stems: What the files may be called, up to the first dot.

    Raises:
        LuminaError: If there are none, or several variants and no plain ones.
    """
    head = _find_head(folder, stems)[0]
    if head.suffix != ".json":
        return [head]
    parts = read_json(head).get("weight_map")
    if not isinstance(parts, dict):
        raise LuminaError(f"{head} is damaged: it has no weight_map", hint=AGAIN)
    return [folder / part for part in sorted(set(parts.values()))]


def variant_of(folder: Path) -> str | None:
    """What `save_pretrained` was told to call the weights of a pipeline, such as "fp16".

    Raises:
        LuminaError: If a part has no weights, or parts are of different variants.
    """
    found = {_find_head(own, STEMS)[1] for own in _part_folders(folder)} - {None}
    if len(found) > 1:
        names = " and ".join(sorted(map(str, found)))
        raise LuminaError(f"{folder} holds parts of the variants {names}", hint="keep one of them")
    return found.pop() if found else None


def fingerprint(folder: Path) -> str:
    """Twelve hex digits that tell the weights of one checkpoint from those of another.

    They depend on the size of each weight file and on samples along it, so that ten gigabytes
    take no longer than ten megabytes.
    """
    files: dict[str, Path] = {}
    for own in _part_folders(folder):
        for file in weight_files(own):
            name = f"{own.name}/{file.name}"
            while name in files:  # differences from differences
                name = f"base/{name}"
            files[name] = file
    return fingerprint_of(files)


def fingerprint_of(files: Mapping[str, Path]) -> str:
    """The same for files, each with a name that counts too."""
    digest = hashlib.sha256()
    for name, file in files.items():
        size = file.stat().st_size
        digest.update(f"{name}:{size}".encode())
        with file.open("rb") as stream:
            for sample in range(_SAMPLES):
                stream.seek(max(0, size - _SAMPLE_BYTES) * sample // (_SAMPLES - 1))
                digest.update(stream.read(_SAMPLE_BYTES))
    return digest.hexdigest()[:12]


def _find_head(folder: Path, stems: Sequence[str]) -> tuple[Path, str | None]:
    """The file with all weights of a model, or the index of several, and its variant."""
    for stem in stems:
        for suffix in ("safetensors", "bin"):
            for name in (f"{stem}.{suffix}.index.json", f"{stem}.{suffix}"):
                if (folder / name).is_file():
                    return folder / name, None
            variant = rf"{stem}\.(?:(\w+)\.{suffix}|{suffix}\.index\.(\w+)\.json)"
            files = sorted(folder.glob(f"{stem}.*"))
            found = [match for file in files if (match := re.fullmatch(variant, file.name))]
            if len(found) > 1:
                names = ", ".join(match[0] for match in found)
                raise LuminaError(f"{folder} holds {names}", hint="keep one of them")
            if found:
                return folder / found[0][0], found[0][1] or found[0][2]
    raise LuminaError(f"{folder} has no weights", hint=AGAIN)


def _part_folders(folder: Path) -> list[Path]:
    """Folders of all models of a checkpoint, wherever they are, and of what these differ from."""
    own = (part_folder(folder, part) for part in PARTS)
    return [one for each in own if each.is_dir() for one in with_bases(each)]


def with_bases(own: Path) -> list[Path]:
    """A folder of a model, what that differs from, and so on to one that is whole."""
    found = [own]
    while (found[-1] / DIFFERENCE).is_file():
        found.append(part_folder(base_of(found[-1].parent), own.name))
    return found


def _names_a_class(source: Any) -> bool:
    return isinstance(source, list) and len(source) == 2 and all(source)


def expected_shapes(folder: Path, source: list[str]) -> Shapes:
    """Shapes of a model that is built, without memory for its weights, from its configuration.

    Args:
        folder: The folder of the model.
        source: Library and class of the model.

    Raises:
        LuminaError: If no model can be built from it.
    """
    try:
        return _build(folder, source)
    except Exception as error:  # whatever the libraries' constructors raise at wrong values
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise LuminaError(
            f"{folder / 'config.json'} describes no {source[1]}: {reason[0]}", hint=AGAIN
        ) from error


def _build(folder: Path, source: list[str]) -> Shapes:
    import diffusers
    import torch
    import transformers

    from lumina.checkpoints.kinds import KINDS, SOUND_PARTS

    library, name = source
    with torch.device("meta"):
        if library == "transformers":
            config = transformers.AutoConfig.from_pretrained(folder)
            model = getattr(transformers, name)(config)
        else:
            kind: Any = KINDS.get(name) or SOUND_PARTS.get(name) or getattr(diffusers, name)
            model = kind.from_config(read_config(folder))
    # Of weights that are one under two names, as in T5, files hold the first alone.
    again = getattr(model, "all_tied_weights_keys", {})
    state = model.state_dict()
    return {name: tuple(tensor.shape) for name, tensor in state.items() if name not in again}


def compare(folder: Path, found: Shapes, expected: Shapes) -> Differences:
    """Compare the shapes of one model with those that its configuration describes."""
    if folder.name == "text_encoder":
        # A file of a whole language model is read as one of its encoder, without the head.
        found = {name.removeprefix("model."): shape for name, shape in found.items()}
        found = {name: shape for name, shape in found.items() if name in expected}
    return Differences.between(found, expected)


def read_json(file: Path) -> dict[str, Any]:
    """An object that a file holds.

    Raises:
        LuminaError: If the file cannot be read, or holds anything else.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise LuminaError(f"cannot read {file}: {error.strerror}", hint=AGAIN) from error
    except ValueError:
        raise LuminaError(f"{file} is damaged: not JSON", hint=AGAIN) from None
    if not isinstance(content, dict):
        raise LuminaError(f"{file} is damaged: not an object", hint=AGAIN)
    return content
