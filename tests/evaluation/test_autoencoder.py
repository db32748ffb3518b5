import math

import numpy as np
import pytest
import torch
from PIL import Image

from lumina.evaluation.autoencoder import draw_unseen, psnr, psnr_of_unseen, round_trip
from lumina.modalities import image
from lumina.worlds.drawings import sprite
from lumina.worlds.vocabulary import SKIN_TONES


def pictures(count, *, rows=8, cols=12):
    rng = np.random.default_rng(0)
    bytes_ = rng.integers(0, 256, (count, rows, cols, 3), np.uint8)
    return [Image.fromarray(picture) for picture in bytes_]


def flat(level):
    return np.full((4, 6, 3), level, np.uint8)


@pytest.mark.parametrize("difference", [1, 16, 255])
def test_psnr_of_a_constant_difference_is_known(difference):
    expected = 20 * math.log10(255 / difference)
    assert psnr(flat(0), flat(difference)) == pytest.approx(expected)
    assert psnr(flat(difference), flat(0)) == pytest.approx(expected)


def test_psnr_of_equal_pictures_is_infinite():
    assert psnr(flat(7), flat(7)) == math.inf


def test_halving_the_wrong_pixels_adds_three_decibels():
    one, two = flat(0), flat(0)
    one[0, 0] = two[0, :2] = 90
    assert psnr(one, flat(0)) - psnr(two, flat(0)) == pytest.approx(10 * math.log10(2))


@pytest.mark.parametrize("at_once", [1, 2, 5, 9])
def test_an_autoencoder_that_changes_nothing_returns_the_pictures_in_order(
    identity_vae, at_once, monkeypatch
):
    given = pictures(5)
    monkeypatch.setattr(image, "PIXELS", at_once * given[0].width * given[0].height)
    returned = round_trip(identity_vae, given)
    assert len(returned) == 5
    for before, after in zip(given, returned, strict=True):
        np.testing.assert_array_equal(before, after)


def test_a_round_trip_takes_the_middle_of_the_posterior_and_no_sample(identity_vae):
    given = pictures(1)
    with torch.no_grad():
        identity_vae.quant_conv.bias[3:] = 4.0  # log variance
    np.testing.assert_array_equal(round_trip(identity_vae, given)[0], given[0])


def test_values_out_of_range_are_cut_off(identity_vae):
    given = pictures(1)
    with torch.no_grad():
        identity_vae.decoder.conv_out.bias.fill_(100 / 127.5)
    returned = round_trip(identity_vae, given)[0]
    np.testing.assert_array_equal(returned, np.minimum(np.asarray(given[0], int) + 100, 255))


@pytest.mark.usefixtures("font")
def test_unseen_drawings_are_drawn_once_and_are_not_in_the_vocabulary(patterns):
    unseen = draw_unseen(list(patterns), count=50, rng=np.random.default_rng(0))
    assert len(set(unseen)) == 50
    assert not set(unseen) & set(patterns)
    assert not {ord(letter) for emoji in unseen for letter in emoji} & set(SKIN_TONES)
    for emoji in unseen:
        assert sprite(emoji).getbbox()


@pytest.mark.usefixtures("font")
def test_unseen_drawings_are_the_same_for_the_same_seed(patterns):
    first, again, other = (
        draw_unseen(list(patterns), count=8, rng=np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert first == again != other


@pytest.mark.usefixtures("font")
def test_an_autoencoder_that_changes_nothing_has_no_error_on_unseen_drawings(
    identity_vae, patterns
):
    values = psnr_of_unseen(identity_vae, list(patterns), count=4, side=48, seed=0)
    assert values == [math.inf] * 4


@pytest.mark.usefixtures("font")
@pytest.mark.parametrize(("damaged", "is_measured"), [("frame", False), ("middle", True)])
def test_only_the_box_of_a_drawing_is_measured(identity_vae, patterns, damaged, is_measured):
    inside = torch.zeros(60, 60, dtype=torch.bool)
    inside[6:54, 6:54] = True  # no drawing is larger than 0.8 of the side
    is_damaged = inside if damaged == "middle" else ~inside

    def damage(module, arguments, output):
        return output.where(~is_damaged, -output)

    identity_vae.decoder.register_forward_hook(damage)
    values = psnr_of_unseen(identity_vae, list(patterns), count=5, side=60, seed=0)
    assert all(math.isfinite(value) == is_measured for value in values)
