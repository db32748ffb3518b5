"""What is between pictures, and near one."""

import pytest
import torch

from lumina import LuminaError, LuminaInterpolationPipeline, LuminaPipeline
from lumina.pipelines.interpolate import Place, blend_texts, slerp, spread_frames
from lumina.pipelines.pictures import encode_pixels
from lumina.pipelines.velocity import Condition


@pytest.fixture
def between(ours):
    pipeline = LuminaInterpolationPipeline.from_pipe(ours)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def source(seed):
    return torch.Generator().manual_seed(seed)


OPTIONS = {"num_inference_steps": 2, "output_type": "latent"}


def test_ends_are_the_pictures_of_their_prompts(between, draw, ours, assert_same):
    frames = between(["a cat", "some dogs"], frames=3, generators=source(7), **OPTIONS).images
    assert len(frames) == 3
    assert_same(frames[:1], draw(ours, "a cat"))
    assert_same(frames[2:], draw(ours, "some dogs"))


def test_ends_are_the_pictures_of_their_seeds(between, draw, ours, assert_same):
    generators = [source(1), source(2), source(3)]
    frames = between("a cat", frames=5, generators=generators, **OPTIONS).images
    for index, seed in ((0, 1), (2, 2), (4, 3)):
        assert_same(frames[index : index + 1], draw(ours, "a cat", seed=seed))


def test_the_way_back_has_the_same_pictures(between, assert_same):
    def go(prompts, seeds):
        generators = [source(seed) for seed in seeds]
        return between(prompts, frames=4, generators=generators, **OPTIONS).images

    assert_same(go(["a cat", "two dogs"], [1, 2]), go(["two dogs", "a cat"], [2, 1]).flip(0))


def test_a_part_of_the_way_has_the_same_pictures_as_all_of_it(between, assert_same):
    prompts = ["a cat", "a dog"]
    part = between(prompts, frames=3, amount=0.5, generators=source(1), **OPTIONS).images
    whole = between(prompts, frames=5, generators=source(1), **OPTIONS).images
    assert_same(part, whole[:3])


def test_places_are_evenly_spread_over_all_stops():
    assert spread_frames(3, 5, amount=1.0) == [
        Place(0, 0.0),
        Place(0, 0.5),
        Place(1, 0.0),
        Place(1, 0.5),
        Place(2, 0.0),
    ]


def test_an_arc_between_noise_is_noise():
    start, end = torch.randn(2, 4, 64, 64), torch.randn(2, 4, 64, 64)
    for share in (0.0, 0.3, 0.5, 1.0):
        assert slerp(start, end, share).std().item() == pytest.approx(1, abs=0.03)
    torch.testing.assert_close(slerp(start, end, 0.0), start)
    torch.testing.assert_close(slerp(start, end, 1.0), end)
    torch.testing.assert_close(slerp(start, end, 0.3), slerp(end, start, 0.7))
    torch.testing.assert_close(slerp(start, start, 0.4), start)


def test_texts_of_different_lengths_meet_token_by_token():
    features = torch.tensor([[[0.0], [1.0], [9.0], [9.0]], [[10.0], [20.0], [30.0], [40.0]]])
    mask = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]])
    blended = blend_texts(Condition(features, mask), 2, [Place(0, 0.0), Place(0, 0.5), Place(1, 0)])
    assert blended.mask.tolist() == [[1, 1, 0, 0], [1, 1, 1, 1], [1, 1, 1, 1]]
    assert blended.features[0, :2].flatten().tolist() == [0, 1]
    assert blended.features[1].flatten().tolist() == [5, 10, 15.5, 20.5]
    assert blended.features[2].flatten().tolist() == [10, 20, 30, 40]


def test_variations_by_nothing_are_the_picture_and_by_all_are_others(
    between, draw, ours, assert_same
):
    def vary(amount):
        return between.vary(
            "a cat", origin=source(7), amount=amount, images=2, generator=source(1), **OPTIONS
        ).images

    plain = draw(ours, "a cat")
    assert_same(vary(0.0), plain.expand(2, -1, -1, -1))
    other = draw(ours, ["a cat"] * 2, seed=1)
    assert_same(vary(1.0), other)
    near = (vary(0.1) - plain).square().mean()
    assert 0 < near < (vary(0.5) - plain).square().mean()


def test_variations_of_any_picture_begin_from_the_noise_it_could_come_from(between):
    """The flow leads back to that noise, and forth to what the VAE makes of the picture."""
    pixels = torch.rand(3, 64, 64, generator=source(3))
    settings = {"guidance_scale": 1.0, "num_inference_steps": 20, "output_type": "latent"}
    same = between.vary("a cat", pixels, amount=0.0, images=1, **settings).images
    latents = encode_pixels(between.vae, 2 * pixels[None] - 1)
    assert (same - latents).square().mean() < 1e-2 * latents.square().mean()


@pytest.mark.parametrize(
    ("prompts", "arguments", "says"),
    [
        ("a cat", {}, "nothing between"),
        (["a", "b"], {"generators": [source(1)] * 3}, "2 prompts and 3 generators"),
        (["a", "b"], {"frames": 1}, "1 frames"),
        (["a", "b"], {"amount": 0}, "amount"),
        (["a", "b"], {"amount": 1.5}, "amount"),
    ],
)
def test_a_way_that_makes_no_sense_is_refused(between, prompts, arguments, says):
    with pytest.raises(LuminaError, match=says):
        between(prompts, **OPTIONS | arguments)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({}, "none or two"),
        ({"origin": source(1), "amount": 2}, "amount"),
        ({"origin": source(1), "images": 0}, "0 variations"),
    ],
)
def test_variations_that_make_no_sense_are_refused(between, arguments, says):
    with pytest.raises(LuminaError, match=says):
        between.vary("a cat", **OPTIONS | arguments)


def test_it_becomes_a_plain_pipeline_and_back(between):
    plain = LuminaPipeline.from_pipe(between)
    assert LuminaInterpolationPipeline.from_pipe(plain).transformer is between.transformer


def test_fewer_frames_than_stops_are_refused():
    with pytest.raises(LuminaError, match="2 frames cannot show all of 3 stops") as told:
        spread_frames(3, 2, amount=1.0)
    assert "ask for 3" in told.value.hint
