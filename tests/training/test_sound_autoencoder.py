import dataclasses

import pytest
import torch

from lumina.errors import LuminaError
from lumina.modalities.sound.autoencoder import MelAutoencoder
from lumina.modalities.sound.mel import waveform_to_mel
from lumina.training.recipes import MelAutoencoderRecipe
from lumina.training.trainer import train

pytestmark = pytest.mark.usefixtures("soundfont")

DITHER = 16 / 32768  # fluidsynth adds noise of about one step of its 16 bits, and peaks are raised


@pytest.fixture
def recipe(tmp_path):
    return MelAutoencoderRecipe(
        out=str(tmp_path / "run"),
        steps=2,
        batch_size=64,
        frames=16,
        width=8,
        latent_channels=4,
        groups=4,
        clips=3,
        preview_every=2,
        warmup=0,
    )


def test_shares_of_more_than_all_sounds_are_refused(recipe):
    with pytest.raises(LuminaError, match="more than all"):
        dataclasses.replace(recipe, music=0.7, speech=0.4).check()


def test_a_run_writes_an_autoencoder_whose_latents_are_even(recipe):
    folder = train(recipe)
    model = MelAutoencoder.from_pretrained(folder)
    waveforms = recipe.make_objective().batch(5).samples
    with torch.no_grad():
        latents = model.encode(waveform_to_mel(waveforms)).latent_dist.mean
    assert latents.shape == (64, 4, 8)
    assert latents.square().mean().sqrt().item() == pytest.approx(1, abs=0.25)
    assert list(folder.parent.rglob("*.png"))


def test_the_same_number_gives_the_same_sounds(recipe):
    first, again = recipe.make_objective(), recipe.make_objective()
    one, same, other = first.batch(3).samples, again.batch(3).samples, first.batch(4).samples
    torch.testing.assert_close(one, same, rtol=0, atol=DITHER)
    assert (one - other).abs().max() > 10 * DITHER


def test_steps_down_the_gradient_lower_the_loss(recipe):
    torch.manual_seed(0)
    objective = recipe.make_objective()
    optimizer = torch.optim.Adam(objective.module.parameters(), 1e-2)
    batch = objective.batch(0)
    before = objective.loss(batch, 0)[0].item()
    for _ in range(8):
        optimizer.zero_grad()
        objective.loss(batch, 0)[0].backward()
        optimizer.step()
    assert objective.loss(batch, 0)[0].item() < 0.8 * before


def test_channels_that_do_not_divide_are_refused(recipe):
    with pytest.raises(LuminaError, match="do not divide into 3 groups"):
        dataclasses.replace(recipe, groups=3).check()
