"""Pictures that files of JSON list: one object a line, or the format of the original release."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from lumina.errors import LuminaError, UnknownNameError
from lumina.training.data.decoding import BrokenPictureError, FilePlace
from lumina.training.data.examples import Found
from lumina.training.data.gathering import (
    Gathering,
    Notes,
    parse,
    read_notes,
    split_lines,
    strip,
)
from lumina.training.data.sources import JsonlSource, OriginalSource

META_FIELDS = ("path", "root", "type", "ratio")
"""What an entry of META may have. `type` names a group and changes nothing."""

PATH_FIELDS = ("path", "image_url", "image")
"""Fields of an item that hold the path of its picture."""

RATIO_SEED = 0


def find_in_jsonl(source: JsonlSource) -> Found:
    """Pictures that a file lists, by line; paths in it are relative to `root`."""
    path = Path(source.path).expanduser()
    root = Path(source.root).expanduser() if source.root else path.parent
    gathering = Gathering(source.title, clean=source.clean)
    for line, text in _lines(path):
        with gathering.finding(f"line {line}"):
            record = parse(text, "it")
            place = record.get(source.image)
            if not isinstance(place, str):
                raise BrokenPictureError(f"its {source.image} is {place!r}, not a path")
            notes = read_notes(record, source.caption, source.label)
            gathering.add(place, FilePlace(root / place), notes)
    return gathering.found()


def find_in_original(source: OriginalSource) -> Found:
    """Pictures of a data recipe of the original release.

    Relative paths of the files of META are relative to the YAML file, and those of pictures to
    `root`, or without one to the file that lists them.

    Raises:
        LuminaError: If the YAML or a file that it lists cannot be read.

    Source:
        `lumina_next_t2i/data/` of the original release, which took paths from the folder that
        it was started in.
    """
    path = Path(source.path).expanduser()
    gathering = Gathering(source.title, clean=source.clean)
    entries = [_check_entry(entry, path) for entry in _read_meta(path)]
    for entry in entries:
        file = path.parent / entry["path"]
        root = path.parent / entry["root"] if entry.get("root") else file.parent
        for number, item in _kept(_read_items(file), entry.get("ratio", 1.0)):
            with gathering.finding(f"{entry['path']}: item {number}"):
                place, notes = _read_item(item)
                gathering.add(place, FilePlace(root / place), notes)
    return gathering.found()


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines that are not empty, with their numbers from 1."""
    for number, line in enumerate(split_lines(_read(path)), 1):
        if line.strip():
            yield number, line


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise LuminaError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise LuminaError(f"{path} is not UTF-8") from error


def _read_meta(path: Path) -> list[Any]:
    try:
        content = yaml.safe_load(_read(path))
    except yaml.YAMLError as error:
        raise LuminaError(f"{path} is not valid YAML: {str(error).splitlines()[0]}") from error
    entries = content.get("META") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not entries:
        raise LuminaError(f"{path} has no list META", hint="such as META: [{path: data.json}]")
    return entries


def _check_entry(entry: Any, config: Path) -> dict[str, Any]:
    if not isinstance(entry, dict) or not isinstance(entry.get("path"), str):
        raise LuminaError(f"an entry of META in {config} has no path: {entry!r}")
    for name in entry:
        if name not in META_FIELDS:
            raise UnknownNameError.among(META_FIELDS, str(name), kind="field of META")
    file = config.parent / entry["path"]
    if not file.is_file():
        raise LuminaError(f"there is no file {file}", hint=f"{config} lists it")
    ratio = entry.get("ratio", 1.0)
    if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 0 < ratio <= 1:
        raise LuminaError(
            f"ratio is {ratio!r}, not above 0 and up to 1",
            hint="to draw more often from some data, give them a source with a weight",
        )
    return entry


def _read_items(file: Path) -> list[Any]:
    if file.suffix == ".jsonl":
        return [_item_of(line) for _, line in _lines(file)]
    try:
        items = json.loads(_read(file))
    except ValueError as error:
        raise LuminaError(f"{file} is not JSON: {error}") from error
    if not isinstance(items, list):
        raise LuminaError(f"{file} is not a list of items")
    return items


def _item_of(line: str) -> Any:
    """The item of a line, or nothing that is one, so that it is counted as broken."""
    try:
        return json.loads(line)
    except ValueError:
        return None


def _kept(items: list[Any], ratio: float) -> list[tuple[int, Any]]:
    """A share of items, always the same ones, with their numbers."""
    count = max(1, int(len(items) * ratio)) if items else 0
    chosen = np.random.default_rng(RATIO_SEED).permutation(len(items))[:count]
    return [(int(number), items[number]) for number in sorted(chosen)]


def _read_item(item: Any) -> tuple[str, Notes]:
    if not isinstance(item, dict):
        raise BrokenPictureError("it is not an object of JSON")
    place = next((item[name] for name in PATH_FIELDS if isinstance(item.get(name), str)), None)
    if place is None:
        raise BrokenPictureError(f"it has none of {', '.join(PATH_FIELDS)}")
    if "://" in place:
        raise BrokenPictureError(f"{place} is not a path: copy it to a folder first")
    if "conversations" not in item:
        return place, read_notes(item)
    return place, read_notes({**item, "caption": _answers(item["conversations"])})


def _answers(turns: Any) -> list[str]:
    """What the model's turns of a conversation say."""
    if not isinstance(turns, list) or not all(isinstance(turn, Mapping) for turn in turns):
        raise BrokenPictureError("its conversations are not a list of turns")
    return list(strip([str(turn.get("value", "")) for turn in turns if turn.get("from") == "gpt"]))
