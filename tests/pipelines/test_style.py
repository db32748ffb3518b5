"""Laws of sets in one style, with tiny networks whose weights are all random."""

import pytest
import torch

from lumina import LuminaError
from lumina.pipelines.style import SHARED, LuminaStylePipeline
from lumina.pipelines.text_to_image import LuminaPipeline

PROMPTS = ["a cat on a red background", "a dog", "an apple"]


@pytest.fixture
def make_set(ours):
    pipeline = LuminaStylePipeline.from_pipe(ours)

    def make_set(prompts=PROMPTS, sharing=10.0, **arguments):
        usual = {
            "num_inference_steps": 2,
            "output_type": "latent",
            "generator": [torch.Generator().manual_seed(seed) for seed in range(len(prompts))],
        }
        return pipeline(prompts, sharing, **usual | arguments).images

    return make_set


@pytest.fixture
def independent(ours, draw):
    generators = [torch.Generator().manual_seed(seed) for seed in range(len(PROMPTS))]
    return draw(ours, PROMPTS, generator=generators)


@pytest.mark.parametrize("shared", SHARED)
@pytest.mark.parametrize("sharing", [0, 1e-30])
def test_without_sharing_pictures_are_independent(
    make_set, independent, assert_same, shared, sharing
):
    assert_same(make_set(sharing=sharing, shared=shared), independent)


@pytest.mark.parametrize("shared", ["words", "frame"])
def test_the_first_picture_is_followed_and_follows_none(make_set, independent, assert_same, shared):
    pictures = make_set(shared=shared)
    assert_same(pictures[:1], independent[:1])
    for picture, alone in zip(pictures[1:], independent[1:], strict=True):
        assert not torch.allclose(picture, alone, atol=1e-3)


def test_what_follows_does_not_depend_on_the_others_that_follow(make_set, assert_same):
    pictures = make_set()
    assert_same(pictures[:2], make_set(PROMPTS[:2]))


def test_all_can_follow_all(make_set, independent):
    pictures = make_set(shared="all")
    for picture, alone in zip(pictures, independent, strict=True):
        assert not torch.allclose(picture, alone, atol=1e-3)


@pytest.mark.parametrize("shared", SHARED)
def test_a_set_of_one_is_text_to_image(make_set, independent, assert_same, shared):
    assert_same(make_set(PROMPTS[:1], shared=shared), independent[:1])


@pytest.mark.parametrize("shared", SHARED)
def test_pictures_share_in_their_times_alone(make_set, assert_same, shared):
    early, late = (
        make_set(shared=shared, num_inference_steps=3, interval=interval)
        for interval in ((0.0, 0.3), (0.3, 1.0))
    )
    whole = make_set(shared=shared, num_inference_steps=3)
    for part in (early, late):
        assert not torch.allclose(part, whole, atol=1e-4)
    never = make_set(shared=shared, num_inference_steps=3, interval=(0.1, 0.2))
    assert_same(never, make_set(sharing=0, num_inference_steps=3))


def test_what_is_shared_and_where_makes_a_difference(make_set):
    usual = make_set()
    for options in ({"shared": "frame"}, {"first_block": 1}, {"sharing": 2.0}):
        assert not torch.allclose(make_set(**options), usual, atol=1e-4)


def test_a_set_is_shared_without_guidance_too(make_set, assert_same):
    pictures = make_set(guidance_scale=1.0)
    alone = make_set(sharing=0, guidance_scale=1.0)
    assert_same(pictures[:1], alone[:1])
    assert not torch.allclose(pictures[1:], alone[1:], atol=1e-3)


def test_pipelines_share_their_parts_in_both_directions(ours):
    there = LuminaStylePipeline.from_pipe(ours)
    back = LuminaPipeline.from_pipe(there)
    assert there.transformer is back.transformer is ours.transformer


@pytest.mark.parametrize(
    ("prompts", "options", "words"),
    [
        ([], {}, "list of prompts"),
        ("a cat", {"generator": None}, "list of prompts"),
        (PROMPTS, {"sharing": -1}, "sharing is -1"),
        (PROMPTS, {"shared": "middle"}, "unknown part"),
        (PROMPTS, {"first_block": 2}, "the network has 2"),
        (PROMPTS, {"interval": (0.5, 0.5)}, "two times"),
        (PROMPTS, {"shared": "all", "context_drop": "all"}, "context drop"),
    ],
)
def test_what_makes_no_set_is_refused(make_set, prompts, options, words):
    with pytest.raises(LuminaError, match=words):
        make_set(prompts, **options)
