"""The flow as a stochastic differential equation: the same samples, with noise on the way."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from lumina.errors import LuminaError, UnknownNameError
from lumina.flow.path import LINEAR, Path
from lumina.types import Velocity

DIFFUSIONS = ("constant", "sbdm", "sigma", "linear", "decreasing", "increasing-decreasing")
METHODS = ("euler", "heun")
LAST_STEPS = (None, "mean", "tweedie", "euler")


def diffusion_at(
    times: Float[Tensor, "*b"], form: str, *, path: Path = LINEAR, norm: float = 1.0
) -> Float[Tensor, "*b"]:
    """How much noise is added at each time, as half the variance per unit of time.

    Args:
        times: Between 0 (noise) and 1 (data).
        form: One of `DIFFUSIONS`; "sbdm" is as much as diffusion models have on this path.
        path: The path, which "sbdm" and "sigma" follow.
        norm: Scales it.

    Raises:
        UnknownNameError: If there is no such form.

    Source:
        SiT, arXiv:2401.08740, table 2, and `compute_diffusion` of its code.
    """
    if form == "constant":
        return torch.full_like(times, norm)
    if form == "sbdm":
        return norm * path.pull(times)
    if form == "sigma":
        return norm * path.sigma(times)
    if form == "linear":
        return norm * (1 - times)
    if form == "decreasing":
        return 0.25 * (norm * (math.pi * times).cos() + 1) ** 2
    if form == "increasing-decreasing":
        return norm * (math.pi * times).sin() ** 2
    raise UnknownNameError.among(DIFFUSIONS, form, kind="diffusion")


def integrate_with_noise(
    velocity: Velocity,
    x: Float[Tensor, "b *grid"],
    times: Float[Tensor, " points"],
    *,
    draw: Callable[[int], Tensor],
    form: str = "sigma",
    norm: float = 1.0,
    path: Path = LINEAR,
    method: str = "euler",
    last_step: str | None = "mean",
) -> Float[Tensor, "points b *grid"]:
    """Follow a velocity with noise added, and with as much of the score as that noise asks for.

    Args:
        velocity: Direction at a point and a time.
        x: Where to start.
        times: Equal steps. Those at which the score or the diffusion has a pole (pure noise and
            data, depending on `form`) have to be left out; see `lumina.flow.times.interval`.
        draw: Standard normal noise of a step, by its number.
        form: How much noise, as in `diffusion_at`.
        norm: Scales it.
        path: The path that the velocity is of.
        method: "euler" (Euler-Maruyama) or "heun".
        last_step: How to get from the last time to 1 without noise: along the drift ("mean"), to
            the expected data ("tweedie"), along the velocity ("euler"), or None, which stays.

    Returns:
        The point after each step, and after the last step to 1.

    Raises:
        UnknownNameError: If there is no such form, method or last step.
        LuminaError: If a time lies on a pole.

    Source:
        SiT, arXiv:2401.08740, section 2.3; `transport/integrators.py` of the original code.
    """
    if method not in METHODS:
        raise UnknownNameError.among(METHODS, method, kind="method")
    if last_step not in LAST_STEPS:
        raise UnknownNameError.among(map(str, LAST_STEPS), str(last_step), kind="last step")
    noises = diffusion_at(times, form, path=path, norm=norm)
    _check_poles(times, noises, form)

    def drift(x: Tensor, t: Tensor) -> Tensor:
        flow = velocity(x, t)
        return flow + diffusion_at(t, form, path=path, norm=norm) * path.to_score(flow, x, t)

    points = []
    for index, (start, end) in enumerate(zip(times[:-1], times[1:], strict=True)):
        step = end - start
        kick = (2 * noises[index] * step).sqrt() * draw(index)
        if method == "euler":
            x = x + step * drift(x, start) + kick
        else:
            x = x + kick
            slope = drift(x, start)
            x = x + step / 2 * (slope + drift(x + step * slope, end))
        points.append(x)
    return torch.stack([*points, _finish(x, times[-1], drift, velocity, path, last_step)])


def _finish(
    x: Tensor, time: Tensor, drift: Velocity, velocity: Velocity, path: Path, last_step: str | None
) -> Tensor:
    if last_step is None:
        return x
    if last_step == "tweedie":
        alpha, sigma = path.alpha(time), path.sigma(time)
        return x / alpha + sigma.square() / alpha * path.to_score(velocity(x, time), x, time)
    return x + (1 - time) * (drift if last_step == "mean" else velocity)(x, time)


def _check_poles(times: Tensor, noises: Tensor, form: str) -> None:
    is_pole = ~noises.isfinite() | ((times >= 1) & (noises != 0))
    if is_pole.any():
        time = times[is_pole][0].item()
        raise LuminaError(
            f"the diffusion {form!r} or the score has a pole at time {time:.4g}",
            hint="start after 0 or end before 1, such as 0.001 and 0.96",
        )
