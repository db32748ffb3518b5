"""Our solvers as a scheduler of diffusers."""

from dataclasses import dataclass

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.schedulers.scheduling_utils import SchedulerMixin, SchedulerOutput
from jaxtyping import Float, Num
from torch import Tensor

from lumina.errors import UnknownNameError
from lumina.flow.solvers import SOLVERS
from lumina.flow.times import shift_times, uniform_times


@dataclass
class _Stage:
    """Where in a sample one velocity is taken."""

    is_last: bool
    step: float


class FlowSolverScheduler(SchedulerMixin, ConfigMixin):
    """Follow a flow with a Runge-Kutta method, on shifted times.

    A step of a method of several velocities is several steps of diffusers' loop, and so there are
    more `timesteps` than were asked for; what a callback makes of the sample inside of such a step
    has no effect. Steps are computed in float32.

    Args:
        num_train_timesteps: What the timestep of noise is; that of data is 0.
        solver: "euler", "midpoint", "heun" or "rk4".
        shift: Above 1 takes smaller steps near noise. Source: see `lumina.flow.times`.

    Raises:
        UnknownNameError: If there is no such solver.
    """

    order = 1  # of the timesteps, each is one step of diffusers' loops
    init_noise_sigma = 1.0

    @register_to_config
    def __init__(
        self, num_train_timesteps: int = 1000, solver: str = "midpoint", shift: float = 1.0
    ):
        if solver not in SOLVERS:
            raise UnknownNameError.among(SOLVERS, solver, kind="solver")
        self.method = SOLVERS[solver]
        self.set_timesteps(1)

    def set_timesteps(
        self, num_inference_steps: int, device: torch.device | str | None = None
    ) -> None:
        """Begin a sample of a number of steps, each of as many velocities as the solver takes."""
        times = shift_times(uniform_times(num_inference_steps), self.config["shift"])
        steps = times.diff()
        nodes = torch.tensor(self.method.nodes)
        taken = (times[:-1, None] + nodes * steps[:, None]).flatten()
        self.timesteps = ((1 - taken) * self.config["num_train_timesteps"]).to(device)
        self.num_inference_steps = num_inference_steps
        self._stages = [
            _Stage(index + 1 == self.method.evaluations, step)
            for step in steps.tolist()
            for index in range(self.method.evaluations)
        ]
        self._index = 0
        self._start: Tensor | None = None
        self._slopes: list[Tensor] = []

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Begin at another of the `timesteps`, one that starts a step."""
        self._index = begin_index

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
        stage = self._stages[self._index]
        if self._start is None:
            self._start = sample.float()
        self._slopes.append(-model_output.float())
        moved = self.method.point(self._start, self._slopes, stage.step)
        if stage.is_last:
            self._start, self._slopes = None, []
        self._index += 1
        previous = moved.to(sample.dtype)
        return SchedulerOutput(prev_sample=previous) if return_dict else (previous,)

    def __len__(self) -> int:
        return int(self.config["num_train_timesteps"])
