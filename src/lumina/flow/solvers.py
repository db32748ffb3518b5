"""Solvers: how to follow a velocity from noise to data.

Each is a generator. It asks for the velocity at a point and a time, is sent it, and goes on; so
one definition serves `integrate`, a scheduler of diffusers and anything else that can answer.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from lumina.errors import LuminaError, UnknownNameError
from lumina.types import Velocity


class Ask(NamedTuple):
    """Where a solver needs the velocity next."""

    x: Float[Tensor, "b *grid"]
    time: Float[Tensor, ""]
    stop: Float[Tensor, "b *grid"] | None = None
    """The sample, at one of the times to stop at. None between two of them."""


class Answer(NamedTuple):
    """The velocity there, and where the sample is if somebody moved it."""

    velocity: Float[Tensor, "b *grid"]
    moved: Float[Tensor, "b *grid"] | None = None


Steps = Generator[Ask, Answer, Tensor]
"""Asks, answers, and in the end the sample."""


@dataclass(frozen=True)
class Solver:
    """A way to follow a velocity.

    Args:
        order: The error after a fixed time shrinks with this power of the step.
        evaluations: Velocities that each step takes. None: as many as it needs.
        follow: Takes the sample and the times to stop at, the start included.
    """

    order: int
    evaluations: int | None
    follow: Callable[[Tensor, Tensor], Steps]


class Tableau(NamedTuple):
    """Coefficients of an explicit Runge-Kutta method.

    Args:
        nodes: Where in a step each velocity is taken, from 0 to 1.
        rows: How each point is reached from the velocities before it.
        weights: How the step is made of all velocities.
    """

    nodes: tuple[float, ...]
    rows: tuple[tuple[float, ...], ...]
    weights: tuple[float, ...]

    def follow(self, x: Float[Tensor, "b *grid"], times: Float[Tensor, " points"]) -> Steps:
        """Take every step alike."""
        for start, end in zip(times[:-1], times[1:], strict=True):
            step = end - start
            slopes: list[Tensor] = []
            for node, row in zip(self.nodes, self.rows, strict=True):
                point = _sum(x, slopes, row, step)
                answer = yield Ask(point, start + node * step, None if slopes else x)
                if not slopes and answer.moved is not None:
                    x = answer.moved
                slopes.append(answer.velocity)
            x = _sum(x, slopes, self.weights, step)
        return x


def adams_bashforth(x: Float[Tensor, "b *grid"], times: Float[Tensor, " points"]) -> Steps:
    """Go along the line through this velocity and the one before; the first step is Euler's."""
    before: tuple[Tensor, Tensor] | None = None  # the last step, and the velocity it began with
    for start, end in zip(times[:-1], times[1:], strict=True):
        step = end - start
        answer = yield Ask(x, start, x)
        if answer.moved is not None:  # what was there before says nothing about there
            x, before = answer.moved, None
        slope = answer.velocity
        if before is not None:
            slope = slope + step / before[0] / 2 * (slope - before[1])
        before = step, answer.velocity
        x = x + step * slope
    return x


def dpm_solver(x: Float[Tensor, "b *grid"], times: Float[Tensor, " points"]) -> Steps:
    """DPM-Solver++ (2M) for straight paths: steps that are exact while the expected data is so.

    Steps that begin at pure noise or end at data are of first order, since the ratio of signal to
    noise, in whose logarithm the steps are measured, is 0 or infinite there.

    Source:
        DPM-Solver++, arXiv:2211.01095, algorithm 2.
    """
    before: tuple[Tensor, Tensor] | None = None  # the last step, and the data expected at its start
    for start, end in zip(times[:-1], times[1:], strict=True):
        answer = yield Ask(x, start, x)
        if answer.moved is not None:
            x, before = answer.moved, None
        data = x + (1 - start) * answer.velocity
        step = _log_ratio(end) - _log_ratio(start)
        target = data
        if before is not None and before[0].isfinite() and step.isfinite():
            target = data + step / before[0] / 2 * (data - before[1])
        before = step, data
        x = _toward(x, target, start, end)
    return x


