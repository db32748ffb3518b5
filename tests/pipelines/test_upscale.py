"""Large pictures in two stages."""

import math

import pytest
import torch
from PIL import Image

from lumina import LuminaError, LuminaPipeline, LuminaUpscalePipeline
from lumina.flow.scheduler import FlowSolverScheduler
from lumina.flow.solvers import SOLVERS, integrate
from lumina.pipelines.images import Evaluations
from lumina.pipelines.pictures import as_pixels
from lumina.pipelines.upscale import enlarge, first_size, hold_to
from lumina.types import Size

LARGE = {"width": 128, "height": 128}


@pytest.fixture
def upscaler(ours):
    pipeline = LuminaUpscalePipeline.from_pipe(ours)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture
def picture():
    pixels = torch.randint(0, 256, (64, 64, 3), generator=torch.Generator().manual_seed(3))
    return Image.fromarray(pixels.to(torch.uint8).numpy())


def test_a_second_stage_that_holds_to_nothing_is_text_to_image(
    upscaler, ours, draw, assert_same, picture
):
    free = draw(upscaler, image=picture, strength=1.0, hold=0.0, **LARGE)
    assert_same(free, draw(ours, **LARGE), tolerance=1e-3)


def test_the_first_picture_is_that_of_text_to_image(upscaler, ours, draw, assert_same):
    """Both stages draw noise from one generator, so the second begins from what is left of it."""
    small = draw(ours, output_type="pil")[0]
    left = torch.Generator().manual_seed(7)
    torch.randn(1, 4, 8, 8, generator=left)
    by_hand = draw(upscaler, image=small, generator=left, **LARGE)
    assert_same(draw(upscaler, **LARGE), by_hand, tolerance=2e-2)  # bytes are rounded


def test_a_firmer_hold_brings_a_velocity_that_knows_nothing_nearer_to_the_guide():
    guide, noise = torch.randn(1, 4, 8, 8), torch.randn(1, 4, 8, 8)

    def distance(hold: float) -> float:
        toward_nothing = hold_to(lambda _: lambda x, t: -noise, guide, noise, hold=hold)
        times = torch.linspace(0, 1, 41)
        end = integrate(toward_nothing(0.0), noise, times, solver=SOLVERS["heun"])[-1]
        return (end - guide).norm().item()

    assert distance(1.0) < distance(0.5) < distance(0.0)


def test_where_the_model_leads_to_the_guide_a_hold_changes_nothing():
    guide, noise = torch.randn(1, 4, 8, 8), torch.randn(1, 4, 8, 8)
    straight = hold_to(lambda _: lambda x, t: guide - noise, guide, noise, hold=1.0)
    for time in (0.0, 0.4, 1.0):
        t = torch.tensor(time)
        x = t * guide + (1 - t) * noise
        torch.testing.assert_close(straight(time)(x, t), guide - noise, rtol=1e-4, atol=1e-5)


def test_the_pull_fades_as_the_original_code_has_it():
    zeros, ones = torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2)
    seen = []
    pulled = hold_to(lambda _: lambda x, t: seen.append(x) or x, ones, ones, hold=1.0)
    for time in (0.0, 0.25, 0.5, 1.0):
        pulled(time)(zeros, torch.tensor(time))
        share = (1 + math.cos(math.pi * time)) / 2
        torch.testing.assert_close(seen[-1], share * ones)


@pytest.mark.parametrize("solver", ["euler", "midpoint", "heun", "dpm++"])
def test_every_solver_takes_the_last_steps(upscaler, draw, picture, solver):
    upscaler.scheduler = FlowSolverScheduler(solver=solver)
    drawn = draw(upscaler, image=picture, num_inference_steps=5, strength=0.6, **LARGE)
    assert drawn.isfinite().all()
    assert len(upscaler.scheduler._times) == 4


def test_a_guide_is_the_picture_enlarged(upscaler, picture):
    large = picture.resize((128, 128), Image.Resampling.LANCZOS)
    ours = enlarge(as_pixels([picture], Size(64, 64)), Size(128, 128))
    torch.testing.assert_close(ours, as_pixels([large], Size(128, 128)), atol=1 / 127, rtol=0)


@pytest.mark.parametrize(
    ("size", "first"),
    [
        (Size(256, 256), Size(128, 128)),
        (Size(512, 128), Size(256, 64)),
        (Size(512, 256), Size(176, 96)),
    ],
)
def test_the_first_size_has_the_same_shape_and_as_many_pixels_as_in_training(size, first):
    assert first_size(size, trained=128) == first


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"width": 64, "height": 64}, "no more than the model draws at once"),
        (LARGE | {"strength": 0}, "strength"),
        (LARGE | {"strength": 1.5}, "strength"),
        (LARGE | {"hold": -1}, "hold"),
    ],
)
def test_what_makes_no_sense_is_refused(upscaler, draw, arguments, says):
    with pytest.raises(LuminaError, match=says):
        draw(upscaler, **arguments)


def test_it_becomes_a_plain_pipeline_and_back(upscaler):
    plain = LuminaPipeline.from_pipe(upscaler)
    assert LuminaUpscalePipeline.from_pipe(plain).transformer is upscaler.transformer


def test_a_stop_in_the_first_stage_is_a_stop_of_both(upscaler, draw):
    steps = []

    def stop(pipeline, step, timestep, tensors):
        steps.append(step)
        pipeline._interrupt = True

    stopped = draw(upscaler, num_inference_steps=3, callback_on_step_end=stop, **LARGE)
    assert steps == [0]
    assert stopped.shape[-2:] == (16, 16)
    draw(upscaler, num_inference_steps=3, **LARGE)
    assert upscaler.evaluations == Evaluations(pairs=3 + 2)  # the second takes a share of 0.6


def test_a_picture_is_not_made_smaller(upscaler, draw, picture):
    with pytest.raises(LuminaError, match="64x64"):
        draw(upscaler, image=picture, width=48, height=48)
