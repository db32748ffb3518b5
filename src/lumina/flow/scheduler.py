"""Our solvers and schedules as a scheduler of diffusers."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.schedulers.scheduling_utils import SchedulerMixin, SchedulerOutput
from diffusers.utils.torch_utils import randn_tensor
from jaxtyping import Float, Num
from torch import Tensor

from lumina.errors import LuminaError, UnknownNameError
from lumina.flow.solvers import Answer, Ask, Solver, Steps, dormand_prince, find_solver
from lumina.flow.stochastic import METHODS, Draw, stochastic
from lumina.flow.times import (
    SIGMOID,
    check_times,
    interval,
    shift_times,
    sigmoid_times,
    uniform_times,
)
from lumina.requests import ADAPTIVE, SCHEDULER_SETTINGS, SCHEDULES, SOLVERS, STOCHASTIC

PLACES = 100
"""Timesteps where a solver that chooses its steps itself can begin."""

ABSOLUTE = 1e-3
"""Absolute tolerance by the relative one, as the defaults of torchdiffeq have it."""

MARGIN = 1e-3
"""Distance of stochastic steps to poles: `sample_eps` of the original code."""

NOISE_FIRST = ("sde-heun",)
"""Solvers that add noise before they ask for a velocity."""

Source = torch.Generator | list[torch.Generator] | None


class FlowSolverScheduler(SchedulerMixin, ConfigMixin):
    """Follow a flow with any solver, on any schedule.

    A step of a solver of several velocities is several steps of diffusers' loop, and so there are
    more `timesteps` than were asked for; what a callback makes of the sample inside of such a step
    has no effect. Between two steps it has. The state stays in float32.

    "dopri5" chooses its steps itself, so that their number has no effect: `timesteps` are where a
    sample may begin, and `next_timestep` says where the next velocity is needed. Our pipelines go
    by that; loops of diffusers, which go by `timesteps`, are refused. So are they for "sde-heun",
    whose first velocity is at what `begin_sample` gives.

    Args:
        num_train_timesteps: What the timestep of noise is; that of data is 0.
        solver: "euler", "midpoint", "heun", "rk4", "ab2", "dpm++", "unipc"; "dopri5"; or "sde" and
            "sde-heun", which add noise.
        schedule: "uniform", or "sigmoid" with the constants of Lumina-Next.
        shift: Above 1 takes smaller steps near noise. Source: see `lumina.flow.times`.
        tolerance: Error that "dopri5" allows in a step, relative to the sample.
        diffusion: How much noise is added when, as in `lumina.flow.stochastic`.
        diffusion_norm: Scales it.
        last_step: How the last step is taken, which adds no noise, as there.
        last_step_size: How long it is; no more than 0.001 is left where it is "none".

    Raises:
        UnknownNameError: If there is no such solver, schedule, diffusion or last step.
        LuminaError: If the shift or the tolerance is not above 0, or there are a schedule or a
            shift for a solver that chooses its steps.
    """

    init_noise_sigma = 1.0

    @register_to_config
    def __init__(
        self,
        num_train_timesteps: int = 1000,
        solver: str = "midpoint",
        schedule: str = "uniform",
        shift: float = 1.0,
        tolerance: float = 1e-3,
        diffusion: str = "sigma",
        diffusion_norm: float = 1.0,
        last_step: str = "mean",
        last_step_size: float = 0.04,
    ):
        if solver not in SOLVERS:
            raise UnknownNameError.among(SOLVERS, solver, kind="solver")
        if schedule not in SCHEDULES:
            raise UnknownNameError.among(SCHEDULES, schedule, kind="schedule")
        if self.is_adaptive and (schedule, shift) != ("uniform", 1):
            raise LuminaError(
                f"{solver} chooses its steps itself", hint="leave out schedule and shift"
            )
        # Timesteps of each step, as diffusers counts them.
        self.order = self.make_solver().evaluations or 1
        self.set_timesteps(PLACES if self.is_adaptive else 2)

    @property
    def is_adaptive(self) -> bool:
        """Whether the solver chooses its steps itself."""
        return self.config["solver"] in ADAPTIVE

    @property
    def is_stochastic(self) -> bool:
        """Whether noise is added on the way."""
        return self.config["solver"] in STOCHASTIC

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: torch.device | str | None = None,
        sigmas: list[float] | None = None,
    ) -> None:
        """Begin a sample.

        Args:
            num_inference_steps: Steps, each of as many velocities as the solver takes.
            device: Where the timesteps are wanted.
            sigmas: Shares of noise to stop at instead, decreasing; a last one of 0 may be left
                out, as diffusers' schedulers have it.

        Raises:
            LuminaError: If the shares do not decrease, or there are too few steps.
        """
        times = self._spread(num_inference_steps or 0) if sigmas is None else self._read(sigmas)
        asked = times[:-1] if self.is_adaptive else self._times_asked(times)
        self.timesteps = self._timesteps_at(asked).to(device)
        self.num_inference_steps = len(times) - 1
        self._times = times
        self._steps: Steps | None = None
        self._ask: Ask | None = None
        self._returned: Tensor | None = None

    @property
    def next_timestep(self) -> Float[Tensor, ""] | None:
        """Where the next velocity is needed. None once the sample is at data."""
        if self._steps is None:
            return self._timesteps_at(self._times[0]).to(self.timesteps.device)
        return None if self._ask is None else self._timesteps_at(self._ask.time)

    def _timesteps_at(self, times: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        return (1 - times) * self.config["num_train_timesteps"]

    def _read(self, sigmas: list[float]) -> Float[Tensor, " points"]:
        """Times of shares of noise."""
        if self.is_adaptive:
            raise LuminaError(
                f"{self.config['solver']} chooses its steps itself", hint="leave out times"
            )
        ends = [1 - sigma for sigma in sigmas]
        return check_times(ends if ends[-1] == 1 else [*ends, 1.0])

    def _spread(self, steps: int) -> Float[Tensor, " points"]:
        """Times of a number of steps."""
        if self.is_adaptive:
            return uniform_times(PLACES)
        if self.is_stochastic and steps < 2:
            raise LuminaError(
                f"the last step adds no noise, and {steps} steps have no other",
                hint="ask for 2 steps or more",
            )
        times = uniform_times(steps - self.is_stochastic)
        if self.config["schedule"] == "sigmoid":
            times = sigmoid_times(times, **SIGMOID)
        times = shift_times(times, self.config["shift"])
        if not self.is_stochastic:
            return times
        config = self.config
        last = 0.0 if config["last_step"] == "none" else config["last_step_size"]
        start, end = interval(
            "linear", margin=MARGIN, diffusion=config["diffusion"], last_step=last
        )
        return torch.cat([start + (end - start) * times, times.new_ones(1)])

    def make_solver(self, draw: Draw = torch.zeros_like) -> Solver:
        """The solver. Where it adds noise, `draw` gives that; without it there is none."""
        config = self.config
        if self.is_adaptive:
            relative = config["tolerance"]
            return dormand_prince(relative=relative, absolute=ABSOLUTE * relative)
        if self.is_stochastic:
            return stochastic(
                draw,
                form=config["diffusion"],
                norm=config["diffusion_norm"],
                method=METHODS[config["solver"]],
                last_step=config["last_step"],
            )
        return find_solver(config["solver"])

    def _times_asked(self, times: Float[Tensor, " points"]) -> Float[Tensor, " asked"]:
        """The times at which velocities are taken, found by a run on a single zero."""
        steps = self.make_solver().follow(torch.zeros(1), times)
        asked, ask = [], next(steps)
        while True:
            asked.append(ask.time)
            try:
                ask = steps.send(Answer(torch.zeros(1)))
            except StopIteration:
                return torch.stack(asked)

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Begin at a later step, where a sample is already.

        Args:
            begin_index: Number of the first timesteps that are left out: a multiple of `order`.
        """
        self._times = self._times[begin_index // self.order :]

    def scale_model_input(
        self, sample: Float[Tensor, "b *grid"], timestep: Num[Tensor, ""] | None = None
    ) -> Float[Tensor, "b *grid"]:
        """What the model sees: the sample itself."""
        return sample

    def begin_sample(
        self, sample: Float[Tensor, "b *grid"], generator: Source = None
    ) -> Float[Tensor, "b *grid"]:
        """Where the first velocity is needed: at the sample, or with noise added to it.

        Only solvers that add noise before they ask for a velocity need this before `step`.

        Args:
            sample: Where to begin.
            generator: As in `step`.
        """
        times = self._times.to(sample.device)
        stops = times[[0, -1]] if self.is_adaptive else times
        self._steps = self.make_solver(partial(_draw, generator)).follow(sample.float(), stops)
        self._ask = next(self._steps)
        return self._hand_out(self._ask.x, sample.dtype)

    def step(
        self,
        model_output: Float[Tensor, "b *grid"],
        timestep: Num[Tensor, ""] | float,
        sample: Float[Tensor, "b *grid"],
        return_dict: bool = True,
        generator: Source = None,
    ) -> SchedulerOutput | tuple[Float[Tensor, "b *grid"]]:
        """Move to where the next velocity is needed.

        Args:
            model_output: Velocity toward noise, as diffusers' schedulers take it.
            timestep: Where the velocity was taken: calls follow the order of `timesteps`, or
                `next_timestep` where the solver chooses its steps.
            sample: Where the velocity was taken.
            return_dict: Whether to return an object rather than a tuple.
            generator: The source of noise, or a list with one for each sample, for solvers that
                add noise.

        Raises:
            LuminaError: If the sample is at data already, or the velocity was not taken where the
                solver has asked.
        """
        if self._steps is None:
            if self.config["solver"] in NOISE_FIRST:
                raise LuminaError(
                    f"{self.config['solver']} adds noise before it asks for a velocity, and this"
                    " loop has asked for one at the sample itself",
                    hint="use a pipeline of lumina, or the solver sde",
                )
            sample = self.begin_sample(sample, generator)
        if self._steps is None or self._ask is None:
            raise LuminaError(
                "the sample is at its end", hint="call set_timesteps to begin another one"
            )
        if self.is_adaptive and float(timestep) != float(self._timesteps_at(self._ask.time)):
            raise LuminaError(
                f"{self.config['solver']} chooses its steps itself, and this loop goes by"
                f" timesteps of its own ({float(timestep):g})",
                hint="use a pipeline of lumina, or another solver",
            )
        moved = sample.float() if self._is_changed(sample) else None
        answer = Answer(-model_output.float(), moved)
        try:
            self._ask = self._steps.send(answer)
            x = self._ask.x
        except StopIteration as end:
            self._ask, x = None, end.value
        output: Any = self._hand_out(x, sample.dtype)
        return SchedulerOutput(prev_sample=output) if return_dict else (output,)

    def _hand_out(
        self, sample: Float[Tensor, "b *grid"], dtype: torch.dtype
    ) -> Float[Tensor, "b *grid"]:
        """Remember what a loop gets, to notice what it changes."""
        output = sample.to(dtype)
        self._returned, self._mark = output, _mark(output)
        return output

    def _is_changed(self, sample: Tensor) -> bool:
        """Whether a sample is another than the one that was returned, or was written into."""
        if sample is not self._returned:
            return True
        if isinstance(self._mark, Tensor):
            return not torch.equal(sample, self._mark)
        return sample._version != self._mark

    def __len__(self) -> int:
        return int(self.config["num_train_timesteps"])


def _mark(sample: Tensor) -> int | Tensor:
    """What tells whether a tensor was written into: how often, or what it was.

    Tensors of inference mode do not count.
    """
    return sample.clone() if sample.is_inference() else sample._version


def _draw(source: Source, like: Tensor) -> Tensor:
    return randn_tensor(like.shape, generator=source, device=like.device, dtype=like.dtype)


def choose_scheduler(usual: Any, chosen: Mapping[str, Any]) -> Any:
    """The usual scheduler of a model, or one of ours where anything else is asked for.

    Args:
        usual: What is taken if nothing is asked for. What it shares with ours is kept: its shift,
            and all settings of one of ours. Without any, steps are Euler's.
        chosen: Settings of `FlowSolverScheduler` by name; those that are None are not asked for.
    """
    asked = {name: value for name, value in chosen.items() if value is not None}
    if not asked:
        return usual
    kept: dict[str, Any] = {"solver": "euler"}
    kept |= {name: usual.config[name] for name in SCHEDULER_SETTINGS if name in usual.config}
    if asked.get("solver") in ADAPTIVE:
        kept = {name: value for name, value in kept.items() if name not in ("schedule", "shift")}
    return FlowSolverScheduler(**kept | asked)
