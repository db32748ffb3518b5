"""Tensors kept in files by the hash of what they were computed from."""

import hashlib
import json
import os
import time
import uuid
import zlib
from collections import defaultdict
from collections.abc import Mapping
from io import BufferedReader
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import save
from torch import Tensor

from lumina.errors import LuminaError
from lumina.media import make_folder

CHECKSUMS = "crc32"
"""Metadata of a shard: checksums of the bytes of each tensor, as JSON."""

SHARD, UNFINISHED = ".safetensors", ".part"
ABANDONED_SECONDS = 24 * 3600  # what is still unfinished after this has lost its writer
DTYPES = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32}

Entry = dict[str, Tensor]
"""The tensors of one key, by name."""


class Span(NamedTuple):
    """Where a tensor is in a shard, and what it is."""

    name: str
    start: int
    stop: int
    dtype: str
    shape: tuple[int, ...]
    checksum: int


class Place(NamedTuple):
    """Where the tensors of a key are."""

    shard: Path
    spans: tuple[Span, ...]


class Cache:
    """A folder of shards, each a safetensors file with the tensors of many keys.

    A shard appears under its name when it is complete, and its header is the index of what it
    holds. So a writer that is killed leaves nothing half done, and any number of processes may
    write to one folder. Every tensor has a checksum: entries that are damaged are counted in
    `damaged` and are as if they were not there. A shard that cannot be read at all counts as one.

    Args:
        folder: Is made if it is not there.

    Raises:
        LuminaError: If the folder cannot be made.
    """

    def __init__(self, folder: Path):
        make_folder(folder)
        self.damaged = 0
        self._folder = folder
        self._places: dict[str, list[Place]] = defaultdict(list)
        self._known: set[Path] = set()
        self._bad: set[Path] = set()
        self.refresh()

    def __len__(self) -> int:
        return sum(map(bool, self._places.values()))

    def refresh(self) -> None:
        """Learn what other processes have written since."""
        for shard in sorted(set(self._folder.glob(f"*{SHARD}")) - self._known):
            self._take_up(shard)

    def read(self, key: str) -> Entry | None:
        """The tensors of a key, or None where there are none that are whole."""
        entry = self._read_known(key)
        if entry is None:
            self.refresh()
            entry = self._read_known(key)
        return entry

    def write(self, entries: Mapping[str, Entry]) -> None:
        """Keep the tensors of some keys, in one new shard.

        Raises:
            LuminaError: If the shard cannot be written. What was there before stays as it is.
        """
        named = hashlib.sha256("\n".join(sorted(entries)).encode()).hexdigest()[:24]
        shard = self._folder / f"{named}{SHARD}"
        _write_whole(shard, _pack(entries))
        self._forget(shard)
        self._take_up(shard)

    def tidy(self) -> None:
        """Move what is whole out of damaged shards, and remove them and what is unfinished.

        Raises:
            LuminaError: If a shard cannot be written.
        """
        for shard in sorted(self._bad):
            places = _read_index(shard) or {}
            entries = {key: _read_entry(place) for key, place in places.items()}
            whole = {key: entry for key, entry in entries.items() if entry is not None}
            if places and len(whole) == len(places):  # another process has written it anew
                continue
            if whole:
                self.write(whole)
            self._forget(shard)
            shard.unlink(missing_ok=True)
        self._bad.clear()
        self._remove_abandoned()

    def _read_known(self, key: str) -> Entry | None:
        places = self._places.get(key, [])
        while places:
            entry = _read_entry(places[-1])
            if entry is not None:
                return entry
            place = places.pop()
            if place.shard.exists():  # else another process has tidied it away
                self.damaged += 1
                self._bad.add(place.shard)
        return None

    def _take_up(self, shard: Path) -> None:
        self._known.add(shard)
        index = _read_index(shard)
        if index is None:
            self.damaged += 1
            self._bad.add(shard)
            return
        for key, place in index.items():
            self._places[key].append(place)

    def _forget(self, shard: Path) -> None:
        if shard not in self._known:
            return
        self._known.remove(shard)
        self._bad.discard(shard)
        for places in self._places.values():
            places[:] = [place for place in places if place.shard != shard]

    def _remove_abandoned(self) -> None:
        for file in self._folder.glob(f"*{UNFINISHED}"):
            if time.time() - file.stat().st_mtime > ABANDONED_SECONDS:
                file.unlink(missing_ok=True)


def _pack(entries: Mapping[str, Entry]) -> bytes:
    tensors = {
        f"{key}.{name}": tensor.detach().cpu().contiguous()
        for key, entry in entries.items()
        for name, tensor in entry.items()
    }
    checksums = {name: zlib.crc32(_bytes_of(tensor)) for name, tensor in tensors.items()}
    return save(tensors, {CHECKSUMS: json.dumps(checksums)})


def _bytes_of(tensor: Tensor) -> bytes:
    return tensor.flatten().view(torch.uint8).numpy().tobytes()


def _write_whole(path: Path, content: bytes) -> None:
    """Write a file that appears under its name when it is complete and on the disk."""
    unfinished = path.with_name(f"{path.stem}-{uuid.uuid4().hex[:12]}{UNFINISHED}")
    try:
        with unfinished.open("xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        unfinished.replace(path)
    except OSError as error:
        raise LuminaError(
            f"cannot write to the cache {path.parent}: {error.strerror}",
            hint="what is complete stays: make room and start again",
        ) from error
    finally:
        unfinished.unlink(missing_ok=True)


def _read_index(shard: Path) -> dict[str, Place] | None:
    """Where the tensors of each key of a shard are, or None where its header is damaged."""
    try:
        with shard.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(min(length, shard.stat().st_size)))
        checksums = json.loads(header.pop("__metadata__")[CHECKSUMS])
        spans: dict[str, list[Span]] = defaultdict(list)
        for full_name, facts in header.items():
            key, _, name = full_name.partition(".")
            start, stop = (8 + length + offset for offset in facts["data_offsets"])
            span = Span(
                name, start, stop, facts["dtype"], tuple(facts["shape"]), checksums[full_name]
            )
            spans[key].append(span)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return {key: Place(shard, tuple(parts)) for key, parts in spans.items()}


def _read_entry(place: Place) -> Entry | None:
    """Tensors of a place, or None where the file is gone or their bytes are not what they were."""
    try:
        with place.shard.open("rb") as stream:
            return {span.name: _read_tensor(stream, span) for span in place.spans}
    except (OSError, _DamagedError):
        return None


def _read_tensor(stream: BufferedReader, span: Span) -> Tensor:
    stream.seek(span.start)
    content = stream.read(span.stop - span.start)
    if zlib.crc32(content) != span.checksum or span.dtype not in DTYPES:
        raise _DamagedError
    return torch.frombuffer(bytearray(content), dtype=DTYPES[span.dtype]).reshape(span.shape)


class _DamagedError(Exception):
    """A tensor's bytes are not what they were."""
