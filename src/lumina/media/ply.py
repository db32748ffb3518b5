"""Point clouds as PLY files, with the request that made them in a comment."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from lumina.errors import LuminaError
from lumina.media.files import parse_record, write_whole

RECORD_KEY = "lumina"
"""Word at the beginning of the comment that holds the record."""

COORDINATES = ("x", "y", "z")
MOST_BYTES = 256 * 2**20
"""Largest file that is read."""

MOST_HEADER_BYTES = 2**20
MOST_DIGITS = 12
"""Of a number of points; no file that is read has more."""

NUMBERS = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1",
    "short": "i2", "int16": "i2", "ushort": "u2", "uint16": "u2",
    "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4",
    "float": "f4", "float32": "f4", "double": "f8", "float64": "f8",
}  # fmt: skip
"""Types of numbers in a PLY file, by both names of each."""

ORDERS = {"binary_little_endian": "<", "binary_big_endian": ">", "ascii": "="}


def ply_bytes(points: Float[np.ndarray, "n 3"], record: dict[str, Any]) -> bytes:
    """A PLY file of points, as binary numbers of 4 bytes.

    Args:
        points: In any unit; z is up.
        record: How it was made; anything that JSON can hold.
    """
    # JSON has no line breaks of its own, and ASCII keeps old readers from tripping over letters.
    header = [
        "ply",
        "format binary_little_endian 1.0",
        f"comment {RECORD_KEY} {json.dumps(record)}",
        f"element vertex {len(points)}",
        *(f"property float {name}" for name in COORDINATES),
        "end_header",
    ]
    return "\n".join([*header, ""]).encode("ascii") + points.astype("<f4").tobytes()


def write_ply(
    path: Path, points: Float[np.ndarray, "n 3"], record: dict[str, Any], *, force: bool = False
) -> None:
    """Write points as a PLY file.

    Args:
        path: A file in a folder that exists.
        points: In any unit; z is up.
        record: How it was made.
        force: Replace a file of that name.

    Raises:
        LuminaError: If the file exists and is not to be replaced, or cannot be written.
    """
    write_whole(path, ply_bytes(points, record), force=force)


def read_points(path: Path) -> Float[np.ndarray, "n 3"]:
    """The points of a PLY file of any program: corners, if it is of a mesh.

    Raises:
        LuminaError: If it cannot be read, is larger than 256 MB, or is no PLY file with points.
    """
    data = _read(path, MOST_BYTES)
    lines, begin = _header(path, data)
    form, count, names, types = _vertices(path, lines)
    order = ORDERS[form]
    row = np.dtype([(name, order + kind) for name, kind in zip(names, types, strict=True)])
    try:
        if form == "ascii":
            table = _read_text(data[begin:], count, len(names))
            columns = [table[:, names.index(name)] for name in COORDINATES]
        else:
            table = np.frombuffer(data, row, count, begin)
            columns = [table[name] for name in COORDINATES]
    except ValueError as error:
        raise LuminaError(f"{path} ends before its last point", hint=_ANY_PLY) from error
    points = np.stack(columns, 1).astype(np.float32)
    if not np.isfinite(points).all():
        raise LuminaError(f"{path} has points that are nowhere (NaN or infinite)", hint=_ANY_PLY)
    return points


def count_points(path: Path) -> int:
    """How many points a PLY file says to have, of which only the header is read.

    Raises:
        LuminaError: If it cannot be read, is larger than 256 MB, or says nothing of points.
    """
    lines, _ = _header(path, _read(path, MOST_HEADER_BYTES))
    return _vertices(path, lines)[1]


def read_ply_record(path: Path) -> dict[str, Any]:
    """How a cloud was made, out of its file.

    Raises:
        LuminaError: If it cannot be read, or was not made by lumina.
    """
    lines, _ = _header(path, _read(path, MOST_HEADER_BYTES))
    start = f"comment {RECORD_KEY} "
    text = next((line.removeprefix(start) for line in lines if line.startswith(start)), None)
    return parse_record(path, text, hint=_FROM_LUMINA)


_ANY_PLY = "give a PLY file whose vertices have x, y and z, and no lists"
_FROM_LUMINA = "give a cloud that `lumina generate` wrote"


def _read(path: Path, most: int) -> bytes:
    """The first bytes of a file."""
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise LuminaError(
                f"{path} has {size / 2**20:.0f} MB, and {MOST_BYTES // 2**20} are read at most",
                hint="give a cloud of fewer points",
            )
        with path.open("rb") as file:
            return file.read(most)
    except OSError as error:
        raise LuminaError(
            f"cannot read {path}: {error.strerror or error}", hint=_ANY_PLY
        ) from error


def _header(path: Path, data: bytes) -> tuple[list[str], int]:
    """Lines of the header, and where the numbers begin."""
    start = data[:MOST_HEADER_BYTES]
    end = start.find(b"\nend_header")  # at the start of a line, and not in what a comment says
    line_end = start.find(b"\n", end + 1)
    if not start.startswith(b"ply") or min(end, line_end) < 0:
        raise LuminaError(f"{path} is not a PLY file", hint=_ANY_PLY)
    text = start[:end].decode("utf-8", errors="replace")
    return [line.strip() for line in text.split("\n")], line_end + 1


def _vertices(path: Path, lines: list[str]) -> tuple[str, int, list[str], list[str]]:
    """The format, and of the vertices their number and the names and types of their numbers."""
    form, count, names, types, elements = "", 0, [], [], 0
    for words in map(str.split, lines):
        if words[:1] == ["format"]:
            form = words[1] if len(words) > 1 else ""
        elif words[:1] == ["element"]:
            elements += 1
            is_number = words[-1].isdecimal() and len(words[-1]) <= MOST_DIGITS
            if elements == 1 and words[1:2] == ["vertex"] and is_number:
                count = int(words[-1])
        elif words[:1] == ["property"] and elements == 1:
            # Behind a list, which is of any length, the next point may begin anywhere.
            types.append(NUMBERS.get(words[1], "") if len(words) == 3 else "")
            names.append(words[-1])
    has_all = set(COORDINATES) <= set(names) and all(types) and len(set(names)) == len(names)
    if form not in ORDERS or count < 1 or not has_all:
        raise LuminaError(f"{path} has no points at its beginning that can be read", hint=_ANY_PLY)
    return form, count, names, types


def _read_text(data: bytes, count: int, columns: int) -> Float[np.ndarray, "n columns"]:
    rows = data.decode("ascii", errors="replace").split("\n")[:count]
    table = np.array([row.split()[:columns] for row in rows], dtype=float)
    if table.shape != (count, columns):
        raise ValueError("too few numbers")
    return table
