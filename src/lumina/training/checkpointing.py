"""States of a run on disk: each whole or not there, and readable by any number of processes."""

import json
import re
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint import DefaultLoadPlanner

from lumina.errors import LuminaError

FACTS = "run.json"
"""File of a state that says what is no tensor. It is written last, so a state with it is whole."""

_NAME = re.compile(r"step-(\d+)")


class Checkpoints:
    """The states of one run, by their step.

    Args:
        folder: Where they are.
        keep: How many of the latest stay.
        keep_every: Steps whose multiples stay for good. 0: none.
    """

    def __init__(self, folder: Path, *, keep: int = 2, keep_every: int = 0):
        self.folder = folder
        self.keep = keep
        self.keep_every = keep_every

    def save(self, step: int, tensors: dict[str, Any], facts: dict[str, Any]) -> Path:
        """Write a state. Killed at any moment, the states before it are as good as ever.

        Args:
            step: How many steps were taken.
            tensors: Nested dictionaries of tensors; each process may hold a shard of them.
            facts: What JSON can hold.

        Raises:
            LuminaError: If it cannot be written.
        """
        path = self.folder / f"step-{step:08d}"
        unfinished = path.with_suffix(".part")
        try:
            if _is_first():
                shutil.rmtree(unfinished, ignore_errors=True)
                unfinished.mkdir(parents=True)
            _wait()
            with _without_warning():
                dcp.save(tensors, checkpoint_id=unfinished, no_dist=not dist.is_initialized())
            if _is_first():
                (unfinished / FACTS).write_text(json.dumps(facts, indent=2) + "\n")
                shutil.rmtree(path, ignore_errors=True)
                unfinished.replace(path)
        except (OSError, dcp.CheckpointException) as error:
            shutil.rmtree(unfinished, ignore_errors=True)
            last = self.latest()
            raise LuminaError(
                f"cannot save step {step} in {self.folder}: {_reason(error)}",
                hint="nothing was saved before"
                if last is None
                else f"the last good state is {last}",
            ) from error
        if _is_first():
            self._drop_old()
        _wait()
        return path

    def latest(self) -> Path | None:
        """The last state that is whole."""
        whole = self._states()
        return whole[-1] if whole else None

    def load(self, path: Path, tensors: dict[str, Any], *, optional: str = "") -> set[str]:
        """Fill tensors with those of a state.

        Args:
            path: The state.
            tensors: Dictionaries like those that were saved; the shards may be others.
            optional: What the names of those begin with that may be missing. "": none may.

        Returns:
            Names of those that are missing, and stay as they were.

        Raises:
            LuminaError: If the state is damaged, or others are missing.
        """
        try:
            saved = dcp.FileSystemReader(path).read_metadata().state_dict_metadata
            lacking = set(_names(tensors)) - saved.keys()
            is_optional = bool(optional) and all(name.startswith(optional) for name in lacking)
            planner = DefaultLoadPlanner(allow_partial_load=is_optional)
            alone = not dist.is_initialized()
            with _without_warning():
                dcp.load(tensors, checkpoint_id=path, planner=planner, no_dist=alone)
        except (OSError, ValueError, dcp.CheckpointException) as error:
            raise LuminaError(
                f"the state {path} cannot be read: {_reason(error)}",
                hint="remove it to go on from the one before",
            ) from error
        return lacking

    def facts(self, path: Path) -> dict[str, Any]:
        """What a state holds beside tensors."""
        return json.loads((path / FACTS).read_text())

    def _states(self) -> list[Path]:
        found = (path.parent for path in self.folder.glob(f"step-*/{FACTS}"))
        return sorted(path for path in found if _NAME.fullmatch(path.name))

    def _drop_old(self) -> None:
        for path in self._states()[: -self.keep]:
            step = int(path.name.removeprefix("step-"))
            if not self.keep_every or step % self.keep_every:
                shutil.rmtree(path)


@contextmanager
def _without_warning() -> Iterator[None]:
    """Keep quiet about a single process being single."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield


def _names(tensors: dict[str, Any], within: str = "") -> Iterator[str]:
    """Names of all leaves of nested dictionaries, as a checkpoint calls them."""
    for name, value in tensors.items():
        if isinstance(value, dict):
            yield from _names(value, f"{within}{name}.")
        else:
            yield f"{within}{name}"


def _is_first() -> bool:
    return not dist.is_initialized() or dist.get_rank() == 0


def _wait() -> None:
    if dist.is_initialized():
        dist.barrier()


def _reason(error: BaseException) -> str:
    """The cause on any process, which a checkpoint's own exception holds."""
    if isinstance(error, dcp.CheckpointException):
        causes = [cause for cause, _ in error.failures.values()]
        return "; ".join(sorted({str(cause) for cause in causes}))
    return str(error)
