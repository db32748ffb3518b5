"""Files in folders: with captions beside them, or pictures in a folder for each class."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lumina.errors import LuminaError
from lumina.modalities import find_modality
from lumina.requests import read_axes
from lumina.training.data.decoding import BrokenPictureError, FilePlace, digest_of
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
from lumina.training.data.sources import ClassesSource, FolderSource, MediaSource


def find_in_folder(source: FolderSource) -> Found:
    """Pictures of a folder and of those in it, by name.

    Captions are the lines of `NAME.txt` or the fields of `NAME.json` beside `NAME.jpg`.
    """
    folder = Path(source.path).expanduser()
    gathering = Gathering(source.title, clean=source.clean)
    for picture in list_pictures(folder):
        name = picture.relative_to(folder).as_posix()
        with gathering.finding(name):
            gathering.add(name, FilePlace(picture), _notes_beside(picture, source.caption))
    return gathering.found()


def find_classes(source: ClassesSource) -> Found:
    """Pictures of a folder of classes, which are numbered in the order of their names.

    Hidden folders are none. The caption is the name of the class, with spaces for underscores.

    Raises:
        LuminaError: If the folder has no folders.
    """
    folder = Path(source.path).expanduser()
    folders = (path for path in folder.iterdir() if path.is_dir())
    classes = sorted(path for path in folders if not _is_hidden(path.relative_to(folder)))
    if not classes:
        raise LuminaError(
            f"{source.path} has no folders", hint="it needs one with the pictures of each class"
        )
    gathering = Gathering(source.title, clean=source.clean)
    for label, path in enumerate(classes):
        notes = Notes((path.name.replace("_", " "),), label)
        for picture in list_pictures(path):
            name = picture.relative_to(folder).as_posix()
            with gathering.finding(name):
                gathering.add(name, FilePlace(picture), notes)
    return gathering.found()


@dataclass(frozen=True)
class StoredMedium:
    """A sound, a clip or a cloud in a file, at a size."""

    path: Path
    modality: str
    size: tuple[int, ...]

    def check(self) -> None:
        """Read the header.

        Raises:
            BrokenPictureError: If it tells that the file cannot be read, or is too small.
        """
        with _explained():
            find_modality(self.modality).check(self.path, self.size)

    def open(self) -> np.ndarray:
        """What is trained on.

        Raises:
            BrokenPictureError: If it cannot be read, or is too small.
        """
        with _explained():
            return find_modality(self.modality).read(self.path, self.size)

    def digest(self) -> str:
        """SHA-256 of the bytes.

        Raises:
            BrokenPictureError: If they cannot be read.
        """
        return digest_of(FilePlace(self.path))


def find_media(source: MediaSource) -> Found:
    """Files of a folder and of those in it at each size, by name."""
    folder = Path(source.path).expanduser()
    gathering = Gathering(source.title, clean=source.clean)
    files = list_files(folder, find_modality(source.modality).endings)
    for size in map(read_axes, source.sizes):
        for file in files:
            name = file.relative_to(folder).as_posix()
            key = name if len(source.sizes) == 1 else f"{'x'.join(map(str, size))} {name}"
            with gathering.finding(key):
                medium = StoredMedium(file, source.modality, size)
                medium.check()
                notes = _notes_beside(file, source.caption)
                gathering.add_medium(key, medium, notes, origin=name)
    return gathering.found()


def list_pictures(folder: Path) -> list[Path]:
    """Files that are named as pictures are, in a folder and those in it; no hidden ones."""
    return list_files(folder, SUFFIXES)


def list_files(folder: Path, endings: Sequence[str]) -> list[Path]:
    """Files with one of some endings, in a folder and those in it; no hidden ones."""
    files = [path for path in folder.rglob("*") if path.suffix.lower() in endings]
    return sorted(path for path in files if not _is_hidden(path.relative_to(folder)))


def _notes_beside(picture: Path, otherwise: str) -> Notes:
    described, written = picture.with_suffix(".json"), picture.with_suffix(".txt")
    notes = Notes()
    if described.is_file():
        notes = read_notes(parse(described.read_bytes(), described.name))
    if written.is_file():
        try:
            lines = split_lines(written.read_text(encoding="utf-8-sig"))
        except UnicodeDecodeError as error:
            raise BrokenPictureError(f"{written.name} is not UTF-8") from error
        notes = notes._replace(captions=notes.captions + strip(lines))
    if not notes.captions and otherwise:
        return notes._replace(captions=(otherwise,))
    return notes


@contextmanager
def _explained() -> Iterator[None]:
    """Turn what refuses a file into the error of a medium that cannot be read."""
    try:
        yield
    except LuminaError as error:
        raise BrokenPictureError(error.args[0]) from error


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
