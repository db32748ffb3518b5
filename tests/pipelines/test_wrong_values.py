"""Values of a wrong type, given in Python to pipelines of media, are refused by their names."""

import jaxtyping
import pytest
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
        ("multiview", {"views": "2"}, "views is '2', which is no whole number"),
        ("multiview", {"image": "x.png"}, "what is known has str 'x.png', which is no picture"),
        ("sound", {"seconds": "3"}, "seconds is '3', which is no number"),
        ("sound", {"seconds": 0}, "seconds is 0, which is out of range.*\n.*a sample"),
        ("sound", {"seconds": float("nan")}, "seconds is nan, which is out of range"),
        ("speech", {"prompt": None}, "Provide either `prompt`"),
        ("speech", {"prompt": SAID, "speed": "1"}, "speed is '1', which is no number"),
        ("speech", {"prompt": SAID, "speed": 3}, "speed is 3, which is out of range"),
        ("speech", {"prompt": SAID, "voice": 3}, "unknown voice 3"),
    ],
)
def test_it_is_told_what_was_given_and_what_is_allowed(pipelines, model, arguments, told):
    with pytest.raises((LuminaError, ValueError), match=told):
        pipelines(model)(**{"prompt": "a red cube", "num_inference_steps": 1} | arguments)
