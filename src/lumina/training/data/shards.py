"""Pictures in tar files, in the layout of WebDataset, read from any place in them."""

import re
import tarfile
from collections.abc import Iterator
from glob import glob
from pathlib import Path
from typing import NamedTuple

from lumina.errors import LuminaError
from lumina.training.data.decoding import BrokenPictureError, FilePlace
from lumina.training.data.examples import Found
from lumina.training.data.gathering import (
    SUFFIXES,
    Gathering,
    Notes,
    parse,
    read_notes,
    split_lines,
    strip,
)
from lumina.training.data.sources import WebdatasetSource

RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
RECORD_BYTES = 1 << 24  # a longer caption or number is none


class Member(NamedTuple):
    """One file in a tar file: the example it belongs to, what it is, and where."""

    stem: str
    suffix: str
    place: FilePlace


def find_in_shards(source: WebdatasetSource) -> Found:
    """Pictures of all shards, in their order.

    Beside `0001.jpg` may be captions, as `0001.txt` or in `0001.json`, and the number of a
    class, as `0001.cls`. A shard that is cut off is one broken picture more.

    Raises:
        LuminaError: If a shard is not there, or is compressed.
    """
    gathering = Gathering(source.title, clean=source.clean)
    for shard in list_shards(source.path):
        for stem, members in _examples(shard, gathering):
            picture = next((member for member in members if f".{member.suffix}" in SUFFIXES), None)
            if picture is None:
                continue
            with gathering.finding(f"{shard.name}: {stem}"):
                gathering.add(f"{shard.name}: {stem}", picture.place, _notes(members))
    return gathering.found()


def list_shards(pattern: str) -> list[Path]:
    """Tar files of a pattern, by name.

    Args:
        pattern: With `*` for any letters, and `{000..009}` for a range of numbers, all of which
            have to be there.

    Raises:
        LuminaError: If there are none, one of a range is missing, or one is compressed.
    """
    paths = [Path(name) for part in _expand(pattern) for name in _matching(part)]
    for path in paths:
        if path.suffix != ".tar":
            raise LuminaError(
                f"{path} is not a .tar file", hint="unpack .tar.gz: a part of it cannot be read"
            )
    return paths


def _expand(pattern: str) -> list[str]:
    match = RANGE.search(pattern)
    if match is None:
        return [pattern]
    first, last = int(match[1]), int(match[2])
    numbers = [str(number).zfill(len(match[1])) for number in range(first, last + 1)]
    return [part for number in numbers for part in _expand(pattern.replace(match[0], number, 1))]


def _matching(pattern: str) -> list[str]:
    found = sorted(glob(str(Path(pattern).expanduser())))  # noqa: PTH207  (takes whole paths)
    if not found:
        raise LuminaError(
            f"there is no file {pattern}", hint=f"it was looked for from {Path.cwd()}"
        )
    return found


def _examples(shard: Path, gathering: Gathering) -> Iterator[tuple[str, list[Member]]]:
    """Members of each example: neighbours that are called the same up to the first dot."""
    members: list[Member] = []
    for member in _members(shard, gathering):
        if members and members[0].stem != member.stem:
            yield members[0].stem, members
            members = []
        members.append(member)
    if members:
        yield members[0].stem, members


def _members(shard: Path, gathering: Gathering) -> Iterator[Member]:
    size = shard.stat().st_size
    end = 0
    try:
        with tarfile.open(shard, "r:") as tar:
            for entry in tar:
                end = entry.offset_data + entry.size
                if entry.isfile() and end <= size:
                    yield _member(shard, entry)
    except tarfile.TarError as error:
        _count_broken(gathering, shard, str(error))
        return
    if end > size:
        _count_broken(gathering, shard, f"cut off: {size:,} of {end:,} bytes")


def _count_broken(gathering: Gathering, shard: Path, reason: str) -> None:
    with gathering.finding(shard.name):
        raise BrokenPictureError(reason)


def _member(shard: Path, entry: tarfile.TarInfo) -> Member:
    folder, slash, name = entry.name.rpartition("/")
    stem, _, suffix = name.partition(".")
    place = FilePlace(shard, entry.offset_data, entry.size)
    return Member(f"{folder}{slash}{stem}", suffix.lower(), place)


def _notes(members: list[Member]) -> Notes:
    texts = {member.suffix: member.place for member in members}
    notes = Notes()
    if "json" in texts:
        notes = read_notes(parse(_text(texts["json"]), "its .json"))
    if "txt" in texts:
        lines = split_lines(_text(texts["txt"]))
        notes = notes._replace(captions=notes.captions + strip(lines))
    if "cls" in texts:
        notes = notes._replace(label=_number(_text(texts["cls"])))
    return notes


def _text(place: FilePlace) -> str:
    with place.open() as stream:
        content = stream.read(RECORD_BYTES)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BrokenPictureError("what stands beside it is not UTF-8") from error


def _number(text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise BrokenPictureError(f"its .cls is {text!r}, not a whole number") from error
