"""What a run says while it goes on: a line of progress, a log of all steps, and TensorBoard."""

import json
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lumina.errors import refuse_missing_library
from lumina.training.recipes import Recipe

METRICS = "metrics.jsonl"


def say(lines: Sequence[str]) -> None:
    """Tell the user, beside what the command prints as its result."""
    for line in lines:
        print(line, file=sys.stderr, flush=True)  # noqa: T201


class Reporter:
    """Writes the figures of each step, and prints a line of some. One process reports for all.

    Args:
        out: Folder of the run.
        recipe: Of the run.
        step: The step that the run begins after.
        peak: Operations per second that the machine can reach.
    """

    def __init__(self, out: Path, recipe: Recipe, *, step: int, peak: float):
        self.out, self.recipe, self.peak = out, recipe, peak
        self._began, self._began_step, self._samples = time.monotonic(), step, 0.0
        self._board = _open_board(out / "tensorboard", step + 1) if recipe.tensorboard else None

    def report(self, step: int, figures: dict[str, float], *, operations: float) -> None:
        """Log a step.

        Args:
            step: How many steps were taken.
            figures: Of this step; "samples" counts those of all processes.
            operations: Floating-point operations of a step of one process.
        """
        seconds = time.monotonic() - self._began
        steps = step - self._began_step
        self._samples += figures.get("samples", self.recipe.batch_size * self.recipe.accumulate)
        rate = self._samples / seconds
        line = {"step": step, **figures, "samples_per_second": rate}
        # JSON has no infinity, which is the norm of a step that was left out.
        line = {
            name: round(value, 6) if isinstance(value, float) else value
            for name, value in line.items()
            if math.isfinite(value)
        }
        with (self.out / METRICS).open("a") as file:
            file.write(json.dumps(line) + "\n")
        if self._board is not None:
            for name, value in line.items():
                self._board.add_scalar(name, value, step)
        if step % self.recipe.log_every == 0 or step == self.recipe.steps:
            left = seconds / steps * (self.recipe.steps - step) / 60
            share = operations * steps / seconds / self.peak
            text = "  ".join(f"{key} {value:.4g}" for key, value in line.items())
            end = f"{100 * share:.0f} % of peak  minutes left {left:.0f}"
            say([f"{text}  {end}"])

    def close(self) -> None:
        """Finish what is being written."""
        if self._board is not None:
            self._board.close()


def keep_lines(path: Path, step: int) -> None:
    """Drop the log lines of steps that were lost in a kill, and a line that is not whole.

    Args:
        path: The log, if there is one.
        step: The last that was not lost.
    """
    if path.exists():
        lines = [line for line in path.read_text().split("\n") if line.endswith("}")]
        kept = [line for line in lines if json.loads(line)["step"] <= step]
        path.write_text("".join(f"{line}\n" for line in kept))


def _open_board(folder: Path, step: int) -> Any:
    refuse_missing_library("tensorboard", extra="log")
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=step)
