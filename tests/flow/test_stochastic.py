import pytest
import torch

from lumina.errors import LuminaError
from lumina.flow.path import PATHS
from lumina.flow.solvers import integrate
from lumina.flow.stochastic import METHODS, stochastic
from lumina.requests import DIFFUSIONS

SPREAD = 0.5  # of the data, a normal distribution around 1


def exact_velocity(path):
    """The velocity from standard normal noise to the data, which is known."""

    def velocity(x, t):
        alpha, sigma = path.alpha(t), path.sigma(t)
        variance = (alpha * SPREAD) ** 2 + sigma**2
        rest = x - alpha
        data = 1 + alpha * SPREAD**2 / variance * rest
        noise = sigma / variance * rest
        return path.alpha_rate(t) * data + path.sigma_rate(t) * noise

    return velocity


def spread_at(path, t):
    return ((PATHS[path].alpha(t) * SPREAD) ** 2 + PATHS[path].sigma(t) ** 2).sqrt()


def sample(steps, count=40_000, *, form="sigma", method="euler", path="linear", last_step="none"):
    generator = torch.Generator().manual_seed(steps)
    start, end = (0.0, 0.97) if form != "sbdm" else (0.02, 0.97)
    t = torch.tensor(start, dtype=torch.float64)
    x = PATHS[path].alpha(t) + spread_at(path, t) * torch.randn(
        count, 1, generator=generator, dtype=torch.float64
    )
    times = torch.linspace(start, end, steps + 1, dtype=torch.float64)
    solver = stochastic(
        lambda x: torch.randn(x.shape, generator=generator, dtype=x.dtype),
        form=form,
        path=PATHS[path],
        method=method,
        last_step=last_step,
    )
    times = torch.cat([times, times.new_ones(1)])
    return integrate(exact_velocity(PATHS[path]), x, times, solver=solver)[-1]


END = torch.tensor(0.97, dtype=torch.float64)


@pytest.mark.parametrize("form", DIFFUSIONS)
@pytest.mark.parametrize("path", ["linear", "gvp"])
def test_samples_have_the_distribution_of_the_path(form, path):
    found = sample(400, form=form, path=path)
    assert found.mean().item() == pytest.approx(PATHS[path].alpha(END).item(), abs=0.02)
    assert found.std().item() == pytest.approx(spread_at(path, END).item(), abs=0.02)


@pytest.mark.parametrize("last_step", ["mean", "tweedie", "euler"])
def test_the_last_step_leads_to_the_data(last_step):
    found = sample(200, last_step=last_step)
    assert found.mean().item() == pytest.approx(1, abs=0.02)
    assert found.std().item() == pytest.approx(SPREAD, abs=0.02)


@pytest.mark.parametrize("method", METHODS.values())
def test_the_weak_error_falls_with_the_step(method):
    exact = spread_at("linear", END)

    def error(steps):
        found = sample(steps, count=200_000, method=method, form="decreasing")
        return abs(found.std() - exact).item()

    coarse, middle, fine = (error(steps) for steps in (4, 16, 64))
    assert middle < 0.6 * coarse
    assert fine < 0.6 * middle


def test_noise_changes_the_way_and_its_seed_repeats_it():
    assert torch.equal(sample(8), sample(8))
    still = sample(8) - sample(8, form="constant")
    assert still.abs().max() > 0.1


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"form": "sbmd"}, "did you mean 'sbdm'"),
        ({"method": "midpoint"}, "unknown method"),
        ({"last_step": "men"}, "did you mean 'mean'"),
        ({"form": "sbdm"}, "pole at time 0"),
        ({"form": "constant"}, "pole at time 1"),
    ],
)
def test_what_cannot_be_sampled_is_refused(settings, told):
    times = torch.tensor([0.0, 0.5, 1.0, 1.0])
    with pytest.raises(LuminaError) as caught:
        integrate(
            lambda x, t: x, torch.ones(2, 1), times, solver=stochastic(torch.zeros_like, **settings)
        )
    assert told in str(caught.value)
