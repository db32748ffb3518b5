"""What a checkpoint is, told without reading its weights."""

import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lumina.checkpoints.folder import (
    DIFFERENCE,
    INDEX,
    OPENED_BY_US,
    base_of,
    compare,
    expected_shapes,
    part_folder,
    read_config,
    read_json,
    weight_files,
)
from lumina.checkpoints.headers import read_header
from lumina.checkpoints.keys import is_copy
from lumina.checkpoints.kinds import KINDS
from lumina.checkpoints.network import Network, find_network
from lumina.checkpoints.shapes import Differences, Shapes
from lumina.checkpoints.weights import Weights, open_file
from lumina.errors import LuminaError

_ROUTINGS = {"time": "time", "space": "space", "both": "time and by space"}
_LIBRARIES = ("diffusers", "transformers")


def describe(path: str | Path, config: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Say what a file or folder holds.

    Args:
        path: A network in any format, one other model in diffusers' layout, or a whole pipeline.
        config: Arguments of a network that its weights do not tell.

    Returns:
        What to print, as texts, numbers and lists. A pipeline has one more such dict for each of
        its `parts`.

    Raises:
        LuminaError: If it is no checkpoint, a file is missing or damaged, or it is of a family that
            is not known.
    """
    path = Path(path)
    if (path / INDEX).is_file():
        _refuse_config(path, config)
        return _describe_pipeline(path)
    if (path / DIFFERENCE).is_file():
        _refuse_config(path, config)
        return _describe_difference(path)
    settings = read_config(path) if (path / "config.json").is_file() else {}
    if settings.get("_class_name") in KINDS and "quantization_config" in settings:
        _refuse_config(path, config)
        return _describe_quantized_network(path, settings)
    if settings and settings.get("_class_name") not in KINDS:
        _refuse_config(path, config)
    if names := settings.get("architectures"):
        return _describe_model(path, ["transformers", names[0]])
    if settings and settings.get("_class_name") not in KINDS:
        return _describe_model(path, ["diffusers", str(settings.get("_class_name"))])
    return _describe_network(find_network(path, config or {}))


def lines(facts: Mapping[str, Any], indent: str = "") -> list[str]:
    """A description as lines of text."""
    text = []
    for name, value in facts.items():
        if name == "parts":
            for part, others in value.items():
                text += ["", f"{indent}{part}", *lines(others, indent + "  ")]
        elif name == "config":
            text += [f"{indent}{name}", *lines(value, indent + "  ")]
        elif isinstance(value, list):
            text += [f"{indent}{name}: {len(value)}", *(f"{indent}  {entry}" for entry in value)]
        else:
            shown = f"{value:,}" if name == "parameters" else value
            text.append(f"{indent}{name}: {shown}")
    return text


def _refuse_config(path: Path, config: Mapping[str, Any] | None) -> None:
    if config:
        raise LuminaError(
            f"{path} has its own configuration: {', '.join(config)} cannot be changed",
            hint="give the folder or file of a network alone, or leave --config out",
        )


def _describe_network(network: Network) -> dict[str, Any]:
    model = network.build()
    others = {"other weights": network.unread, "assumed": network.assumed}
    return {
        "path": network.where,
        "format": network.format,
        "family": _family(network.kind, model.config),
        "class": network.kind,
        **_facts(
            {name: weight for name, weight in network.weights.items() if not is_copy(name)},
            [file.name for file in network.files],
        ),
        "config": {k: v for k, v in model.config.items() if not k.startswith("_")},
        **_told(network.differences(model)),
        **{name: names for name, names in others.items() if names},
    }


def _family(kind: str, config: Mapping[str, Any]) -> str:
    name = {"NextDiT": "Next-DiT", "FlagDiT": "Flag-DiT"}[kind]
    if config["num_classes"] is not None:
        condition = f"of {config['num_classes']} classes"
    else:
        condition = f"of text with {config['cross_attention_dim']} channels"
    routing = config.get("moe_routing")
    experts = f", experts chosen by {_ROUTINGS[routing]}" if routing else ""
    return f"{name} {condition}{experts}"


def _describe_pipeline(folder: Path) -> dict[str, Any]:
    index = read_json(folder / INDEX)
    sources = {name: source for name, source in index.items() if isinstance(source, list)}
    parts = {
        name: _describe_part(part_folder(folder, name), source) for name, source in sources.items()
    }
    return {
        "path": str(folder),
        "format": "diffusers pipeline",
        "class": str(index.get("_class_name")).removesuffix(OPENED_BY_US),
        "parameters": sum(part.get("parameters", 0) for part in parts.values()),
        "parts": parts,
    }


def _describe_part(folder: Path, source: list[Any]) -> dict[str, Any]:
    if not all(source):
        return {"class": "none"}
    if not folder.is_dir():
        return {"class": source[1], "missing": [folder.name]}
    if (folder / DIFFERENCE).is_file():
        return _describe_difference(folder)
    if source[1] in KINDS:
        return describe(folder)
    # Tokenizers and schedulers have no weights.
    has_weights = (folder / "config.json").is_file() and source[0] in _LIBRARIES
    return _describe_model(folder, source) if has_weights else {"class": source[1]}


def _describe_difference(folder: Path) -> dict[str, Any]:
    config = read_config(folder)
    return {
        "path": str(folder),
        "class": config.get("_class_name") or config.get("architectures", ["unknown"])[0],
        "differs from": str(part_folder(base_of(folder.parent), folder.name)),
        **_facts(open_file(folder / DIFFERENCE), [DIFFERENCE]),
    }


def _describe_model(folder: Path, source: list[str]) -> dict[str, Any]:
    """Describe a model that is no network of the family."""
    files = weight_files(folder)
    config = read_config(folder)
    if "quantization_config" in config:
        shapes = expected_shapes(folder, source)
        return {"path": str(folder), "class": source[1], **_quantized(config, shapes, files)}
    weights: dict[str, Any] = {}
    for file in files:
        weights |= open_file(file)
    found = {name: weight.shape for name, weight in weights.items()}
    told = _told(compare(folder, found, expected_shapes(folder, source)))
    return {
        "path": str(folder),
        "class": source[1],
        **_facts(weights, [file.name for file in files]),
        **told,
    }


def _describe_quantized_network(folder: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    network = Network(
        where=str(folder),
        format="diffusers",
        files=weight_files(folder),
        kind=KINDS[settings["_class_name"]].__name__,
        config=dict(settings),
        weights={},
        unread=[],
        assumed=[],
    )
    model = network.build()
    shapes = {k: v.shape for k, v in model.state_dict().items() if not is_copy(k)}
    return {
        "path": network.where,
        "format": network.format,
        "family": _family(network.kind, model.config),
        "class": network.kind,
        **_quantized(settings, shapes, network.files),
        "config": {k: v for k, v in model.config.items() if not k.startswith("_")},
    }


def _quantized(config: Mapping[str, Any], shapes: Shapes, files: list[Path]) -> dict[str, Any]:
    """What is known of weights that only the library that quantized them can read.

    Args:
        config: Of the model.
        shapes: Shapes of the weights before they were quantized.
        files: Where they are.
    """
    counts = Counter[str]()
    for file in files:
        if file.suffix == ".safetensors":
            for entry in read_header(file).entries.values():
                counts[entry.dtype.lower()] += math.prod(entry.shape)
    return {
        "quantized by": config["quantization_config"].get("quant_method", "an unknown library"),
        "parameters": sum(map(math.prod, shapes.values())),
        "dtype": ", ".join(name for name, _ in counts.most_common()) or "unknown",
        "files": [file.name for file in files],
    }


def _facts(weights: Weights, files: list[str]) -> dict[str, Any]:
    counts = Counter[str]()
    for weight in weights.values():
        counts[str(weight.dtype).removeprefix("torch.")] += math.prod(weight.shape)
    return {
        "parameters": counts.total(),
        "dtype": ", ".join(name for name, _ in counts.most_common()),
        "files": files,
    }


def _told(differences: Differences) -> dict[str, list[str]]:
    reshaped = [
        f"{name}: {found}, not {expected}"
        for name, (found, expected) in differences.reshaped.items()
    ]
    told = {
        "missing": differences.missing,
        "unexpected": differences.unexpected,
        "of another shape": reshaped,
    }
    return {name: names for name, names in told.items() if names or name != "of another shape"}
