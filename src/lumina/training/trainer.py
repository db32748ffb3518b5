"""The training loop: optimize, average, log, save and resume, whatever is trained."""

import copy
import json
import os
import platform
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from math import inf
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from lumina.backbones.parallel import share_tokens
from lumina.checkpoints.folder import MADE_BY, read_json
from lumina.devices import keep_freed_memory, move, pick_device
from lumina.errors import LuminaError
from lumina.training.cards import write_card
from lumina.training.checkpointing import Checkpoints
from lumina.training.guard import Guard
from lumina.training.metering import PASSES, Meter, matmul_peak
from lumina.training.optimizers import make_optimizers, rate_factor
from lumina.training.recipes import Recipe
from lumina.training.reporting import METRICS, Reporter, keep_lines
from lumina.training.sharding import (
    Share,
    mean_over_processes,
    own_share,
    processes,
    shard,
    whole,
)

STATES = "states"
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@runtime_checkable
class Objective(Protocol):
    """What is trained, on which data, and against which loss.

    One that can tell its data from any others has a text `data_digest`.
    """

    module: Any
    """What holds the weights: an `nn.Module`."""

    def to(self, device: torch.device) -> None:
        """Move the weights, and what else the loss needs."""
        ...

    def batch(self, number: int, share: Share) -> Any:
        """A process's share of one batch; the same number gives the same data."""
        ...

    def loss(self, batch: Any, step: int) -> tuple[Tensor, dict[str, float]]:
        """Loss to minimize, and figures for the log."""
        ...

    def validate(self) -> dict[str, float]:
        """Figures on data, noise and times that are fixed and never trained on. May be empty."""
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
    recipe = recipe.settled()
    out = Path(recipe.out)
    out.mkdir(parents=True, exist_ok=True)
    refuse_changes(recipe)
    device = pick_device(recipe.device)
    if device.type == "cpu":
        keep_freed_memory()
    torch.manual_seed(recipe.seed)
    with processes(device):
        run = Run(recipe, recipe.make_objective(), device)
        run.resume()
        run.go()
        return run.export()


def refuse_changes(recipe: Recipe) -> None:
    """Refuse to go on with a run by another recipe than it began with.

    Raises:
        LuminaError: If it was another, naming what differs.
    """
    checkpoints = Checkpoints(Path(recipe.out) / STATES)
    path = checkpoints.latest()
    if path is None:
        return
    changes = recipe.changes_since(checkpoints.facts(path)["recipe"])
    if changes:
        told = ", ".join(f"{name}: {then!r} -> {now!r}" for name, (then, now) in changes.items())
        raise LuminaError(
            f"{recipe.out} holds a run of another recipe: {told}",
            hint="give another out=FOLDER, or undo the change",
        )


def _record_of(start: str) -> dict[str, Any]:
    """What made the weights that a run starts from, if another run wrote them into a folder."""
    folder = Path(start)
    if not start or not folder.is_dir():  # a name
        return {}
    # A part that was trained by itself has its record within it.
    records = [part / MADE_BY for part in (folder / "transformer", folder, folder.parent)]
    return next((read_json(record) for record in records if record.is_file()), {})


