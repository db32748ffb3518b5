import math

import pytest
import torch

from lumina.errors import LuminaError
from lumina.modalities.points import (
    BANDS,
    FEATURES,
    KEPT,
    MOST_POINTS,
    TRAINED_POINTS,
    WAVE,
    band_frequencies,
    check_points,
    decode_points,
    draw_noise,
    encode_points,
    features,
)

TIMES = torch.tensor([0.0, 0.25, 0.7, 1.0])


def test_points_come_back_from_what_the_network_sees():
    points = torch.rand(2, 40, 3, generator=torch.Generator().manual_seed(0)) - 0.5
    assert torch.equal(decode_points(encode_points(points)), points)


def test_features_in_another_order_are_those_of_points_in_another_order():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 300, 3, generator=generator)
    order = torch.randperm(300, generator=generator)
    whole = features(x, TIMES, 300)
    assert whole.shape == (4, 300, FEATURES)
    assert torch.equal(features(x[:, order], TIMES, 300), whole[:, order])


def test_features_begin_with_the_coordinates_and_go_on_with_waves():
    x = torch.randn(4, 10, 3, generator=torch.Generator().manual_seed(0))
    known = features(x, TIMES, TRAINED_POINTS)
    assert torch.equal(known[..., :3], x)
    sines, cosines = known[..., 3:].chunk(2, dim=-1)
    assert sines.square() + cosines.square() == pytest.approx(1, abs=1e-5)
    assert sines[..., 0] == pytest.approx((2 * math.pi / WAVE * x[..., 0]).sin(), abs=1e-5)


def test_the_number_of_points_changes_nothing_at_that_of_training_and_at_noise():
    plain = 2 * math.pi / WAVE * 2.0 ** torch.arange(BANDS)
    at_training = band_frequencies(TIMES, points=TRAINED_POINTS)
    assert at_training == pytest.approx(plain.expand(4, -1), rel=1e-6)
    at_noise = band_frequencies(TIMES[:1], points=MOST_POINTS)
    assert at_noise[0] == pytest.approx(plain, rel=1e-5)


def test_at_data_the_slowest_band_stays_and_the_fastest_follows_the_distance_between_neighbors():
    scale = math.sqrt(MOST_POINTS / TRAINED_POINTS)
    plain = band_frequencies(TIMES[-1:], points=TRAINED_POINTS)[0]
    ratio = band_frequencies(TIMES[-1:], points=MOST_POINTS)[0] / plain
    assert ratio[0] == pytest.approx(1)
    assert ratio[-1] == pytest.approx(scale ** (1 - 1 / BANDS), rel=1e-5)
    assert (ratio.diff() > 0).all()


def test_no_band_becomes_slower_with_time_or_with_more_points():
    times = torch.linspace(0, 1, 11)
    few, many = (band_frequencies(times, points=points) for points in (1024, 4096))
    assert (few.diff(dim=0) >= 0).all()
    assert (many >= few * (1 - 1e-6)).all()


def test_noise_of_as_many_points_as_in_training_is_plain_noise():
    noise = draw_noise(TRAINED_POINTS, torch.Generator().manual_seed(3))
    assert torch.equal(noise, torch.randn(3, 256, generator=torch.Generator().manual_seed(3)))


def test_each_point_of_noise_is_normal_and_the_mean_differs_as_much_as_in_training():
    generator = torch.Generator().manual_seed(0)
    clouds = torch.stack([draw_noise(2048, generator) for _ in range(200)])
    assert clouds.var() == pytest.approx(1, abs=0.02)
    means = clouds.mean(-1)
    expected = KEPT / TRAINED_POINTS + (1 - KEPT) / 2048
    assert means.var() == pytest.approx(expected, rel=0.2)
    assert expected > 7 / 2048  # that of independent noise is eight times less than in training


def test_the_same_seed_means_noise_around_the_same_places_at_any_number_of_points():
    few, many = (draw_noise(count, torch.Generator().manual_seed(5)) for count in (256, 8192))
    groups = many.unflatten(-1, (-1, 256)).mean(1)
    assert groups == pytest.approx(math.sqrt(KEPT) * few, abs=5 * math.sqrt((1 - KEPT) / 32))


def exact_means(noise: torch.Tensor, *, spread: float, steps: int = 100) -> torch.Tensor:
    """Means of clouds that follow the exact velocity of a world of clouds along a line.

    A cloud of the world is normal around a mean, which is normal around 0. As in a network of
    attention, what is known of the mean is that of as many points as in training.
    """
    x, deviation = noise, 0.2
    for step in range(steps):
        t = step / steps
        variance = (t * deviation) ** 2 + (1 - t) ** 2
        evidence = t * TRAINED_POINTS / variance
        mean = evidence * x.mean(-1, keepdim=True) / (1 / spread**2 + t * evidence)
        data = mean + t * deviation**2 / variance * (x - t * mean)
        x = x + (data - x) / (1 - t) / steps
    return x.mean(-1)


def test_clouds_of_many_points_are_as_various_as_those_of_training():
    generator = torch.Generator().manual_seed(0)

    def variety(count: int, kept: float = KEPT) -> float:
        noise = torch.stack([draw_noise(count, generator, kept=kept) for _ in range(100)])
        return exact_means(noise.flatten(0, 1), spread=0.5).std().item()

    assert variety(256) == pytest.approx(0.5, rel=0.15)
    assert variety(2048) == pytest.approx(0.5, rel=0.15)
    assert variety(2048, kept=0) < 0.25


@pytest.mark.parametrize("count", [0, 255, 8193])
def test_a_number_of_points_out_of_range_is_refused_with_the_range(count):
    with pytest.raises(LuminaError, match="ask for 256 to 8192 points"):
        check_points(count)


@pytest.mark.parametrize("count", [256, 1000, 8192])
def test_a_number_of_points_in_range_is_taken(count):
    check_points(count)
