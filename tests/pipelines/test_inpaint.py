"""Laws of inpainting and outpainting, with a random pipeline at a tiny size."""

import numpy as np
import pytest
import torch
from PIL import Image

from lumina import LuminaError, LuminaInpaintPipeline, extend_canvas
from lumina.flow.scheduler import FlowSolverScheduler
from lumina.flow.solvers import SOLVERS, integrate
from lumina.pipelines.inpaint import find_windows, repaint

PICTURE = Image.linear_gradient("L").convert("RGB").resize((96, 64))


def mask_of(*box, size=PICTURE.size):
    mask = Image.new("L", size)
    mask.paste(255, box)
    return mask


@pytest.fixture
def paint(ours):
    pipeline = LuminaInpaintPipeline.from_pipe(ours)

    def paint(mask, prompt="a red apple", image=PICTURE, **arguments):
        defaults = {"num_inference_steps": 2, "generator": torch.Generator().manual_seed(7)}
        return pipeline(prompt, image, mask, **defaults | arguments).images

    paint.pipeline = pipeline
    return paint


def change(image, picture=PICTURE):
    return np.abs(np.asarray(image, int) - np.asarray(picture, int)).max(-1)


@pytest.mark.parametrize("context", [None, 0, 16])
@pytest.mark.parametrize("border", [0, 5, 16])
def test_nothing_changes_outside_of_the_mask_and_its_border(paint, border, context):
    (image,) = paint(mask_of(30, 20, 60, 40), border=border, padding_mask_crop=context)
    changes = change(image)
    outside = np.ones_like(changes, bool)
    outside[20 - min(border, 20) : 40 + border, 30 - border : 60 + border] = False
    assert not changes[outside].any()
    assert changes[20:40, 30:60].any()


@pytest.mark.parametrize("name", [name for name in SOLVERS if name != "dopri5"])
def test_every_solver_reaches_what_is_known_exactly(name):
    noise, data = torch.randn(2, 1, 4, 8, 8, dtype=torch.float64)
    hole = torch.zeros(1, 1, 8, 8)
    hole[..., 2:5] = 1
    velocity = repaint(lambda time: lambda x, t: torch.sin(x) + t, hole, data - noise)(0.0)
    times = torch.linspace(0, 1, 6, dtype=torch.float64)
    points = integrate(velocity, noise, times, solver=SOLVERS[name])
    known = (hole == 0).expand_as(data)
    for x, time in zip(points, times, strict=True):
        torch.testing.assert_close(x[known], ((1 - time) * noise + time * data)[known])


def test_a_mask_over_everything_is_text_to_image(ours, paint, draw, assert_same):
    whole = paint(mask_of(0, 0, 96, 64), padding_mask_crop=None, output_type="latent")
    assert_same(whole, draw(ours, width=96, height=64))


def test_windows_stay_on_the_canvas_and_are_of_one_size():
    masks = torch.zeros(2, 1, 64, 96)
    masks[0, :, 0:10, 0:12] = 1
    masks[1, :, 40:60, 80:96] = 1
    first, second = find_windows(masks, context=4)
    assert (first.left, first.top) == (0, 0)
    assert (first.width, first.height) == (second.width, second.height) == (24, 28)
    assert second.left + second.width == 96
    assert second.top <= 40 - 4


def test_windows_are_never_long_and_thin_where_the_canvas_is_not():
    mask = torch.zeros(1, 1, 200, 200)
    mask[..., 100:104, 10:190] = 1
    (window,) = find_windows(mask, context=0)
    assert (window.width, window.height) == (180, 90)


def test_what_is_looked_at_is_enlarged_to_the_trained_size(paint):
    shapes = []
    paint.pipeline.transformer.register_forward_pre_hook(
        lambda _module, _arguments, named: shapes.append(named["hidden_states"].shape[2:]),
        with_kwargs=True,
    )
    paint(mask_of(40, 20, 56, 36), border=0, padding_mask_crop=8)
    assert set(shapes) == {(8, 8)}


def test_pictures_of_any_size_are_repainted_where_a_part_is_looked_at(paint):
    image = PICTURE.resize((101, 67))
    mask = mask_of(10, 10, 30, 30, size=image.size)
    (painted,) = paint(mask, image=image, padding_mask_crop=4)
    assert painted.size == image.size
    with pytest.raises(LuminaError, match="multiples of 16"):
        paint(mask, image=image)


def test_one_mask_serves_several_prompts(paint):
    generators = [torch.Generator().manual_seed(7), torch.Generator().manual_seed(8)]
    mask = mask_of(30, 20, 60, 40)
    both = paint(mask, ["a red apple", "a dog"], generator=generators)
    assert change(both[0], paint(mask)[0]).max() <= 1


def test_a_mask_of_another_size_is_refused(paint):
    with pytest.raises(LuminaError, match="64x64 and 96x64"):
        paint(mask_of(0, 0, 9, 9, size=(64, 64)))


def test_a_border_below_nothing_is_refused(paint):
    with pytest.raises(LuminaError, match="border"):
        paint(mask_of(0, 0, 9, 9), border=-1)


def test_solvers_of_two_velocities_a_step_repaint_too(paint):
    paint.pipeline.scheduler = FlowSolverScheduler(solver="heun")
    (image,) = paint(mask_of(30, 20, 60, 40), border=0)
    assert not change(image)[:, :30].any()


def test_a_canvas_grows_around_its_picture():
    canvas, mask = extend_canvas(PICTURE, (160, 96), at=(48, 16))
    box = (48, 16, 48 + 96, 16 + 64)
    assert np.array_equal(np.asarray(canvas.crop(box)), np.asarray(PICTURE))
    white = np.asarray(mask)
    assert not white[16:80, 48:144].any()
    assert (white == 255).sum() == 160 * 96 - 96 * 64


def test_a_picture_goes_in_the_middle_where_nothing_else_is_said():
    canvas, _ = extend_canvas(PICTURE, (128, 96))
    assert np.array_equal(np.asarray(canvas.crop((16, 16, 112, 80))), np.asarray(PICTURE))


@pytest.mark.parametrize(
    ("size", "at", "message"),
    [
        ((80, 80), None, "does not fit"),
        ((160, 96), (100, 0), "does not fit"),
        (PICTURE.size, None, "whole canvas"),
    ],
)
def test_a_canvas_that_does_not_hold_more_than_the_picture_is_refused(size, at, message):
    with pytest.raises(LuminaError, match=message):
        extend_canvas(PICTURE, size, at=at)