def unipc(x: Float[Tensor, "b *grid"], times: Float[Tensor, " points"]) -> Steps:
    """UniPC of second order with its corrector: each velocity also mends the step before it.

    As in `dpm_solver`, steps from noise and to data are of first order.

    Source:
        UniPC, arXiv:2302.04867, algorithms 5 and 6 with B(h) = exp(h) - 1.
    """
    history: list[tuple[Tensor, Tensor]] = []  # the logarithm of the ratio, and the data there
    start_x = x
    for index, (start, end) in enumerate(zip(times[:-1], times[1:], strict=True)):
        answer = yield Ask(x, start, x)
        if answer.moved is not None:
            x, history = answer.moved, []
        data = x + (1 - start) * answer.velocity
        if history:
            x = _correct(start_x, history, data, times[index - 1], start)
        history.append((_log_ratio(start), data))
        start_x = x
        x = _predict(x, history, start, end)
    return x


def dormand_prince(*, relative: float = 1e-3, absolute: float = 1e-6) -> Solver:
    """Steps of order 5 as long as an error estimate of order 4 allows; the size is one for all.

    Args:
        relative: Allowed error relative to the sample.
        absolute: Allowed error beside it.

    Raises:
        LuminaError: If neither is above 0.

    Source:
        Dormand and Prince, "A family of embedded Runge-Kutta formulae" (1980).
    """
    if relative < 0 or absolute < 0 or relative + absolute == 0:
        raise LuminaError(
            f"the tolerances are {relative} and {absolute}", hint="one of them has to be above 0"
        )

    def follow(x: Float[Tensor, "b *grid"], times: Float[Tensor, " points"]) -> Steps:
        size = None
        for start, stop in zip(times[:-1], times[1:], strict=True):
            time = start
            answer = yield Ask(x, time, x)
            x = x if answer.moved is None else answer.moved
            slope = answer.velocity
            size = (stop - start) / 10 if size is None else size
            while time < stop:
                is_last = bool(time + size >= stop)
                step = stop - time if is_last else size
                slopes = [slope]
                for node, row in zip(_DOPRI.nodes[1:], _DOPRI.rows[1:], strict=True):
                    point = _sum(x, slopes, row, step)
                    slopes.append((yield Ask(point, time + node * step)).velocity)
                error = _sum(torch.zeros_like(x), slopes, _DOPRI_ERROR, step)
                end = _sum(x, slopes, _DOPRI.weights, step)
                allowed = absolute + relative * torch.maximum(x.abs(), end.abs())
                ratio = (error / allowed).square().mean().sqrt()
                if not ratio.isfinite():
                    raise LuminaError(
                        f"the velocity near time {time.item():.3g} is not a number",
                        hint="take a solver of fixed steps, and look at the model's output",
                    )
                size_next = step * (0.9 * ratio.clamp(min=1e-10) ** -0.2).clamp(0.2, 5)
                if ratio > 1:
                    size = size_next
                    continue
                # A step that was cut short to stop says nothing about longer ones.
                size = torch.maximum(size, size_next) if is_last else size_next
                time, x, slope = (stop if is_last else time + step), end, slopes[-1]
        return x

    return Solver(5, None, follow)


