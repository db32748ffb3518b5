import math

import pytest
import torch

from lumina import requests
from lumina.errors import LuminaError
from lumina.flow.solvers import SOLVERS, dormand_prince, find_solver, integrate
from lumina.flow.stochastic import METHODS
from lumina.flow.times import uniform_times

FIXED = {name: solver for name, solver in SOLVERS.items() if solver.evaluations}
FROM, TO = 0.1, 0.9  # steps measured in signal over noise need both


def swirl(x, t):
    """A nonlinear velocity that depends on time: the logistic equation with a driven rate.

    Its solution is known: 1 / x goes to 1 as exp(-the integral of the rate).
    """
    return (2 + torch.sin(5 * t)) * x * (1 - x)


def solution(x, t):
    grown = 2 * (t - FROM) - (math.cos(5 * t) - math.cos(5 * FROM)) / 5
    return 1 / (1 + (1 / x - 1) * math.exp(-grown))


def error(solver, steps):
    x = torch.tensor([[0.1, 0.4]], dtype=torch.float64)
    times = FROM + (TO - FROM) * torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    end = integrate(swirl, x, times, solver=solver)[-1]
    return (end - solution(x, TO)).abs().max().item()


@pytest.mark.parametrize("name", FIXED)
def test_the_error_shrinks_with_the_order_that_the_solver_has(name):
    coarse, fine = (128, 512) if FIXED[name].order < 4 else (32, 128)
    slope = math.log(error(FIXED[name], coarse) / error(FIXED[name], fine), fine / coarse)
    assert slope == pytest.approx(FIXED[name].order, rel=0.05)


@pytest.mark.parametrize("tolerance", [1e-3, 1e-5, 1e-8])
def test_an_adaptive_solver_stays_within_its_tolerance(tolerance):
    found = error(dormand_prince(relative=tolerance, absolute=tolerance), 1)
    assert found <= 10 * tolerance


def test_an_adaptive_solver_takes_more_velocities_for_less_error():
    def count(tolerance):
        asked = []

        def velocity(x, t):
            asked.append(t.item())
            return swirl(x, t)

        x = torch.full((1, 1), 0.2, dtype=torch.float64)
        solver = dormand_prince(relative=tolerance, absolute=tolerance)
        integrate(velocity, x, torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64), solver=solver)
        assert 0 <= min(asked) <= max(asked) <= 1
        return len(asked)

    assert count(1e-9) > count(1e-4) > 0


def test_an_adaptive_solver_refuses_senseless_tolerances_and_numbers():
    with pytest.raises(LuminaError, match="tolerances"):
        dormand_prince(relative=0, absolute=0)
    with pytest.raises(LuminaError, match="not a number"):
        integrate(
            lambda x, t: x * math.nan, torch.ones(1, 1), uniform_times(1), solver=SOLVERS["dopri5"]
        )


@pytest.mark.parametrize("name", SOLVERS)
def test_a_straight_flow_takes_one_step_and_stays_finite_at_both_ends(name):
    x, direction = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    for steps in (1, 2, 5):
        end = integrate(lambda x, t: direction, x, uniform_times(steps), solver=SOLVERS[name])[-1]
        torch.testing.assert_close(end, x + direction)


@pytest.mark.parametrize("name", ["dpm++", "unipc"])
def test_one_picture_alone_is_found_in_one_step_from_noise(name):
    data, noise = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))

    def velocity(x, t):
        return (data - x) / (1 - t)

    end = integrate(velocity, noise, torch.tensor([0.0, 0.6, 1.0]), solver=SOLVERS[name])[-1]
    torch.testing.assert_close(end, data)


@pytest.mark.parametrize("name", FIXED)
def test_all_times_are_kept_and_as_many_velocities_taken_as_the_solver_says(name):
    asked = []

    def velocity(x, t):
        asked.append(t)
        return x

    points = integrate(velocity, torch.ones(2, 1), uniform_times(3), solver=FIXED[name])
    assert points.shape == (4, 2, 1)
    assert len(asked) == 3 * FIXED[name].evaluations


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(LuminaError, match="did you mean 'midpoint'"):
        find_solver("midpint")


def test_flags_name_every_solver():
    assert [*SOLVERS, *METHODS] == list(requests.SOLVERS)
    adaptive = [name for name, solver in SOLVERS.items() if solver.evaluations is None]
    assert (adaptive, list(METHODS)) == (list(requests.ADAPTIVE), list(requests.STOCHASTIC))
