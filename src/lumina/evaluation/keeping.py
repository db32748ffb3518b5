"""What an evaluation has made so far, on disk, so that one that was stopped goes on."""

import io
import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lumina.errors import LuminaError
from lumina.media import make_folder, write_whole
from lumina.pipelines.images import Evaluations

FOLDER, IDENTITY = "unfinished", "identity.json"

Batch = Sequence[np.ndarray]


class Keeper:
    """Keeps media in a folder until the result is written.

    Args:
        output: Folder of the result. None keeps nothing.
        identity: What JSON can hold: all that the media depend on.
        cost: Tells how often the network was asked for each of those that were just made.

    Raises:
        LuminaError: If the folder holds media that depend on something else.
    """

    def __init__(
        self, output: Path | None, identity: Mapping[str, Any], cost: Callable[[], Evaluations]
    ):
        self._folder = None if output is None else output / FOLDER
        self._cost = cost
        self.seconds = 0.0
        """What making those took that were there already."""
        self.evaluations: Evaluations | None = None
        """How often the network was asked for each of the first ones."""
        if self._folder is None:
            return
        make_folder(self._folder)
        path, text = self._folder / IDENTITY, json.dumps(identity, sort_keys=True, indent=2)
        if not path.is_file():
            if any(self._folder.iterdir()):
                raise LuminaError(
                    f"{self._folder} holds other files", hint="choose another folder, or move them"
                )
            write_whole(path, text.encode())
        elif path.read_text() != text:
            raise LuminaError(
                f"{output} holds what an evaluation of something else, or in another way, has made",
                hint=f"choose another folder, or remove {self._folder} to begin anew",
            )

    def make(self, first: int, make: Callable[[], Batch]) -> Batch:
        """Media that were kept, or else are made now.

        Args:
            first: Number of the first of them.
            make: Makes them.
        """
        path = self._folder and self._folder / f"{first:06}.npz"
        if path and path.is_file():
            with np.load(path) as kept:
                batch = [kept[str(number)] for number in range(len(kept.files) - 2)]
                self.seconds += float(kept["seconds"])
                cost = Evaluations(*kept["evaluations"].tolist())
        else:
            began = time.monotonic()
            batch = list(make())
            seconds, cost = time.monotonic() - began, self._cost()
            if path:
                _write(path, batch, seconds=seconds, evaluations=cost)
        self.evaluations = self.evaluations or cost
        return batch

    def forget(self) -> None:
        """Remove what was kept."""
        if self._folder is not None:
            shutil.rmtree(self._folder)


def _write(path: Path, batch: Batch, **facts: Any) -> None:
    content = io.BytesIO()
    arrays = {str(number): medium for number, medium in enumerate(batch)}
    np.savez_compressed(content, **arrays, **facts)
    write_whole(path, content.getvalue())
