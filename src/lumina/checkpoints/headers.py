"""Headers of safetensors files: what a file holds, before any weight is read."""

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

from lumina.errors import LuminaError

AGAIN = "copy the checkpoint again, or run `lumina get` again if it came from the hub"
"""What to do about a file that is damaged or missing."""

BITS = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 8),
}
"""Size of each type of number that the format has, but for those of less than a byte."""

_LFS_POINTER = b"version https://git-lfs"


class Entry(NamedTuple):
    """One tensor of a file."""

    dtype: str
    shape: tuple[int, ...]


class Header(NamedTuple):
    """What a file says about itself."""

    entries: dict[str, Entry]
    metadata: dict[str, str]


def refuse_pointer(file: Path) -> None:
    """Refuse what Git leaves in place of a large file that it did not fetch.

    Raises:
        LuminaError: If the file is such a pointer, or is not there.
    """
    if not file.is_file():
        raise LuminaError(f"{file} is missing", hint=AGAIN)
    with file.open("rb") as stream:
        if stream.read(len(_LFS_POINTER)) == _LFS_POINTER:
            raise LuminaError(
                f"{file} is a pointer of Git LFS, not the weights",
                hint="run `git lfs pull` in its folder",
            )


def format_of(file: Path) -> str:
    """Format of a file of weights, told by its first bytes: "safetensors", "gguf" or "pickle".

    Raises:
        LuminaError: If the file is missing or a pointer of Git LFS.
    """
    refuse_pointer(file)
    with file.open("rb") as stream:
        start = stream.read(9)
    if start.startswith(b"GGUF"):
        return "gguf"
    # A file that ends so and begins otherwise is a damaged one.
    is_safetensors = start[8:] == b"{" or file.suffix == ".safetensors"
    return "safetensors" if is_safetensors else "pickle"


def read_header(file: Path) -> Header:
    """Read the header of a file, and check that the file is as long as it says.

    Raises:
        LuminaError: If the file is missing, damaged, cut off or a pointer of Git LFS.
    """
    refuse_pointer(file)
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        text = stream.read(length) if length <= size else b""
    try:
        content: dict[str, Any] = json.loads(text)
        metadata = content.pop("__metadata__", None) or {}
        end = 8 + length + max((_end_of(facts) for facts in content.values()), default=0)
    except (ValueError, TypeError, KeyError, AttributeError):
        raise LuminaError(f"{file} is damaged", hint=AGAIN) from None
    if size < end:
        raise LuminaError(f"{file} is cut off: {size:,} of {end:,} bytes", hint=AGAIN)
    if size > end:
        raise LuminaError(f"{file} is damaged: {size - end:,} bytes too many", hint=AGAIN)
    entries = {
        name: Entry(facts["dtype"], tuple(facts["shape"])) for name, facts in content.items()
    }
    return Header(entries, metadata)


def _end_of(facts: dict[str, Any]) -> int:
    """Where a tensor ends.

    Raises:
        ValueError: If it does not take the room that its shape needs.
    """
    begin, end = facts["data_offsets"]
    bits = BITS.get(facts["dtype"])
    if bits is not None and end - begin != math.prod(facts["shape"]) * bits // 8:
        raise ValueError(facts)
    return end
