"""Values of a wrong type, given in Python to pipelines of media, are refused by their names."""

import jaxtyping
import numpy as np
import pytest
import torch
from PIL import Image

import lumina
from lumina import LuminaError

SAID = "two horses"
PICTURE = Image.new("RGB", (64, 64))


@pytest.fixture(autouse=True)
def unchecked():
    """Types as users have them, whom nothing else checks them for."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)


@pytest.fixture(scope="module")
def pipelines():
    made = {}

    def load(name):
        if name not in made:
            made[name] = lumina.load(f"lumina-mini-{name}")
            made[name].set_progress_bar_config(disable=True)
        return made[name]

    return load


@pytest.mark.parametrize(
    ("model", "arguments", "told"),
    [
        ("points", {"points": 300.5}, r"a cloud of 300.5 points cannot be made"),
        ("points", {"points": "many"}, r"a cloud of 'many' points cannot be made"),
        ("points", {"num_inference_steps": 2.5}, "has to be a whole number but is 2.5"),
        ("points", {"num_inference_steps": True}, "has to be a whole number but is True"),
        ("points", {"num_clouds_per_prompt": 0}, "num_clouds_per_prompt is 0, which is out of"),
        ("points", {"guidance_scale": float("nan")}, "guidance_scale is nan, which is not finite"),
        ("points", {"guidance_scale": "3"}, "guidance_scale is '3', which is no number"),
        ("points", {"latents": np.zeros((1, 3, 2048))}, "latents are ndarray, which is no tensor"),
        ("points", {"latents": [[0.0]]}, "latents are list, which is no tensor"),
        (
            "points",
            {"callback_on_step_end": 3},
            "callback_on_step_end is 3, which cannot be called",
        ),
        ("points", {"sigmas": [0.2, 0.5, 3.0]}, "one of sigmas is 3.0, which is out of range"),
        ("points", {"sigmas": [0.2, 0.5]}, r"sigmas are \[0.2, 0.5\], which do not decrease"),
        ("points", {"sigmas": np.array([1.0, 1.0])}, "which do not decrease"),
        ("points", {"sigmas": [1.0, float("nan")]}, "one of sigmas is nan, which is out of range"),
        ("points", {"sigmas": 0.5}, "sigmas is 0.5, which is no list of shares of noise"),
        ("points", {"sigmas": []}, r"sigmas is \[\], which is no list of shares of noise"),
        ("points", {"generator": 3}, "generator has 3, which is no source of noise"),
        ("points", {"prompt": 3}, "`prompt` has to be of type `str` or `list`"),
        ("points", {"prompt": []}, "`prompt` has to be a list of one or more texts"),
        ("video", {"frames": 2.5}, "frames is 2.5, which is no whole number"),
        ("video", {"frames": "8"}, "frames is '8', which is no whole number"),
        ("video", {"frames": True}, "frames is True, which is no whole number"),
        ("video", {"frames": 129}, "frames is 129, which is out of range"),
        ("video", {"width": 64.0}, "width is 64.0, and such pictures cannot be made"),
        ("video", {"height": "64"}, "height is '64', and such pictures cannot be made"),
        ("video", {"first_frames": "x.png"}, "what is known has str 'x.png', which is no list"),
        ("video", {"first_frames": ["x.png"]}, "known has str 'x.png', which is no picture"),
        ("video", {"first_frames": PICTURE}, "known has Image .* which is no list of pictures"),
        ("video", {"to_prompt": " "}, "to_prompt is ' ', which says nothing"),
        ("video", {"to_prompt": 3}, "to_prompt is 3, which says nothing"),
        ("multiview", {"views": "2"}, "views is '2', which is no whole number"),
        ("multiview", {"image": "x.png"}, "what is known has str 'x.png', which is no picture"),
        ("sound", {"seconds": "3"}, "seconds is '3', which is no number"),
        ("sound", {"seconds": 0}, "seconds is 0, which is out of range.*\n.*a sample"),
        ("sound", {"seconds": float("nan")}, "seconds is nan, which is out of range"),
        ("speech", {"prompt": None}, "Provide either `prompt`"),
        ("speech", {"prompt": SAID, "speed": "1"}, "speed is '1', which is no number"),
        ("speech", {"prompt": SAID, "speed": 3}, "speed is 3, which is out of range"),
        ("speech", {"prompt": SAID, "voice": 3}, "unknown voice 3"),
        ("speech", {"prompt": SAID, "guidance_scale": np.inf}, "which is not finite"),
        ("speech", {"prompt": SAID, "callback_on_step_end": 3}, "is 3, which cannot be called"),
        ("speech", {"prompt": SAID, "num_inference_steps": True}, "whole number but is True"),
    ],
)
def test_it_is_told_what_was_given_and_what_is_allowed(pipelines, model, arguments, told):
    with pytest.raises((LuminaError, ValueError), match=told):
        pipelines(model)(**{"prompt": "a red cube", "num_inference_steps": 1} | arguments)


@pytest.mark.parametrize("sigmas", [[1.0, 0.4], (0.9, 0.4), np.array([1.0, 0.4, 0.0])])
def test_shares_of_noise_that_decrease_are_taken(pipelines, sigmas):
    pipeline = pipelines("points")
    assert np.isfinite(pipeline("a red cube", points=256, sigmas=sigmas).media[0]).all()
    assert pipeline.num_timesteps == len(sigmas)


@pytest.mark.parametrize("model", ["points", "sound", "speech"])
@pytest.mark.parametrize("what", ["slicing", "tiling"])
@pytest.mark.parametrize("how", ["enable", "disable"])
def test_what_has_no_autoencoder_of_pictures_has_no_slices_or_tiles(pipelines, model, what, how):
    with pytest.raises(LuminaError, match="Pipeline has no autoencoder of pictures"):
        getattr(pipelines(model), f"{how}_vae_{what}")()


@pytest.mark.parametrize("scale", [np.float32(3), torch.tensor(3.0), np.array([3.0])])
def test_guidance_may_come_from_arrays(pipelines, scale):
    def make(scale):
        source = torch.Generator().manual_seed(0)
        options = {"points": 256, "num_inference_steps": 2, "generator": source}
        return pipelines("points")("a red cube", guidance_scale=scale, **options).media[0]

    np.testing.assert_allclose(make(scale), make(3.0), atol=1e-5)


@pytest.mark.parametrize("model", ["points", "speech"])
def test_each_sample_may_be_guided_by_its_number_of_a_tensor(pipelines, model):
    said = {"prompt": [SAID, SAID], "num_inference_steps": 1}
    assert len(pipelines(model)(guidance_scale=torch.tensor([1.0, 3.0]), **said).media) == 2