class Run:
    """State of one training run."""

    def __init__(self, recipe: Recipe, objective: Objective, device: torch.device | None = None):
        self.recipe = recipe
        self.objective = objective
        self.device = torch.device("cpu") if device is None else device
        self.out = Path(recipe.out)
        self.processes = own_share().count
        self.share = own_share(together=recipe.context_parallel)
        self.step = 0
        self.seconds = 0.0
        objective.to(self.device)
        module = objective.module
        _check_abilities(recipe, module)
        if recipe.checkpoint_activations:
            module.enable_gradient_checkpointing()
        self.plain = None
        if self.processes > 1 and self.is_first:
            self.plain = copy.deepcopy(module).cpu()
        if recipe.context_parallel > 1:
            together, way = recipe.context_parallel, recipe.context_parallel_by
            share_tokens(module, self.device, processes=together, way=way)
        if self.processes > 1:
            shard(module, self.device, replicas=recipe.replicas)
        if recipe.compile:
            module.compile_repeated_blocks()
        dtype = PRECISIONS[recipe.precision]
        self.dtype = dtype
        self.optimizers = make_optimizers(
            module,
            learning_rate=recipe.learning_rate,
            matrix_optimizer=recipe.matrix_optimizer,
            weight_decay=recipe.weight_decay,
            adam_scale=recipe.adam_scale,
            dtype=torch.bfloat16 if dtype == torch.bfloat16 else torch.float32,
        )
        self.peaks = [group["lr"] for o in self.optimizers for group in o.param_groups]
        # An average has the name of its weight, so that a state does not depend on their order.
        self.weights = {n: w for n, w in module.named_parameters() if w.requires_grad}
        self.average = {name: w.detach().clone() for name, w in self.weights.items()}
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=dtype == torch.float16)
        self.checkpoints = Checkpoints(
            self.out / STATES, keep=recipe.keep_states, keep_every=recipe.keep_every
        )
        self.guard = Guard(recipe.spike)
        self.meter = Meter()
        self.before = _record_of(getattr(recipe, "start_from", ""))

    def go(self) -> None:
        """Train until the last step, saving on the way; Ctrl-C saves and stops."""
        reporter = None
        if self.is_first:
            peak = matmul_peak(self.device, self.dtype)
            reporter = Reporter(self.out, self.recipe, step=self.step, peak=peak)
        try:
            with _StopSignal() as stopping:
                self._take_steps(stopping, reporter)
        finally:
            if reporter is not None:
                reporter.close()

    def _take_steps(self, stopping: "_StopSignal", reporter: Reporter | None) -> None:
        recipe = self.recipe
        saved = time.monotonic()
        for step, batches in self._prefetch(range(self.step, recipe.steps)):
            tick = time.monotonic()
            figures = self.update(batches, step)
            self.step = step + 1
            self.seconds += time.monotonic() - tick
            is_last = self.step == recipe.steps
            if recipe.validate_every and (is_last or self.step % recipe.validate_every == 0):
                with self.averaged(), self._mixed():
                    figures |= self.objective.validate()
            if reporter is not None:
                operations = PASSES * recipe.accumulate * self.meter.forward
                reporter.report(self.step, figures, operations=operations)
            is_stopped = self._any(bool(stopping))
            due = time.monotonic() - saved > 60 * recipe.save_minutes
            if self._any(is_last or due or is_stopped):
                self.save()
                saved = time.monotonic()
            if is_stopped:
                raise KeyboardInterrupt
            if is_last or self.step % recipe.preview_every == 0:
                self._preview()

    def update(self, batches: list[Any], step: int) -> dict[str, float]:
        """Take one optimizer step and return the figures of it.

        Raises:
            LuminaError: If the loss is not a number, or far from what it was; nothing has
                changed then.
        """
        recipe = self.recipe
        factor = rate_factor(step, steps=recipe.steps, warmup=recipe.warmup, decay=recipe.decay)
        groups = [group for o in self.optimizers for group in o.param_groups]
        for group, peak in zip(groups, self.peaks, strict=True):
            group["lr"] = peak * factor
        loss, figures = self._backward(batches, step)
        for optimizer in self.optimizers:
            self.scaler.unscale_(optimizer)
        if self.scaler.is_enabled() and self._overflowed():
            return self._leave_out(loss, factor, figures)
        weights = list(self.weights.values())
        norm = whole(nn.utils.clip_grad_norm_(weights, recipe.clip or inf)).item()
        self.guard.check(loss, norm, step, last=self.checkpoints.latest)
        for optimizer in self.optimizers:
            self.scaler.step(optimizer)
            optimizer.zero_grad(set_to_none=True)
        self.scaler.update()
        # A short memory at first, so that the average is not dominated by the start.
        memory = min(recipe.ema, (1 + step) / (10 + step))
        for name, weight in self.weights.items():
            self.average[name].lerp_(weight.detach(), 1 - memory)
        return {"loss": loss, "norm": norm, "rate": factor} | figures

    def _leave_out(self, loss: float, factor: float, figures: dict[str, float]) -> dict[str, float]:
        """Change no weight in a step that half precision is too small for; scale by less."""
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        self.scaler.update()
        return {"loss": loss, "norm": inf, "rate": factor} | figures

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Context in which the module holds the averaged weights."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, weight in self.weights.items():
            kept = weight.detach().clone()
            weight.copy_(self.average[name])
            self.average[name].copy_(kept)

    def save(self) -> None:
        """Write everything that resuming needs; a kill at any moment leaves the state before."""
        facts = {"step": self.step, "seconds": self.seconds, "recipe": self.recipe.to_json()}
        facts |= {"guard": self.guard.state(), "scaler": self.scaler.state_dict()}
        facts["data"] = self._data()
        self.checkpoints.save(self.step, self._tensors(), facts)

    def resume(self) -> None:
        """Take up the last whole state of an earlier run in the same folder, if there is one.

        Raises:
            LuminaError: If that run was on other data, or its state is damaged.
        """
        path = self.checkpoints.latest()
        if path is not None:
            self._take_up(path)
        if self.is_first:
            keep_lines(self.out / METRICS, self.step)

    def _take_up(self, path: Path) -> None:
        facts = self.checkpoints.facts(path)
        if facts.get("data", self._data()) != self._data():
            raise LuminaError(
                f"the data, or the model under adapters, are others than when the run in {self.out}"
                " began",
                hint="give another out=FOLDER, or undo the change",
            )
        tensors = self._tensors()
        # A weight without a gradient so far has no state.
        lacking = self.checkpoints.load(path, tensors, optional=f"{OPTIMIZERS}.state.")
        module = self.objective.module
        set_model_state_dict(module, tensors["module"], options=_TRAINED)
        set_optimizer_state_dict(module, self.optimizers, tensors[OPTIMIZERS], options=_FLAT)
        for name, weight in self.weights.items():
            if any(key.startswith(f"{OPTIMIZERS}.state.{name}.") for key in lacking):
                for optimizer in self.optimizers:
                    optimizer.state.pop(weight, None)
        for name, average in self.average.items():
            average.copy_(tensors["average"][name])
        torch.set_rng_state(tensors["random"])
        self.step, self.seconds = facts["step"], facts["seconds"]
        self.guard.restore(facts["guard"])
        self.scaler.load_state_dict(facts["scaler"])

    def _data(self) -> str:
        """What tells the data of the objective from others, if it can tell."""
        return getattr(self.objective, "data_digest", "")

    def export(self) -> Path:
        """Write the averaged weights and what made them, and return the folder."""
        folder = self.out / "last"
        with self.averaged(), self._whole_module():
            if self.is_first:
                self.objective.export(folder)
                made_by = {
                    "recipe": json.loads(self.recipe.to_json()),
                    "steps": self.step,
                    "minutes": round(self.seconds / 60, 1),
                    "machine": f"{platform.machine()}, {os.cpu_count()} cores",
                    "processes": self.processes,
                    "torch": torch.__version__,
                }
                if self.before:
                    made_by["before"] = self.before
                (folder / MADE_BY).write_text(json.dumps(made_by, indent=2) + "\n")
                write_card(folder)
        return folder

    @property
    def is_first(self) -> bool:
        """Whether this process speaks and writes for all."""
        return own_share().number == 0

    def _backward(self, batches: list[Any], step: int) -> tuple[float, dict[str, float]]:
        """Sum up the gradient of all batches of a step, and return the mean loss and figures."""
        losses, all_figures = [], []
        for number, batch in enumerate(batches):
            is_last = number == len(batches) - 1
            if self.processes > 1:  # gradients are shared once, after the last batch
                self.objective.module.set_requires_gradient_sync(is_last)
            with self._mixed(), self.meter.watch():
                loss, figures = self.objective.loss(move(batch, self.device), step)
            # Processes that share tokens each have the gradient by their own: their sum is that
            # of the loss, and the mean of all processes is what is taken.
            part = loss * self.recipe.context_parallel / len(batches)
            self.scaler.scale(part).backward()
            losses.append(mean_over_processes(loss.detach()))
            all_figures.append(figures)
        return sum(losses) / len(losses), self._join(all_figures)

    def _mixed(self) -> torch.autocast:
        """Context in which matrices are multiplied in the precision of the recipe."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)

    def _join(self, figures: list[dict[str, float]]) -> dict[str, float]:
        """Figures of a step: samples of all batches and processes, and means of the others."""
        joined = {name: sum(some[name] for some in figures) for name in figures[0]}
        means = {name: value / len(figures) for name, value in joined.items()}
        if "samples" in joined:
            means["samples"] = joined["samples"] * self.share.count
        return means

    def _prefetch(self, steps: range) -> Iterator[tuple[int, list[Any]]]:
        """The batches of each step, made while the step before is trained on."""

        def make(step: int) -> list[Any]:
            first = step * self.recipe.accumulate
            numbers = range(first, first + self.recipe.accumulate)
            return [self.objective.batch(number, self.share) for number in numbers]

        if not steps:
            return
        with ThreadPoolExecutor(1) as pool:
            coming = pool.submit(make, steps.start)
            for step in steps:
                batches = coming.result()
                if step + 1 < steps.stop:
                    coming = pool.submit(make, step + 1)
                yield step, batches

    def _tensors(self) -> dict[str, Any]:
        module = self.objective.module
        return {
            "module": get_model_state_dict(module, options=_TRAINED),
            OPTIMIZERS: get_optimizer_state_dict(module, self.optimizers, options=_FLAT),
            "average": self.average,
            "random": torch.get_rng_state(),
        }

    def _preview(self) -> None:
        with self.averaged(), self._whole_module(), self._mixed():
            if self.is_first:
                self.objective.preview(self.out, self.step)

    @contextmanager
    def _whole_module(self) -> Iterator[None]:
        """Context in which the first process holds all weights, and no others look."""
        if self.processes == 1:
            yield
            return
        sharded = self.objective.module
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        weights = get_model_state_dict(sharded, options=options)
        if self.plain is not None:
            self.plain.load_state_dict(weights)
            self.plain.to(self.device)
            self.objective.module = self.plain
        try:
            yield
        finally:
            self.objective.module = sharded
            if self.plain is not None:
                self.plain.cpu()

    def _overflowed(self) -> bool:
        """Whether a gradient in half precision was too large, which the scaler learns from."""
        gradients = (w.grad for w in self.weights.values() if w.grad is not None)
        return not all(bool(torch.isfinite(whole(g)).all()) for g in gradients)

    def _any(self, wish: bool) -> bool:
        """Whether any process wishes it, so that all of them do the same."""
        if self.processes == 1:
            return wish
        votes = torch.tensor(int(wish), device=self.device)
        dist.all_reduce(votes, dist.ReduceOp.MAX)
        return bool(votes)


OPTIMIZERS = "optimizers"
"""Of a state, those of all weights."""

_TRAINED = StateDictOptions(ignore_frozen_params=True, strict=False)
"""Weights that are frozen come from where they came from."""

_FLAT = StateDictOptions(flatten_optimizer_state_dict=True)


def _check_abilities(recipe: Recipe, module: nn.Module) -> None:
    needed = {
        "checkpoint_activations": "enable_gradient_checkpointing",
        "compile": "compile_repeated_blocks",
    }
    for name, method in needed.items():
        if getattr(recipe, name) and not hasattr(module, method):
            raise LuminaError(f"runs of the task {recipe.task} cannot {name}", hint="leave it out")


class _StopSignal:
    """True once the user has asked the run to stop."""

    def __enter__(self) -> "_StopSignal":
        self.asked = False
        # Python lets the main thread alone listen to signals; Ray trains in another.
        is_main = threading.current_thread() is threading.main_thread()
        names = _STOPS if is_main else ()
        self._before = {name: signal.signal(name, self._ask) for name in names}
        return self

    def __exit__(self, *_: object) -> None:
        for name, handler in self._before.items():
            signal.signal(name, handler)

    def _ask(self, *_: object) -> None:
        self.asked = True

    def __bool__(self) -> bool:
        return self.asked


_STOPS = (signal.SIGINT, signal.SIGTERM)
