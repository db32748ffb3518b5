"""Pictures in rows of a Hugging Face dataset, from a folder or by name."""

import functools
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lumina.errors import LuminaError, UnknownNameError
from lumina.training.data.decoding import BrokenPictureError, Stream
from lumina.training.data.examples import Found
from lumina.training.data.gathering import Gathering, read_notes
from lumina.training.data.sources import DatasetsSource


@dataclass(frozen=True)
class RowPlace:
    """The picture of one row."""

    path: str
    split: str
    column: str
    row: int

    def open(self) -> Stream:
        """The bytes, to read from their start."""
        cell = open_rows(self.path, self.split, self.column)[self.row][self.column]
        if cell is None:
            raise BrokenPictureError("its row has no picture")
        if cell["bytes"] is not None:
            return io.BytesIO(cell["bytes"])
        return Path(cell["path"]).open("rb")


def find_rows(source: DatasetsSource) -> Found:
    """Pictures of a dataset, by row.

    Raises:
        LuminaError: If the dataset or a column of it is missing.
    """
    rows = open_rows(source.path, source.split, source.image)
    columns = rows.column_names
    for column in filter(None, (source.caption, source.label)):
        _refuse_unknown(column, columns)
    others = rows.remove_columns([source.image])
    gathering = Gathering(source.title, clean=source.clean)
    for row in range(len(rows)):
        with gathering.finding(f"row {row}"):
            place = RowPlace(source.path, source.split, source.image, row)
            notes = read_notes(others[row], source.caption, source.label)
            gathering.add(f"row {row}", place, notes)
    return gathering.found()


@functools.lru_cache(maxsize=8)
def open_rows(path: str, split: str, column: str) -> Any:
    """The dataset, which gives pictures of a column as the bytes that they are stored as.

    Raises:
        LuminaError: If there is none, or no such part or column of it.
    """
    import datasets
    from datasets.exceptions import DatasetsError

    folder = Path(path).expanduser()
    try:
        found: Any = (
            datasets.load_from_disk(folder)
            if folder.is_dir()
            else datasets.load_dataset(path, split=split)
        )
    # What the library raises where there is no dataset, or none that it can read.
    except (OSError, ValueError, DatasetsError) as error:
        raise LuminaError(f"no dataset {path}: {str(error).splitlines()[0]}") from error
    if isinstance(found, datasets.DatasetDict):
        if split not in found:
            raise UnknownNameError.among(map(str, found), split, kind="split")
        found = found[split]
    _refuse_unknown(column, found.column_names)
    return found.cast_column(column, datasets.Image(decode=False))


def _refuse_unknown(column: str, columns: list[str]) -> None:
    if column not in columns:
        raise UnknownNameError.among(columns, column, kind="column")