_DOPRI = Tableau(
    (0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1, 1),
    (
        (),
        (1 / 5,),
        (3 / 40, 9 / 40),
        (44 / 45, -56 / 15, 32 / 9),
        (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
        (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
        (35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
    ),
    (35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84, 0),
)
_DOPRI_FOURTH = (5179 / 57600, 0, 7571 / 16695, 393 / 640, -92097 / 339200, 187 / 2100, 1 / 40)
_DOPRI_ERROR = tuple(a - b for a, b in zip(_DOPRI.weights, _DOPRI_FOURTH, strict=True))

_MIDPOINT = Tableau((0, 1 / 2), ((), (1 / 2,)), (0, 1))
_HEUN = Tableau((0, 1), ((), (1,)), (1 / 2, 1 / 2))
# The rule of three eighths, as `rk4` of torchdiffeq, which the original code calls.
_THREE_EIGHTHS = Tableau(
    (0, 1 / 3, 2 / 3, 1), ((), (1 / 3,), (-1 / 3, 1), (1, -1, 1)), (1 / 8, 3 / 8, 3 / 8, 1 / 8)
)

SOLVERS = {
    "euler": Solver(1, 1, Tableau((0,), ((),), (1,)).follow),
    "midpoint": Solver(2, 2, _MIDPOINT.follow),
    "heun": Solver(2, 2, _HEUN.follow),
    "rk4": Solver(4, 4, _THREE_EIGHTHS.follow),
    "ab2": Solver(2, 1, adams_bashforth),
    "dpm++": Solver(2, 1, dpm_solver),
    "unipc": Solver(3, 1, unipc),
    "dopri5": dormand_prince(),
}
"""Solvers by name. Those that add noise are made by `lumina.flow.stochastic`."""


def find_solver(name: str) -> Solver:
    """The solver of a name.

    Raises:
        UnknownNameError: If there is none.
    """
    if name not in SOLVERS:
        raise UnknownNameError.among(SOLVERS, name, kind="solver")
    return SOLVERS[name]


def integrate(
    velocity: Velocity,
    x: Float[Tensor, "b *grid"],
    times: Float[Tensor, " points"],
    *,
    solver: Solver,
) -> Float[Tensor, "stops b *grid"]:
    """Follow a velocity through all times.

    Args:
        velocity: Direction at a point and a time.
        x: Where to start.
        times: Where to stop, the start included; of n times, n - 1 steps.
        solver: How to get from each to the next.

    Returns:
        The point at each time. Solvers that mend a step afterwards show it before that, and those
        that stay where they are in the last step have one point less.
    """
    points = []
    steps = solver.follow(x, times)
    ask = next(steps)
    while True:
        if ask.stop is not None:
            points.append(ask.stop)
        try:
            ask = steps.send(Answer(velocity(ask.x, ask.time)))
        except StopIteration as end:
            return torch.stack([*points, end.value])


def _sum(x: Tensor, slopes: list[Tensor], row: tuple[float, ...], step: Tensor) -> Tensor:
    for weight, slope in zip(row, slopes, strict=True):
        if weight:
            x = x + step * weight * slope
    return x


def _log_ratio(time: Tensor) -> Tensor:
    """Logarithm of signal over noise."""
    return torch.logit(time)


def _toward(x: Tensor, data: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """Where a sample gets if the expected data stays the same."""
    rest = (1 - end) / (1 - start)
    return rest * x + (end - start * rest) * data


def _predict(x: Tensor, history: list[tuple[Tensor, Tensor]], start: Tensor, end: Tensor) -> Tensor:
    ratio, data = history[-1]
    step = _log_ratio(end) - ratio
    target = data
    if len(history) > 1 and history[-2][0].isfinite() and step.isfinite():
        before_ratio, before = history[-2]
        target = data + step / (ratio - before_ratio) / 2 * (data - before)
    return _toward(x, target, start, end)


def _correct(
    x: Tensor, history: list[tuple[Tensor, Tensor]], data: Tensor, start: Tensor, end: Tensor
) -> Tensor:
    """The last step again, now that the data at its end is known.

    With B(h) = exp(h) - 1 the weights solve a system of as many equations as there are known
    differences of data: one at the first step, two from then on.
    """
    ratio, own = history[-1]
    step = _log_ratio(end) - ratio
    if not step.isfinite():
        return _toward(x, own, start, end)
    first = torch.expm1(-step)
    second = first / -step - 1
    third = second / -step - 0.5
    b1, b2 = second / first, 2 * third / first
    if len(history) < 2 or not history[-2][0].isfinite():
        target = own + 0.5 * (data - own)
    else:
        before_ratio, before = history[-2]
        r = (before_ratio - ratio) / step
        # From  w + c = b1 and  r w + c = b2, where c weighs the new difference.
        w = (b1 - b2) / (1 - r)
        target = own + w * (before - own) / r + (b1 - w) * (data - own)
    return _toward(x, target, start, end)
