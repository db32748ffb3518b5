"""The training loop: optimize, average, log, save and resume, whatever is trained."""

import json
import os
import platform
import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from lumina.errors import LuminaError
from lumina.training.optimizers import make_optimizers, rate_factor
from lumina.training.recipes import MADE_BY, Recipe

STATE = "state.pt"
METRICS = "metrics.jsonl"
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


@runtime_checkable
class Objective(Protocol):
    """What is trained, on which data, and against which loss."""

    @property
    def module(self) -> nn.Module:
        """What holds the weights."""
        ...

    def batch(self, step: int) -> Any:
        """Data of one step; the same step gives the same data."""
        ...

    def loss(self, batch: Any, step: int) -> tuple[Tensor, dict[str, float]]:
        """Loss to minimize, and figures for the log."""
        ...

    def preview(self, folder: Path, step: int) -> None:
        """Write pictures that show how far the run is."""
        ...

    def export(self, folder: Path) -> None:
        """Write the weights in the layout that loaders read."""
        ...


def train(recipe: Recipe) -> Path:
    """Run a recipe to its last step, from where it stopped if it was run before.

    Returns:
        The folder with the last weights (averaged, if the recipe keeps an average).
    """
    out = Path(recipe.out)
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(recipe.seed)
    run = Run(recipe, recipe.make_objective())
    run.resume()
    run.go()
    return run.export()


