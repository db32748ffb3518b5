import pytest
import torch

from lumina.errors import LuminaError
from lumina.flow.path import LINEAR, PATHS, PREDICTIONS, WEIGHTS, flow_loss

NOISE, DATA = torch.randn(2, 3, 4, 2, 5, generator=torch.Generator().manual_seed(0))
TIMES = torch.tensor([0.0, 0.25, 1.0])


def test_the_path_goes_from_noise_to_data_in_a_straight_line():
    points = LINEAR.mix(NOISE, DATA, TIMES)
    assert torch.equal(points[0], NOISE[0])
    assert torch.equal(points[2], DATA[2])
    torch.testing.assert_close(points[1], NOISE[1] + 0.25 * (DATA[1] - NOISE[1]))


def test_the_exact_velocity_has_no_loss_and_an_offset_has_its_square():
    exact = flow_loss(lambda x, t: DATA - NOISE, NOISE, DATA, TIMES)
    torch.testing.assert_close(exact, torch.zeros(3))
    off = flow_loss(lambda x, t: DATA - NOISE + 2, NOISE, DATA, TIMES)
    torch.testing.assert_close(off, torch.full((3,), 4.0))


def test_channels_past_those_of_the_data_do_not_count():
    def velocity(x, t):
        return torch.cat([DATA - NOISE, 7 * torch.ones_like(DATA)], dim=1)

    torch.testing.assert_close(flow_loss(velocity, NOISE, DATA, TIMES), torch.zeros(3))


def test_a_list_gives_what_the_batch_gives():
    def velocity(x, t):
        stacked = torch.stack(list(x))
        return stacked * (1 + t.view(-1, 1, 1, 1))

    together = flow_loss(velocity, NOISE, DATA, TIMES)
    apart = flow_loss(velocity, list(NOISE), list(DATA), TIMES)
    torch.testing.assert_close(together, apart)


@pytest.mark.parametrize("name", PATHS)
def test_rates_are_the_derivatives_of_the_shares(name):
    path = PATHS[name]
    t = torch.linspace(0.05, 0.95, 7, dtype=torch.float64, requires_grad=True)
    for share, rate in ((path.alpha, path.alpha_rate), (path.sigma, path.sigma_rate)):
        (slope,) = torch.autograd.grad(share(t).sum(), t)
        torch.testing.assert_close(rate(t), slope)


@pytest.mark.parametrize("name", PATHS)
def test_the_velocity_is_the_derivative_of_the_way(name):
    path, step = PATHS[name], 1e-5
    noise, data = NOISE.double(), DATA.double()
    times = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)
    there, here = (path.mix(noise, data, times + s) for s in (step, -step))
    found = path.velocity(noise, data, times)
    torch.testing.assert_close(found, (there - here) / (2 * step), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", PATHS)
def test_noise_and_score_lead_back_to_the_velocity(name):
    path = PATHS[name]
    times = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)
    x, velocity = NOISE.double(), DATA.double()
    noise, score = path.to_noise(velocity, x, times), path.to_score(velocity, x, times)
    torch.testing.assert_close(path.to_velocity(noise, x, times, "noise"), velocity)
    torch.testing.assert_close(path.to_velocity(score, x, times, "score"), velocity)
    torch.testing.assert_close(path.to_velocity(velocity, x, times, "velocity"), velocity)


@pytest.mark.parametrize("name", PATHS)
def test_on_a_way_the_expected_noise_is_the_noise(name):
    path, times = PATHS[name], torch.tensor([0.2, 0.5, 0.9])
    x, velocity = path.mix(NOISE, DATA, times), path.velocity(NOISE, DATA, times)
    torch.testing.assert_close(path.to_noise(velocity, x, times), NOISE, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("weight", WEIGHTS)
def test_what_is_exact_has_no_loss_whatever_is_predicted(prediction, weight):
    if prediction == "velocity" and weight:
        return
    times = torch.tensor([0.2, 0.5, 0.9])
    path = PATHS["gvp"]
    exact = {
        "velocity": path.velocity(NOISE, DATA, times),
        "noise": NOISE,
        "score": -NOISE / path.sigma(times).view(-1, 1, 1, 1),
    }[prediction]
    losses = flow_loss(
        lambda x, t: exact, NOISE, DATA, times, path=path, prediction=prediction, weight=weight
    )
    torch.testing.assert_close(losses, torch.zeros(3), atol=1e-5, rtol=0)


def test_senseless_choices_are_refused():
    with pytest.raises(LuminaError, match="no weight"):
        flow_loss(lambda x, t: x, NOISE, DATA, TIMES, weight="velocity")
    with pytest.raises(LuminaError, match="did you mean 'score'"):
        flow_loss(lambda x, t: x, NOISE, DATA, TIMES, prediction="scores")
    with pytest.raises(LuminaError, match="unknown prediction"):
        LINEAR.to_velocity(NOISE, NOISE, TIMES, "data")
