"""Laws of image to image, with a random pipeline at a tiny size."""

import pytest
import torch
from PIL import Image

from lumina import LuminaError, LuminaImg2ImgPipeline, LuminaPipeline
from lumina.flow.scheduler import FlowSolverScheduler
from lumina.pipelines.image_to_image import normalize_channels
from lumina.pipelines.pictures import as_pixels, encode_pixels
from lumina.types import Size

PICTURE = Image.linear_gradient("L").convert("RGB").resize((64, 64))


@pytest.fixture
def edit(ours):
    pipeline = LuminaImg2ImgPipeline.from_pipe(ours)

    def edit(strength, prompt="a red apple", image=PICTURE, **arguments):
        defaults = {
            "num_inference_steps": 4,
            "output_type": "latent",
            "generator": torch.Generator().manual_seed(7),
        }
        return pipeline(prompt, image, strength, **defaults | arguments).images

    edit.pipeline = pipeline
    return edit


@pytest.mark.parametrize("solver", [None, "midpoint", "dpm++"])
def test_all_the_way_back_is_text_to_image(ours, edit, draw, assert_same, solver):
    if solver:
        ours.scheduler = edit.pipeline.scheduler = FlowSolverScheduler(solver=solver)
    assert_same(edit(1.0), draw(ours, num_inference_steps=4))


def test_the_weaker_the_nearer_to_the_picture(ours, edit):
    data = encode_pixels(ours.vae, as_pixels([PICTURE], Size(64, 64)))
    with torch.no_grad():
        far = [(edit(strength) - data).norm().item() for strength in (0.25, 0.5, 0.75, 1.0)]
    assert far == sorted(far)


@pytest.mark.parametrize("solver", ["euler", "heun"])
def test_only_the_share_of_the_steps_that_is_left_is_taken(edit, solver):
    edit.pipeline.scheduler = FlowSolverScheduler(solver=solver)
    calls = []
    edit.pipeline.transformer.register_forward_hook(lambda *_: calls.append(1))
    edit(0.5)
    assert len(calls) == 2 * edit.pipeline.scheduler.order


def test_another_size_is_the_picture_at_that_size(edit, assert_same):
    larger = PICTURE.resize((96, 32), Image.Resampling.LANCZOS)
    assert_same(edit(0.5, width=96, height=32), edit(0.5, image=larger))


def test_pictures_of_a_batch_do_not_know_each_other(edit, assert_same):
    other = PICTURE.rotate(90)
    generators = [torch.Generator().manual_seed(seed) for seed in (7, 8)]
    both = edit(0.5, image=[PICTURE, other], generator=generators)
    assert_same(both[:1], edit(0.5))


def test_normalised_latents_do_not_tell_how_bright_and_strong_a_channel_was():
    data = torch.randn(2, 4, 8, 8)
    torch.testing.assert_close(normalize_channels(3 * data + 5), normalize_channels(data))


@pytest.mark.parametrize("strength", [0, -0.5, 1.1])
def test_a_strength_out_of_range_is_refused(edit, strength):
    with pytest.raises(LuminaError, match="allowed: above 0, up to 1"):
        edit(strength)


def test_a_size_that_does_not_divide_is_refused(edit):
    with pytest.raises(LuminaError, match="multiples of 16"):
        edit(0.5, image=PICTURE.resize((60, 64)))


def test_pipelines_share_their_parts(ours, edit):
    back = LuminaPipeline.from_pipe(edit.pipeline)
    assert back.transformer is ours.transformer is edit.pipeline.transformer
