"""The steps of a sampler, as diffusers' schedulers count and take them."""

import inspect
import math
from collections.abc import Iterator
from numbers import Integral
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Num
from torch import Tensor

from lumina.requests import check_steps


@runtime_checkable
class Scheduler(Protocol):
    """What schedulers of diffusers have in common, which their base class does not declare."""

    @property
    def config(self) -> Any:
        """The settings, as a dictionary whose keys are attributes too."""
        ...

    @property
    def timesteps(self) -> Tensor:
        """The timesteps of the sample that was begun last."""
        ...

    def set_timesteps(self, *args: Any, **kwargs: Any) -> None:
        """Begin a sample."""
        ...

    def step(self, *args: Any, **kwargs: Any) -> Any:
        """Take one step."""
        ...


def begin_steps(
    scheduler: Scheduler,
    steps: int,
    *,
    sigmas: list[float] | None = None,
    tokens: int,
    device: torch.device | str,
    skip: int = 0,
) -> Num[Tensor, " s"]:
    """Make a scheduler ready for one sample.

    Args:
        scheduler: Any flow scheduler of diffusers, or one with `use_flow_sigmas`.
        steps: How many steps to take, unless `sigmas` says it.
        sigmas: Shares of noise to stop at, decreasing from 1.
        tokens: Patches of the sample, which dynamic shifting depends on.
        device: Where the timesteps are wanted.
        skip: How many of the first steps to leave out, for a sample that is on its way.

    Returns:
        The timesteps that the scheduler's `step` expects, in order.

    Raises:
        LuminaError: If the solver of the scheduler needs more steps than are left.
        ValueError: If `steps` is no whole number above 0, or the scheduler takes no `sigmas`.
    """
    options: dict[str, Any] = {"device": device}
    if sigmas is not None:
        if "sigmas" not in inspect.signature(scheduler.set_timesteps).parameters:
            raise ValueError(
                f"The current scheduler class {scheduler.__class__}'s `set_timesteps` does not"
                " support custom sigmas schedules. Please check whether you are using the"
                " correct scheduler."
            )
        options["sigmas"] = sigmas
    elif isinstance(steps, bool) or not isinstance(steps, Integral):
        raise ValueError(f"`num_inference_steps` has to be a whole number but is {steps!r}.")
    elif steps < 1:
        raise ValueError(f"`num_inference_steps` has to be 1 or more but is {steps}.")
    else:
        options["num_inference_steps"] = steps
    if scheduler.config.get("use_dynamic_shifting", False):
        options["mu"] = dynamic_shift(scheduler.config, tokens)
    scheduler.set_timesteps(**options)
    # Else a scheduler looks its first step up on the device, and waits for the answer.
    order = getattr(scheduler, "order", 1)
    begin = skip * order
    set_begin_index = getattr(scheduler, "set_begin_index", None)
    if set_begin_index is not None:
        set_begin_index(begin)
    timesteps = scheduler.timesteps[begin:]
    # Some take fewer timesteps in their last step.
    check_steps(scheduler.config.get("solver"), math.ceil(len(timesteps) / order))
    return timesteps


def dynamic_shift(config: dict[str, Any], tokens: int) -> float:
    """Strength of time shifting for a sample of this many tokens, on a line through two sizes.

    Source:
        Stable Diffusion 3, arXiv:2403.03206, as the configuration of diffusers' flow
        schedulers describes it; the numbers are the defaults of that configuration.
    """
    fewest, most = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    low, high = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
    return low + (high - low) * (tokens - fewest) / (most - fewest)


def step_options(
    scheduler: Scheduler, generator: torch.Generator | list[torch.Generator] | None
) -> dict[str, Any]:
    """What this scheduler's `step` takes besides a velocity: randomness and its amount."""
    known = inspect.signature(scheduler.step).parameters
    options = {"generator": generator, "eta": 0.0}
    return {name: value for name, value in options.items() if name in known}


def begin_sample(
    scheduler: Scheduler,
    x: Float[Tensor, "b *grid"],
    generator: torch.Generator | list[torch.Generator] | None,
) -> Float[Tensor, "b *grid"]:
    """Where the first velocity is needed: at the sample, or with noise added to it."""
    begin = getattr(scheduler, "begin_sample", None)
    return x if begin is None else begin(x, generator)


def flow_times(scheduler: Scheduler, timesteps: Num[Tensor, "*s"]) -> Float[Tensor, "*s"]:
    """Turn a scheduler's timesteps, which count noise, into times from noise at 0 to data at 1."""
    return 1 - timesteps / scheduler.config.num_train_timesteps


def asked_times(
    scheduler: Scheduler, timesteps: Num[Tensor, " s"]
) -> Iterator[tuple[Num[Tensor, ""], float]]:
    """Where velocities are needed, one after the other: timesteps, each with its time.

    Args:
        scheduler: Takes a step with each of them before the next one is asked for.
        timesteps: What `begin_steps` gave.
    """
    if not getattr(scheduler, "is_adaptive", False):
        # All at once, since a device would be waited for at each.
        yield from zip(timesteps, flow_times(scheduler, timesteps).tolist(), strict=True)
        return
    following: Any = scheduler
    while (timestep := following.next_timestep) is not None:
        yield timestep, flow_times(scheduler, timestep).item()
