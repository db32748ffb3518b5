"""Pictures that show something in each of several views."""

import pytest
import torch

from lumina import LuminaAnagramPipeline, LuminaError, LuminaPipeline
from lumina.flow.scheduler import FlowSolverScheduler
from lumina.pipelines.views import find_view


@pytest.fixture
def anagrams(ours):
    pipeline = LuminaAnagramPipeline.from_pipe(ours)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def make(pipeline, views, *, seed=7, **arguments):
    defaults = {"num_inference_steps": 3, "output_type": "pt"}
    generator = torch.Generator().manual_seed(seed)
    return pipeline(views, generator=generator, **defaults | arguments).images


TURNED = [("identity", "a cat"), ("rotate180", "a dog")]


@pytest.mark.parametrize("through", ["pixels", "latents"])
def test_twice_the_same_view_of_the_same_prompt_is_a_plain_picture(
    anagrams, ours, draw, assert_same, through
):
    plain = draw(ours, "a cat", num_inference_steps=3, output_type="pt")
    twice = make(anagrams, [("identity", "a cat")] * 2, through=through)
    assert_same(twice, plain, tolerance=1e-3)


@pytest.mark.parametrize("name", ["rotate90", "flip-y", "permute:3"])
def test_a_single_view_is_a_plain_picture_undone(anagrams, ours, draw, assert_same, name):
    view = find_view(name)
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(7))
    plain = draw(ours, "a cat", num_inference_steps=3, latents=view.see(noise), output_type="pt")
    single = make(anagrams, [(name, "a cat")], latents=noise)
    assert_same(single, view.undo(plain), tolerance=1e-3)


def test_the_order_of_views_does_not_matter(anagrams, assert_same):
    assert_same(make(anagrams, TURNED), make(anagrams, TURNED[::-1]), tolerance=1e-3)


def test_the_turned_picture_is_the_anagram_of_the_views_the_other_way_round(
    anagrams, ours, assert_same
):
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(7))
    back = [("rotate180", "a cat"), ("identity", "a dog")]

    there = make(anagrams, TURNED, latents=noise).rot90(2, (2, 3))
    assert_same(make(anagrams, back, latents=noise.rot90(2, (2, 3))), there, tolerance=1e-3)


def test_pixels_of_all_views_come_together(anagrams):
    """Each step halves what the views disagree about, or more: here there are more steps."""
    few, many = (
        make(anagrams, [("identity", "a cat"), ("flip-x", "a cat")], num_inference_steps=steps)
        for steps in (1, 8)
    )

    def unlike(picture):
        return (picture - picture.flip(3)).abs().mean()

    assert unlike(many) <= unlike(few) + 0.05


def test_a_second_stage_that_holds_to_nothing_is_a_plain_anagram_of_its_size(anagrams, assert_same):
    large = {"width": 128, "height": 128}
    generator = torch.Generator().manual_seed(7)
    torch.randn(1, 4, 8, 8, generator=generator)  # of the first stage
    noise = torch.randn(1, 4, 16, 16, generator=generator)
    free = make(anagrams, TURNED, two_stage=True, strength=1.0, hold=0.0, **large)
    assert_same(free, make(anagrams, TURNED, latents=noise, **large), tolerance=1e-3)
    held = make(anagrams, TURNED, two_stage=True, strength=1.0, hold=1.0, **large)
    assert not torch.allclose(held, free, atol=1e-2)


def test_every_solver_draws(anagrams):
    for solver in ("heun", "dpm++"):
        anagrams.scheduler = FlowSolverScheduler(solver=solver)
        assert make(anagrams, TURNED).isfinite().all()


def test_several_pictures_are_those_of_their_generators(anagrams, assert_same):
    def generators(*seeds):
        return [torch.Generator().manual_seed(seed) for seed in seeds]

    options = {"num_inference_steps": 2, "output_type": "latent"}
    both = anagrams(TURNED, num_images_per_prompt=2, generator=generators(1, 2), **options).images
    second = anagrams(TURNED, generator=generators(2), **options).images
    assert both.shape == (2, 4, 8, 8)
    assert_same(both[1:], second, tolerance=1e-3)


@pytest.mark.parametrize(
    ("views", "arguments", "says"),
    [
        ([], {}, "no views"),
        (TURNED, {"through": "words"}, "pixels, latents"),
        ([("rotate90", "a cat")], {"width": 128}, "another size"),
        ([("negative", "a cat")], {"through": "latents"}, "view of pixels"),
        (TURNED, {"two_stage": True}, "no more than the model draws at once"),
        (TURNED, {"strength": 0}, "strength"),
        (TURNED, {"hold": 2}, "hold"),
    ],
)
def test_what_makes_no_sense_is_refused(anagrams, views, arguments, says):
    with pytest.raises(LuminaError, match=says):
        make(anagrams, views, **arguments)


def test_it_becomes_a_plain_pipeline_and_back(anagrams):
    plain = LuminaPipeline.from_pipe(anagrams)
    assert LuminaAnagramPipeline.from_pipe(plain).transformer is anagrams.transformer
