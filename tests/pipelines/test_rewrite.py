"""Inversion of the flow, with a random pipeline at a tiny size and with known velocities."""

import pytest
import torch
from diffusers import TaylorSeerCacheConfig
from PIL import Image

from lumina import LuminaError, LuminaRewritePipeline
from lumina.flow.scheduler import FlowSolverScheduler
from lumina.flow.solvers import SOLVERS, integrate
from lumina.pipelines.pictures import as_pixels, encode_pixels
from lumina.pipelines.rewrite import ONE_STEP, TOLERANCE, undo_steps
from lumina.types import Size

PICTURE = Image.linear_gradient("L").convert("RGB").resize((64, 64))


@pytest.fixture
def pipeline(ours):
    return LuminaRewritePipeline.from_pipe(ours)


def far(x, y):
    return ((x - y).norm() / y.norm()).item()


@pytest.mark.parametrize("name", ONE_STEP)
def test_steps_are_undone_to_the_tolerance(name):
    def velocity(x, t):
        return torch.sin(x + t) - x

    times = torch.linspace(0, 1, 9, dtype=torch.float64)
    end = torch.randn(2, 4, 8, 8, dtype=torch.float64)
    start = undo_steps(velocity, end, times, solver=SOLVERS[name])
    back = integrate(velocity, start, times, solver=SOLVERS[name])[-1]
    assert far(back, end) < len(times) * TOLERANCE


@pytest.mark.parametrize("solver", [None, "midpoint"])
@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_the_way_back_and_forth_with_the_same_words_ends_at_the_picture(pipeline, solver, strength):
    if solver:
        pipeline.scheduler = FlowSolverScheduler(solver=solver)
    options = {"num_inference_steps": 10, "guidance_scale": 1.0, "output_type": "latent"}
    back = pipeline("a cat", PICTURE, "a cat", strength, **options).images
    assert far(back, encode_pixels(pipeline.vae, as_pixels([PICTURE], Size(64, 64)))) < 0.01


def test_other_schedulers_go_back_along_the_same_flow(pipeline):
    data = torch.randn(1, 4, 8, 8)
    noises = []
    for solver in ("dpm++", "midpoint"):
        pipeline.scheduler = FlowSolverScheduler(solver=solver)
        noises.append(pipeline.invert(data, "a cat", num_inference_steps=16))
    assert far(*noises) < 0.02


def test_guidance_is_for_the_way_forth_alone(pipeline):
    data = torch.randn(1, 4, 8, 8)
    plain, guided = (
        pipeline.invert(data, "a cat", num_inference_steps=3, guidance_scale=scale)
        for scale in (1.0, 7.0)
    )
    assert torch.equal(plain, guided)


def test_the_less_strength_the_less_of_the_way_is_gone_back(pipeline):
    data = torch.randn(1, 4, 8, 8)
    changes = [
        far(pipeline.invert(data, "a cat", strength, num_inference_steps=4), data)
        for strength in (0.25, 0.5, 1.0)
    ]
    assert changes == sorted(changes)


def test_the_same_picture_is_made_each_time(pipeline):
    first, second = (
        pipeline("a dog", PICTURE, "a cat", num_inference_steps=3, output_type="latent").images
        for _ in range(2)
    )
    assert torch.equal(first, second)


def test_a_step_cache_is_refused(pipeline):
    pipeline.transformer.enable_cache(TaylorSeerCacheConfig(cache_interval=2))
    with pytest.raises(LuminaError, match="disable_cache"):
        pipeline("a dog", PICTURE, "a cat")


def test_descriptions_that_are_not_as_many_as_the_pictures_are_refused(pipeline):
    with pytest.raises(LuminaError, match="2 for source_prompt"):
        pipeline(["a", "b", "c"], PICTURE, ["d", "e"])
