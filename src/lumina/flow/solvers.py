"""Explicit Runge-Kutta methods, which follow a velocity from one time to the next."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from lumina.types import Velocity


class RungeKutta(NamedTuple):
    """A method, as its table of coefficients.

    Args:
        order: The error after a fixed time shrinks with this power of the step.
        nodes: Where in a step each velocity is taken, from 0 to 1.
        rows: How each point is reached from the velocities before it.
        weights: How the step is made of all velocities.
    """

    order: int
    nodes: tuple[float, ...]
    rows: tuple[tuple[float, ...], ...]
    weights: tuple[float, ...]

    @property
    def evaluations(self) -> int:
        """Velocities that one step takes."""
        return len(self.nodes)

    def point(
        self,
        x: Float[Tensor, "b *grid"],
        slopes: list[Float[Tensor, "b *grid"]],
        step: float | Float[Tensor, ""],
    ) -> Float[Tensor, "b *grid"]:
        """Where the next velocity is taken, or where the step ends once all are there."""
        is_whole = len(slopes) == self.evaluations
        row = self.weights if is_whole else self.rows[len(slopes)]
        for weight, slope in zip(row, slopes, strict=True):
            if weight:
                x = x + step * weight * slope
        return x


SOLVERS = {
    "euler": RungeKutta(1, (0,), ((),), (1,)),
    "midpoint": RungeKutta(2, (0, 1 / 2), ((), (1 / 2,)), (0, 1)),
    "heun": RungeKutta(2, (0, 1), ((), (1,)), (1 / 2, 1 / 2)),
    # The rule of three eighths, as `rk4` of torchdiffeq, which the original code calls.
    "rk4": RungeKutta(
        4,
        (0, 1 / 3, 2 / 3, 1),
        ((), (1 / 3,), (-1 / 3, 1), (1, -1, 1)),
        (1 / 8, 3 / 8, 3 / 8, 1 / 8),
    ),
}
"""Methods by name."""


def integrate(
    velocity: Velocity,
    x: Float[Tensor, "b *grid"],
    times: Float[Tensor, " points"],
    *,
    solver: RungeKutta,
) -> Float[Tensor, "points b *grid"]:
    """Follow a velocity through all times.

    Args:
        velocity: Direction at a point and a time.
        x: Where to start.
        times: Where to stop, the start included; of n times, n - 1 steps.
        solver: How to take each step.

    Returns:
        The point at each time.
    """
    points = [x]
    for start, end in zip(times[:-1], times[1:], strict=True):
        step = end - start
        slopes: list[Tensor] = []
        for node in solver.nodes:
            slopes.append(velocity(solver.point(points[-1], slopes, step), start + node * step))
        points.append(solver.point(points[-1], slopes, step))
    return torch.stack(points)
