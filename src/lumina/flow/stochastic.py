"""The flow as a stochastic differential equation: the same samples, with noise on the way."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from lumina.errors import LuminaError, UnknownNameError
from lumina.flow.path import LINEAR, Path
from lumina.flow.solvers import Ask, Solver, Steps
from lumina.requests import DIFFUSIONS, LAST_STEPS

METHODS = {"sde": "euler", "sde-heun": "heun"}
"""Methods of `stochastic` by the names of their solvers."""

Draw = Callable[[Tensor], Tensor]
"""Standard normal noise of the shape of a sample."""


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


def stochastic(
    draw: Draw,
    *,
    form: str = "sigma",
    norm: float = 1.0,
    path: Path = LINEAR,
    method: str = "euler",
    last_step: str = "mean",
) -> Solver:
    """Follow a velocity with noise added, and with as much of the score as that noise asks for.

    The last of the steps adds no noise. Times at which the score or the diffusion has a pole (pure
    noise and data, depending on `form`) have to be left out, but for the last one, data: see
    `lumina.flow.times.interval`.

    Args:
        draw: Gives the noise of each step but the last.
        form: How much noise, as in `diffusion_at`.
        norm: Scales it.
        path: The path that the velocity is of.
        method: "euler" (Euler-Maruyama) or "heun".
        last_step: How to take the last step: along the drift ("mean"), to the expected data
            ("tweedie"), along the velocity ("euler"), or "none", which stays.

    Raises:
        UnknownNameError: If there is no such form, method or last step.
        LuminaError: Once it follows, if a time lies on a pole.

    Source:
        SiT, arXiv:2401.08740, section 2.3; `transport/integrators.py` of the original code.
    """
    for kind, known, name in (
        ("diffusion", DIFFUSIONS, form),
        ("method", METHODS.values(), method),
        ("last step", LAST_STEPS, last_step),
    ):
        if name not in known:
            raise UnknownNameError.among(known, name, kind=kind)

    def drift(velocity: Tensor, x: Tensor, time: Tensor) -> Tensor:
        amount = diffusion_at(time, form, path=path, norm=norm)
        return velocity + amount * path.to_score(velocity, x, time)

    def follow(x: Float[Tensor, "b *grid"], times: Float[Tensor, " points"]) -> Steps:
        amounts = diffusion_at(times[:-1], form, path=path, norm=norm)
        _check_poles(times[:-1], amounts, form)
        noisy = zip(times[:-2], times[1:-1], amounts[:-1], strict=True)
        for start, end, amount in noisy:
            step = end - start
            kick = (2 * amount * step).sqrt() * draw(x)
            point = x + kick if method == "heun" else x
            answer = yield Ask(point, start, x)
            point = point if answer.moved is None else answer.moved
            slope = drift(answer.velocity, point, start)
            if method == "euler":
                x = point + step * slope + kick
                continue
            ahead = point + step * slope
            answer = yield Ask(ahead, end)
            x = point + step / 2 * (slope + drift(answer.velocity, ahead, end))
        if last_step == "none":
            return x
        time = times[-2]
        answer = yield Ask(x, time, x)
        x = x if answer.moved is None else answer.moved
        if last_step == "tweedie":
            alpha, sigma = path.alpha(time), path.sigma(time)
            score = path.to_score(answer.velocity, x, time)
            return x / alpha + sigma.square() / alpha * score
        is_mean = last_step == "mean"
        slope = drift(answer.velocity, x, time) if is_mean else answer.velocity
        return x + (times[-1] - time) * slope

    return Solver(1, 2 if method == "heun" else 1, follow)


def _check_poles(times: Tensor, amounts: Tensor, form: str) -> None:
    is_pole = ~amounts.isfinite() | ((times >= 1) & (amounts != 0))
    if is_pole.any():
        time = times[is_pole][0].item()
        raise LuminaError(
            f"the diffusion {form!r} or the score has a pole at time {time:.4g}",
            hint="start after 0 or end before 1, such as 0.001 and 0.96",
        )
