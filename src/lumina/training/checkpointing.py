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

    def load(self, path: Path, tensors: dict[str, Any]) -> dict[str, Any]:
        """Fill tensors with those of a state, and return its facts.

        Args:
            path: The state.
            tensors: Dictionaries like those that were saved; the shards may be others.
        """
        with _without_warning():
            dcp.load(tensors, checkpoint_id=path, no_dist=not dist.is_initialized())
        return self.facts(path)

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
