"""Our solvers and schedules as a scheduler of diffusers."""

from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.schedulers.scheduling_utils import SchedulerMixin, SchedulerOutput
from jaxtyping import Float, Num
from torch import Tensor

from lumina.errors import LuminaError, UnknownNameError
from lumina.flow.solvers import SOLVERS, Answer, Ask, Solver, Steps, find_solver
from lumina.flow.times import SIGMOID, check_times, shift_times, sigmoid_times, uniform_times
from lumina.requests import SCHEDULES


class FlowSolverScheduler(SchedulerMixin, ConfigMixin):
    """Follow a flow with any solver of fixed steps, on any schedule.

    A step of a solver of several velocities is several steps of diffusers' loop, and so there are
    more `timesteps` than were asked for; what a callback makes of the sample inside of such a step
    has no effect. Between two steps it has. The state stays in float32.

    Args:
        num_train_timesteps: What the timestep of noise is; that of data is 0.
        solver: "euler", "midpoint", "heun", "rk4", "ab2", "dpm++" or "unipc".
        schedule: "uniform", or "sigmoid" with the constants of Lumina-Next.
        shift: Above 1 takes smaller steps near noise. Source: see `lumina.flow.times`.

    Raises:
        UnknownNameError: If there is no such solver or schedule.
        LuminaError: If the solver chooses its steps itself, or the shift is not above 0.
    """

    init_noise_sigma = 1.0

    @register_to_config
    def __init__(
        self,
        num_train_timesteps: int = 1000,
        solver: str = "midpoint",
        schedule: str = "uniform",
        shift: float = 1.0,
    ):
        self.solver = find_solver(solver)
        if self.solver.evaluations is None:
            fixed = [name for name, other in SOLVERS.items() if other.evaluations]
            raise LuminaError(
                f"{solver} chooses its steps itself, and diffusers' loops have a fixed number",
                hint=f"use one of {', '.join(fixed)}",
            )
        if schedule not in SCHEDULES:
            raise UnknownNameError.among(SCHEDULES, schedule, kind="schedule")
        self.order = self.solver.evaluations  # timesteps of each step, as diffusers counts them
        self.set_timesteps(1)

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
        """
        if sigmas is not None:
            ends = [1 - sigma for sigma in sigmas]
            times = check_times(ends if ends[-1] == 1 else [*ends, 1.0])
        else:
            times = uniform_times(num_inference_steps or 0)
            if self.config["schedule"] == "sigmoid":
                times = sigmoid_times(times, **SIGMOID)
            times = shift_times(times, self.config["shift"])
        asked = _times_asked(self.solver, times)
        self.timesteps = ((1 - asked) * self.config["num_train_timesteps"]).to(device)
        self.num_inference_steps = len(times) - 1
        self._times = times
        self._steps: Steps | None = None
        self._ask: Ask | None = None
        self._returned: Tensor | None = None

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

    def step(
        self,
        model_output: Float[Tensor, "b *grid"],
        timestep: Num[Tensor, ""] | float,
        sample: Float[Tensor, "b *grid"],
        return_dict: bool = True,
    ) -> SchedulerOutput | tuple[Float[Tensor, "b *grid"]]:
        """Move to where the next velocity is needed.

        Args:
            model_output: Velocity toward noise, as diffusers' schedulers take it.
            timestep: Has no effect: calls follow the order of `timesteps`.
            sample: Where the velocity was taken.
            return_dict: Whether to return an object rather than a tuple.
        """
        if self._steps is None:
            self._steps = self.solver.follow(sample.float(), self._times.to(sample.device))
            self._ask = next(self._steps)
        is_moved = self._returned is not None and sample is not self._returned
        answer = Answer(-model_output.float(), sample.float() if is_moved else None)
        try:
            self._ask = self._steps.send(answer)
            moved = self._ask.x
        except StopIteration as end:
            moved = end.value
        self._returned = moved.to(sample.dtype)
        output: Any = self._returned
        return SchedulerOutput(prev_sample=output) if return_dict else (output,)

    def __len__(self) -> int:
        return int(self.config["num_train_timesteps"])


def _times_asked(solver: Solver, times: Float[Tensor, " points"]) -> Float[Tensor, " asked"]:
    """The times at which a solver takes velocities, found by a run on a single zero."""
    steps = solver.follow(torch.zeros(1), times)
    asked, ask = [], next(steps)
    while True:
        asked.append(ask.time)
        try:
            ask = steps.send(Answer(torch.zeros(1)))
        except StopIteration:
            return torch.stack(asked)


def choose_scheduler(
    usual: Any, *, solver: str | None, schedule: str | None, shift: float | None
) -> Any:
    """The usual scheduler of a model, or one of ours where anything else is asked for.

    Args:
        usual: What is taken if nothing is asked for.
        solver: As in `FlowSolverScheduler`. None is Euler's.
        schedule: As there. None is uniform.
        shift: As there. None is 1.
    """
    if solver is schedule is shift is None:
        return usual
    return FlowSolverScheduler(
        solver=solver or "euler",
        schedule=schedule or "uniform",
        shift=1.0 if shift is None else shift,
    )
