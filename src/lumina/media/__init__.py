"""Files that are results, with the request that made them stored inside."""

import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from lumina.errors import LuminaError
from lumina.media.files import (
    free_path,
    make_folder,
    refuse_existing,
    refuse_unwritable,
    slug,
    write_whole,
)
from lumina.media.pictures import (
    make_grid,
    make_table,
    open_picture,
    put_side_by_side,
    see_on,
    stack,
    write_png,
)

__all__ = [
    "free_path",
    "make_folder",
    "make_grid",
    "make_table",
    "open_picture",
    "put_side_by_side",
    "read_record",
    "refuse_existing",
    "refuse_missing_writer",
    "refuse_unwritable",
    "see_on",
    "slug",
    "stack",
    "write_png",
    "write_result",
    "write_whole",
]


class _Format(NamedTuple):
    """Where a kind of file is written and its record read, and what that needs."""

    module: str
    writer: str
    reader: str
    needs: str = ""
    extra: str = ""


_FORMATS = {
    ".png": _Format("pictures", "write_png", "read_png_record"),
    ".mp4": _Format("video", "write_mp4", "read_mp4_record", "av", "video"),
    ".gif": _Format("video", "write_gif", "read_gif_record"),
    ".wav": _Format("sound", "write_sound", "read_sound_record", "soundfile", "sound"),
    ".flac": _Format("sound", "write_sound", "read_sound_record", "soundfile", "sound"),
    ".ply": _Format("ply", "write_ply", "read_ply_record"),
    ".html": _Format("point_viewer", "write_viewer", "read_viewer_record"),
}


def write_result(
    path: Path, medium: Any, record: dict[str, Any], *, force: bool = False, **facts: Any
) -> None:
    """Write a medium in the format that the name of its file says.

    Args:
        path: A file in a folder that exists.
        medium: A picture, a clip, a sound ...
        record: How it was made; anything that JSON can hold.
        force: Replace a file of that name.
        facts: What the format needs to know besides, such as the frame rate of a clip.

    Raises:
        LuminaError: If the file exists and is not to be replaced, or cannot be written.
    """
    refuse_missing_writer(path)
    _find(path, "writer")(path, medium, record, force=force, **facts)


def read_record(path: str | Path) -> dict[str, Any]:
    """How a medium was made, out of its file.

    Raises:
        LuminaError: If there is no such file, or it was not made by lumina.
    """
    path = Path(path)
    known = path if path.suffix.lower() in _FORMATS else Path("any.png")
    refuse_missing_writer(known)
    return _find(known, "reader")(path)


def refuse_missing_writer(path: Path) -> None:
    """Raise a `LuminaError` if a format is unknown, or its library is not installed."""
    kind = _FORMATS.get(path.suffix.lower())
    if kind is None:
        raise LuminaError(
            f"{path} has an ending that is not known", hint=f"choose one of {', '.join(_FORMATS)}"
        )
    if kind.needs and importlib.util.find_spec(kind.needs) is None:
        raise LuminaError(
            f"{path.suffix} files need the package {kind.needs!r}, which is not installed",
            hint=f"pip install 'lumina-t2x[{kind.extra}]'",
        )


def _find(path: Path, what: str) -> Callable[..., Any]:
    kind = _FORMATS[path.suffix.lower()]
    return getattr(importlib.import_module(f"lumina.media.{kind.module}"), getattr(kind, what))
