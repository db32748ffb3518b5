"""Pictures and masks that come in, in each of the forms that a person has them in."""

import copy

import numpy as np
import pytest
import torch
from PIL import Image

from lumina import LuminaError
from lumina.pipelines.pictures import (
    as_mask,
    as_pixels,
    choose_size,
    encode_pixels,
    fill_hole,
    pair_up,
    size_of,
    soften,
    to_pil,
)
from lumina.types import Size

SIZE = Size(48, 32)


@pytest.fixture
def picture():
    generator = np.random.default_rng(0)
    return Image.fromarray(generator.integers(0, 256, (32, 48, 3), dtype=np.uint8))


def test_all_forms_of_a_picture_are_the_same_values(picture):
    array = np.asarray(picture).astype(np.float32) / 255
    tensor = torch.from_numpy(array).permute(2, 0, 1)
    forms = [picture, array, tensor]
    assert {size_of(form) for form in forms} == {SIZE}
    pixels = as_pixels(forms, SIZE)
    assert torch.equal(pixels[0], pixels[1])
    assert torch.equal(pixels[0], pixels[2])


def test_every_byte_comes_back(picture):
    (back,) = to_pil(as_pixels([picture], SIZE))
    assert np.array_equal(np.asarray(back), np.asarray(picture))


def test_what_is_transparent_is_white():
    clear = Image.new("RGBA", (16, 16), (255, 0, 0, 0))
    assert (as_pixels([clear], Size(16, 16)) == 1).all()


def test_gray_is_white_from_its_middle_on():
    row = np.array([[0, 127, 128, 255]], np.uint8)
    assert as_mask(Image.fromarray(row)).flatten().tolist() == [0, 0, 1, 1]


def test_a_black_mask_is_refused():
    with pytest.raises(LuminaError, match="nothing of the mask is white"):
        as_mask(Image.new("L", (16, 16)))


def test_one_prompt_serves_all_pictures_and_one_picture_all_prompts(picture):
    assert pair_up("a cat", image=[picture, picture]) == (["a cat"] * 2, [[picture, picture]])
    assert pair_up(["a", "b"], image=picture) == (["a", "b"], [[picture, picture]])


def test_other_numbers_are_refused_by_name(picture):
    with pytest.raises(LuminaError, match="3 pictures to make, but 2 for image"):
        pair_up(["a", "b", "c"], image=[picture, picture])


def test_a_size_that_does_not_divide_is_refused_with_the_nearest_that_does():
    with pytest.raises(LuminaError, match="width=48 and height=32"):
        choose_size(Image.new("RGB", (50, 30)), width=None, height=None)


@pytest.mark.parametrize(
    "mask", [torch.eye(4), np.eye(4), torch.eye(4)[None], np.eye(4)[..., None]], ids=type
)
def test_a_mask_of_numbers_may_have_no_channels(mask):
    assert torch.equal(as_mask(mask), torch.eye(4)[None, None])


def test_latents_are_in_the_scale_of_the_network(ours):
    pixels = torch.rand(2, 3, 32, 48) * 2 - 1
    with torch.no_grad():
        mean = ours.vae.encode(pixels).latent_dist.mean
        latents = encode_pixels(ours.vae, pixels)
    torch.testing.assert_close(latents, mean * ours.vae.config.scaling_factor)


@torch.no_grad()
def test_latents_of_an_autoencoder_with_a_shift_are_shifted_forth_and_back(ours):
    vae, latents = copy.deepcopy(ours.vae), torch.randn(1, 4, 4, 6)
    vae.register_to_config(shift_factor=0.5)
    pixels = torch.rand(1, 3, 32, 48) * 2 - 1
    difference = encode_pixels(ours.vae, pixels) - encode_pixels(vae, pixels)
    torch.testing.assert_close(
        difference, torch.full_like(difference, 0.5 * vae.config.scaling_factor)
    )
    shifted = type(ours)(**ours.components | {"vae": vae})
    plain = ours._decode(latents + 0.5 * vae.config.scaling_factor)
    torch.testing.assert_close(shifted._decode(latents), plain)


@pytest.mark.parametrize("border", [0, 1, 6, 16])
def test_a_soft_mask_is_whole_inside_and_gone_behind_its_border(border):
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 24:40, 30:34] = 1
    soft = soften(mask, border)
    assert (soft[mask > 0] == 1).all()
    beyond = torch.ones_like(mask)
    beyond[..., 24 - border : 40 + border, 30 - border : 34 + border] = 0
    assert (soft[beyond > 0] == 0).all()
    if border > 2:
        assert soft.diff(dim=-1).abs().max() <= 1 / border + 1e-6


def test_a_hole_in_one_color_is_filled_with_it_and_nothing_else_changes():
    pixels = torch.rand(1, 3, 40, 56)
    mask = torch.zeros(1, 1, 40, 56)
    mask[..., 8:30, 8:30] = 1
    filled = fill_hole(pixels, mask)
    assert torch.equal(filled * (1 - mask), pixels * (1 - mask))
    plain = torch.full_like(pixels, 0.3) * (1 - mask)
    torch.testing.assert_close(fill_hole(plain, mask), torch.full_like(pixels, 0.3))


def test_a_photo_is_seen_as_its_camera_was_held(tmp_path):
    sideways = Image.new("RGB", (64, 32), "black")
    sideways.paste("white", (0, 0, 32, 32))
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn clockwise
    sideways.save(tmp_path / "photo.png", exif=exif)
    with Image.open(tmp_path / "photo.png") as photo:
        assert size_of(photo) == Size(32, 64)
        assert as_mask(photo).shape == (1, 1, 64, 32)
        assert as_mask(photo)[0, 0, :32].all()
        assert (as_pixels([photo], Size(32, 64))[0, 0, 32:] == -1).all()


def test_what_is_transparent_in_a_mask_is_not_repainted():
    mask = Image.new("RGBA", (32, 16), (255, 255, 255, 0))
    with pytest.raises(LuminaError, match="nothing of the mask is white"):
        as_mask(mask)
    mask.paste((255, 255, 255, 255), (0, 0, 16, 16))
    assert as_mask(mask)[0, 0].mean() == 0.5
