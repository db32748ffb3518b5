import pytest
from diffusers import (
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    UniPCMultistepScheduler,
)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"width": 96, "height": 48},
        {"width": 32, "height": 128, "scaling_watershed": 0.3, "num_inference_steps": 4},
        {"width": 128, "height": 128, "scaling_watershed": 0.0},
        {"width": 96, "proportional_attn": False},
        {"guidance_scale": 1.0},
        {"guidance_scale": 7.5, "negative_prompt": "a dog"},
        {"num_images_per_prompt": 2},
        {"prompt": ["a red apple", "a much longer description of a green pear", ""]},
        {"sigmas": [1.0, 0.6, 0.3]},
        {"prompt": "A Photo of a CAT, 1024x768, (masterpiece:1.2) @ sunset"},
    ],
    ids=str,
)
def test_pictures_equal_those_of_diffusers(ours, theirs, draw, assert_same, arguments):
    assert_same(draw(ours, **arguments), draw(theirs, **arguments))


@pytest.mark.parametrize(
    "scheduler",
    [
        FlowMatchEulerDiscreteScheduler(shift=3.0),
        FlowMatchHeunDiscreteScheduler(),
        UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True),
        DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True),
    ],
    ids=lambda scheduler: type(scheduler).__name__,
)
def test_another_flow_scheduler_gives_the_picture_it_gives_in_diffusers(
    ours, theirs, draw, assert_same, scheduler
):
    ours.scheduler = theirs.scheduler = scheduler
    assert_same(
        draw(ours, num_inference_steps=4, width=96), draw(theirs, num_inference_steps=4, width=96)
    )
