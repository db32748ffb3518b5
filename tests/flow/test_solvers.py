import math

import pytest
import torch

from lumina.flow.solvers import SOLVERS, integrate
from lumina.flow.times import uniform_times


def rotate_and_grow(x, t):
    """A velocity whose solution is known: x(t) = x(0) exp(t² / 2)."""
    return t * x


def error(solver, steps):
    x = torch.ones(1, 1, dtype=torch.float64)
    end = integrate(rotate_and_grow, x, uniform_times(steps).double(), solver=solver)[-1]
    return (end - math.exp(0.5)).abs().item()


@pytest.mark.parametrize("name", SOLVERS)
def test_the_error_shrinks_with_the_order_that_the_method_has(name):
    solver = SOLVERS[name]
    order = math.log2(error(solver, 16) / error(solver, 32))
    assert order == pytest.approx(solver.order, abs=0.2)


@pytest.mark.parametrize("name", SOLVERS)
def test_a_straight_flow_takes_one_step(name):
    x, direction = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    end = integrate(lambda x, t: direction, x, uniform_times(1), solver=SOLVERS[name])[-1]
    torch.testing.assert_close(end, x + direction)


def test_all_times_are_kept_and_as_many_velocities_taken_as_the_method_says():
    for solver in SOLVERS.values():
        asked = []

        def velocity(x, t, asked=asked):
            asked.append(t)
            return x

        points = integrate(velocity, torch.ones(2, 1), uniform_times(3), solver=solver)
        assert points.shape == (4, 2, 1)
        assert len(asked) == 3 * solver.evaluations
