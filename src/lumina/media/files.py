"""Files that are results: names that are free, and content that is complete or not there."""

import json
import os
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lumina.errors import LuminaError

SLUG_BYTES = 120
"""Longest part of a file name that comes from a prompt; systems allow 255 bytes in all."""


def write_whole(path: Path, content: bytes | memoryview, *, force: bool = False) -> None:
    """Write a file so that its name appears only when it is complete.

    Raises:
        LuminaError: If the file exists and is not to be replaced, or cannot be written.
    """
    if not force:
        refuse_existing(path)
    unfinished = path.with_name(f".lumina-{os.getpid()}.part")
    try:
        with unfinished.open("xb") as file:
            file.write(content)
        unfinished.replace(path)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        unfinished.unlink(missing_ok=True)


def parse_record(path: Path, text: str | None, *, hint: str) -> dict[str, Any]:
    """What a file says of how it was made.

    Args:
        path: The file.
        text: What it says, as JSON. None: nothing.
        hint: What to give instead, where it is of no use.

    Raises:
        LuminaError: If that is nothing of the kind.
    """
    refusal = LuminaError(f"{path} does not say how it was made", hint=hint)
    try:
        record = json.loads(text or "")
    except ValueError as error:
        raise refusal from error
    if not isinstance(record, dict):
        raise refusal
    return record


def refuse_existing(path: Path) -> None:
    """Raise a `LuminaError` if there is a file of that name."""
    if path.exists():
        raise LuminaError(f"{path} exists", hint="--force replaces it")


def refuse_unwritable(path: Path) -> None:
    """Raise a `LuminaError` if no file of that name could be written."""
    if path.is_dir():
        raise LuminaError(f"{path} is a folder", hint="name a file in it")
    trial = path.with_name(f".lumina-{os.getpid()}.trial")
    try:
        trial.touch(exist_ok=False)
        trial.unlink()
    except OSError as error:
        raise _unwritable(path, error) from error


def make_folder(path: Path) -> None:
    """Make a folder for results if it is not there.

    Raises:
        LuminaError: If that is not possible.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LuminaError(
            f"cannot make the folder {path}: {error.strerror}", hint="choose another place"
        ) from error


def slug(prompt: str) -> str:
    """A part of a file name that reads like the prompt, in the prompt's own script."""
    words = [""]
    for character in unicodedata.normalize("NFC", prompt.lower()):
        category = unicodedata.category(character)[0]
        # A mark, such as a vowel sign of Devanagari, belongs to the letter before it.
        if category in "LN" or (category == "M" and words[-1]):
            words[-1] += character
        elif words[-1]:
            words.append("")
    text = "-".join(word for word in words if word)
    return text.encode()[:SLUG_BYTES].decode(errors="ignore").strip("-") or "picture"


def free_path(path: Path, beside: Callable[[Path], Sequence[Path]] = lambda path: ()) -> Path:
    """This path, with the first number that makes it new if it exists.

    Args:
        path: A file or a folder.
        beside: Files that go with one of that name, which have to be new as well.
    """
    number, candidate = 1, path
    while any(file.exists() for file in (candidate, *beside(candidate))):
        number += 1
        candidate = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return candidate


def _unwritable(path: Path, error: OSError) -> LuminaError:
    return LuminaError(
        f"cannot write {path}: {error.strerror}", hint="choose another place with -o"
    )
