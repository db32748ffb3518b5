import copy
import math

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image

from lumina.modalities.image import to_pixels
from lumina.training.autoencoder import AutoencoderObjective, fold_main_axes
from lumina.training.recipes import AutoencoderRecipe

TINY = {"channels": (4, 4, 4, 4), "groups": 2, "crop": 32, "batch_size": 4, "steps": 10}


def random_vae():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            block_out_channels=(8, 8),
            layers_per_block=1,
            norm_num_groups=2,
            latent_channels=4,
            mid_block_add_attention=False,
        )
        with torch.no_grad():  # latents far from what they are to become
            vae.quant_conv.bias.copy_(torch.randn(8) * 3)
        return vae.eval()


@pytest.fixture
def vae():
    return random_vae()


@pytest.fixture
def pixels():
    return torch.rand(20, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1


@torch.no_grad()
def encode(vae, pixels):
    return vae.encode(pixels).latent_dist.mean


def flat(latents):
    return latents.transpose(0, 1).flatten(1).double()


def test_bytes_become_values_from_minus_one_to_one():
    picture = np.zeros((2, 3, 3), np.uint8)
    picture[0, 1] = (255, 0, 51)
    pixels = to_pixels([picture, picture])
    assert pixels.shape == (2, 3, 2, 3)
    torch.testing.assert_close(pixels[1, :, 0, 1], torch.tensor([1.0, -1.0, -0.6]))
    assert (pixels[:, :, 1] == -1).all()


@pytest.mark.parametrize("whiten", [False, True])
@torch.no_grad()
def test_folding_leaves_what_comes_back_the_same(vae, pixels, whiten):
    other = pixels.flip(0, 3) * 0.5  # not only for the pictures it was measured on
    before = [vae.decode(encode(vae, given)).sample for given in (pixels, other)]
    fold_main_axes(vae, pixels, whiten=whiten)
    after = [vae.decode(encode(vae, given)).sample for given in (pixels, other)]
    for one, two in zip(before, after, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("whiten", [False, True])
def test_folded_latents_are_uncorrelated_of_zero_mean_and_unit_spread(vae, pixels, whiten):
    before = flat(encode(vae, pixels))
    assert before.mean(1).abs().max() > 1
    fold_main_axes(vae, pixels, whiten=whiten)
    latents = flat(encode(vae, pixels))
    covariance = torch.cov(latents)
    variances = covariance.diagonal()
    assert latents.mean(1).abs().max() < 1e-4
    torch.testing.assert_close(
        covariance, torch.diag(variances), rtol=0, atol=1e-4 * variances.max().item()
    )
    assert variances.mean().item() == pytest.approx(1, rel=1e-4)
    if whiten:
        torch.testing.assert_close(variances, torch.ones_like(variances), rtol=1e-3, atol=0)


def test_the_last_folded_channel_holds_the_least(vae, pixels):
    fold_main_axes(vae, pixels)
    variances = flat(encode(vae, pixels)).var(1)
    assert (variances.diff() < 0).all()


@torch.no_grad()
def test_a_sample_of_a_folded_posterior_is_its_mean(vae, pixels):
    fold_main_axes(vae, pixels)
    posterior = vae.encode(pixels).latent_dist
    sample = posterior.sample(torch.Generator().manual_seed(0))
    torch.testing.assert_close(sample, posterior.mean, rtol=0, atol=1e-3)


def test_folding_twice_is_folding_once(vae, pixels):
    fold_main_axes(vae, pixels)
    once = encode(vae, pixels)
    fold_main_axes(vae, pixels)
    # An axis may come out turned around.
    torch.testing.assert_close(encode(vae, pixels).abs(), once.abs(), rtol=1e-3, atol=1e-3)


def make(**settings):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoencoderObjective(AutoencoderRecipe(**TINY | settings))


@pytest.fixture(scope="module")
def objective(font):
    return make()


def test_a_batch_is_the_same_for_the_same_step(objective):
    first = objective.batch(5).pixels
    assert torch.equal(first, objective.batch(5).pixels)
    assert not torch.equal(first, objective.batch(6).pixels)
    other = AutoencoderRecipe(**TINY, seed=1)
    assert not torch.equal(first, _with_recipe(objective, other).batch(5).pixels)


def test_nearly_every_crop_shows_more_than_one_color(objective):
    pixels = torch.cat([objective.batch(step).pixels for step in range(25)])
    assert pixels.shape == (100, 3, 32, 32)
    assert pixels.min() == -1
    assert pixels.max() == 1
    # The middle of a large drawing may be of one color.
    is_plain = pixels.flatten(2).std(-1).amax(1) == 0
    assert is_plain.float().mean() < 0.1


def test_the_loss_is_of_the_step_and_reaches_every_weight(objective):
    batch = objective.batch(0)
    loss, figures = objective.loss(batch, 0)
    assert loss.item() == objective.loss(batch, 0)[0].item()
    assert loss.item() != objective.loss(batch, 1)[0].item()  # the noise is another
    assert figures.keys() == {"psnr", "spread"}
    loss.backward()
    module = objective.module
    # What spreads the posterior is replaced at the end, and the first convolution of a residual
    # block is reached once the second, which starts at zero, has moved.
    assert module.decoder.conv_in.weight.grad.abs().max() > 0
    assert module.encoder.conv_in.weight.grad.abs().max() > 0
    assert all(weight.grad.isfinite().all() for weight in module.parameters())
    module.zero_grad(set_to_none=True)


def test_without_noise_the_loss_is_the_error_and_the_spread(objective):
    plain = _with_recipe(objective, AutoencoderRecipe(**TINY, latent_noise=0.0, spread_weight=0.0))
    batch = plain.batch(0)
    with torch.no_grad():
        output = plain.module.decode(encode(plain.module, batch.pixels)).sample
    difference = output - batch.pixels
    loss, figures = plain.loss(batch, 0)
    expected = 10 * difference.square().mean() + difference.abs().mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    rms = difference.square().mean().sqrt().item()
    assert figures["psnr"] == pytest.approx(20 * math.log10(2 / rms), rel=1e-5)


def test_smoothness_adds_the_error_at_half_size(objective):
    batch = objective.batch(0)
    smooth = _with_recipe(objective, AutoencoderRecipe(**TINY, smoothness=0.5))
    plain, _ = objective.loss(batch, 0)
    loss, figures = smooth.loss(batch, 0)
    assert figures["smooth"] > 0
    assert loss.item() == pytest.approx(plain.item() + 0.5 * figures["smooth"], rel=1e-5)


@torch.no_grad()
def test_what_is_exported_decodes_as_what_was_trained(font, tmp_path):
    objective = make()
    pixels = objective.batch(0).pixels
    before = objective.module.decode(encode(objective.module, pixels)).sample
    objective.export(tmp_path)
    loaded = AutoencoderKL.from_pretrained(tmp_path)
    posterior = loaded.encode(pixels).latent_dist
    sample = posterior.sample(torch.Generator().manual_seed(0))
    torch.testing.assert_close(loaded.decode(sample).sample, before, rtol=1e-2, atol=1e-2)
    assert loaded.config.scaling_factor == 1.0
    assert flat(encode(loaded, objective._some_pixels())).var(1).mean().item() == pytest.approx(
        1, rel=1e-3
    )


def test_a_batch_of_more_than_all_measured_pictures_is_exported(font, tmp_path):
    make(batch_size=130, crop=16).export(tmp_path)
    assert AutoencoderKL.from_pretrained(tmp_path)


@torch.no_grad()
def test_a_start_from_other_weights_keeps_what_they_make(font, tmp_path):
    first = make()
    first.export(tmp_path)
    second = make(start_from=str(tmp_path))
    pixels = first.batch(0).pixels
    before, after = (o.module.decode(encode(o.module, pixels)).sample for o in (first, second))
    torch.testing.assert_close(before, after, rtol=1e-2, atol=1e-2)
    variances = flat(encode(second.module, second._some_pixels())).var(1)
    torch.testing.assert_close(variances, torch.ones_like(variances), rtol=1e-2, atol=0)


def test_a_preview_shows_unseen_drawings_above_what_comes_back(objective, tmp_path):
    objective.preview(tmp_path, 3)
    (path,) = tmp_path.iterdir()
    assert path.name.startswith("step-000003-")
    assert path.name.endswith("dB.png")
    assert Image.open(path).size == (16 * 128, 2 * 128)
    assert not set(objective.unseen) & set(objective.things)


def _with_recipe(objective, recipe):
    """The same weights and drawings, under other settings."""
    other = copy.copy(objective)
    other.recipe = recipe
    return other


def test_training_the_decoder_alone_leaves_all_latents_as_they_are(font, tmp_path):
    first = AutoencoderObjective(AutoencoderRecipe(out=str(tmp_path), **TINY))
    first.export(tmp_path / "first")
    settings = TINY | {"start_from": str(tmp_path / "first"), "decoder_only": True}
    objective = AutoencoderObjective(AutoencoderRecipe(out=str(tmp_path), **settings))
    loss, _ = objective.loss(objective.batch(0), 0)
    loss.backward()
    learning = [
        name for name, weight in objective.module.named_parameters() if weight.grad is not None
    ]
    assert learning
    assert all(name.startswith(("decoder.", "post_quant_conv.")) for name in learning)
    objective.export(tmp_path / "second")
    one, other = (AutoencoderKL.from_pretrained(tmp_path / name) for name in ("first", "second"))
    assert torch.equal(
        encode(one, objective.batch(1).pixels), encode(other, objective.batch(1).pixels)
    )