class Run:
    """State of one training run."""

    def __init__(self, recipe: Recipe, objective: Objective):
        self.recipe = recipe
        self.objective = objective
        self.out = Path(recipe.out)
        self.step = 0
        self.seconds = 0.0
        self.optimizers = make_optimizers(
            objective.module,
            learning_rate=recipe.learning_rate,
            matrix_optimizer=recipe.matrix_optimizer,
            weight_decay=recipe.weight_decay,
            adam_scale=recipe.adam_scale,
            dtype=PRECISIONS[recipe.precision],
        )
        self.peaks = [group["lr"] for o in self.optimizers for group in o.param_groups]
        self.weights = [w for w in objective.module.parameters() if w.requires_grad]
        self.average = [w.detach().clone() for w in self.weights]

    def go(self) -> None:
        """Train until the last step, saving on the way; Ctrl-C saves and stops."""
        recipe = self.recipe
        stopping = _StopSignal()
        saved = time.monotonic()
        began, began_step = time.monotonic(), self.step
        for step, batch in _prefetch(self.objective, range(self.step, recipe.steps)):
            tick = time.monotonic()
            figures = self.update(batch, step)
            self.step = step + 1
            self.seconds += time.monotonic() - tick
            rate = recipe.batch_size * (self.step - began_step) / (time.monotonic() - began)
            self._log({"step": self.step, **figures, "samples_per_second": round(rate, 2)})
            is_last = self.step == recipe.steps
            if self.step % recipe.preview_every == 0 or is_last:
                with self.averaged():
                    self.objective.preview(self.out, self.step)
            if is_last or stopping or time.monotonic() - saved > 60 * recipe.save_minutes:
                self.save()
                saved = time.monotonic()
            if stopping:
                raise KeyboardInterrupt

    def update(self, batch: Any, step: int) -> dict[str, float]:
        """Take one optimizer step and return the figures of it."""
        recipe = self.recipe
        factor = rate_factor(step, steps=recipe.steps, warmup=recipe.warmup, decay=recipe.decay)
        groups = [group for o in self.optimizers for group in o.param_groups]
        for group, peak in zip(groups, self.peaks, strict=True):
            group["lr"] = peak * factor
        dtype = PRECISIONS[recipe.precision]
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            loss, figures = self.objective.loss(batch, step)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.weights, recipe.clip).item()
        if not torch.isfinite(loss):
            raise LuminaError(
                f"the loss is {loss.item()} at step {step}",
                hint=f"the last good state is in {self.out / STATE}; lower learning_rate",
            )
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        # A short memory at first, so that the average is not dominated by the start.
        memory = min(recipe.ema, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.average, [w.detach() for w in self.weights], 1 - memory)
        return {"loss": loss.item(), "norm": norm, "rate": factor} | figures

    def averaged(self) -> "_Swapped":
        """Context in which the module holds the averaged weights."""
        return _Swapped(self.weights, self.average)

    def save(self) -> None:
        """Write everything that resuming needs; a kill at any moment leaves a whole file."""
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "recipe": self.recipe.to_json(),
            "module": self.objective.module.state_dict(),
            "average": self.average,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }
        partial = self.out / (STATE + ".partial")
        torch.save(state, partial)
        partial.replace(self.out / STATE)

    def resume(self) -> None:
        """Take up the state of an earlier run in the same folder, if there is one.

        Raises:
            LuminaError: If that run was of another recipe.
        """
        path = self.out / STATE
        if not path.exists():
            return
        state = torch.load(path, weights_only=True)
        changed = self.recipe.changes_since(state["recipe"])
        if changed:
            raise LuminaError(
                f"{self.out} holds a run of another recipe: {', '.join(changed)} changed",
                hint="give another out=FOLDER, or undo the change",
            )
        self.objective.module.load_state_dict(state["module"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        for mine, saved in zip(self.average, state["average"], strict=True):
            mine.copy_(saved)
        self.step, self.seconds = state["step"], state["seconds"]
        _keep_lines(self.out / METRICS, self.step)

    def export(self) -> Path:
        """Write the averaged weights and what made them, and return the folder."""
        folder = self.out / "last"
        with self.averaged():
            self.objective.export(folder)
        made_by = {
            "recipe": json.loads(self.recipe.to_json()),
            "steps": self.step,
            "minutes": round(self.seconds / 60, 1),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
            "torch": torch.__version__,
        }
        (folder / MADE_BY).write_text(json.dumps(made_by, indent=2) + "\n")
        return folder

    def _log(self, figures: dict[str, float]) -> None:
        line = {k: round(v, 6) if isinstance(v, float) else v for k, v in figures.items()}
        with (self.out / METRICS).open("a") as file:
            file.write(json.dumps(line) + "\n")
        if self.step % self.recipe.log_every == 0 or self.step == self.recipe.steps:
            left = self.recipe.batch_size * (self.recipe.steps - self.step)
            minutes = left / line["samples_per_second"] / 60
            text = "  ".join(f"{key} {value:.4g}" for key, value in line.items())
            print(f"{text}  minutes left {minutes:.0f}", file=sys.stderr, flush=True)  # noqa: T201


class _Swapped:
    def __init__(self, weights: list[nn.Parameter], others: list[Tensor]):
        self.weights, self.others = weights, others

    def __enter__(self) -> None:
        self._swap()

    def __exit__(self, *_: object) -> None:
        self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for weight, other in zip(self.weights, self.others, strict=True):
            weight.data, other.data = other.data, weight.data


class _StopSignal:
    """True once the user has asked the run to stop."""

    def __init__(self) -> None:
        self.asked = False
        for name in (signal.SIGINT, signal.SIGTERM):
            signal.signal(name, self._ask)

    def _ask(self, *_: object) -> None:
        self.asked = True

    def __bool__(self) -> bool:
        return self.asked


def _prefetch(objective: Objective, steps: range) -> Iterator[tuple[int, Any]]:
    """Batches in order, each made while the one before it is trained on."""
    if not steps:
        return
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(objective.batch, steps.start)
        for step in steps:
            batch = coming.result()
            if step + 1 < steps.stop:
                coming = pool.submit(objective.batch, step + 1)
            yield step, batch


def _keep_lines(path: Path, count: int) -> None:
    """Drop the log lines of steps that were lost in a kill."""
    if path.exists():
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(lines[:count]))
