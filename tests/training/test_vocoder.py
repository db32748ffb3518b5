import dataclasses

import pytest
import torch

from lumina.errors import LuminaError
from lumina.modalities.sound.autoencoder import MelAutoencoder
from lumina.modalities.sound.mel import waveform_to_mel
from lumina.modalities.sound.spectral import SpectralVocoder
from lumina.pipelines.audio import load_vocoder
from lumina.training.recipes import VocoderRecipe
from lumina.training.sound_critic import SpectrumCritic, critic_loss, vocoder_loss
from lumina.training.trainer import train
from lumina.training.vocoder import spectrum_error

pytestmark = pytest.mark.usefixtures("soundfont")


@pytest.fixture
def recipe(tmp_path):
    return VocoderRecipe(
        out=str(tmp_path / "run"),
        steps=2,
        batch_size=2,
        frames=16,
        width=16,
        depth=1,
        inner_width=16,
        critic_start=0.5,
        clips=3,
        preview_every=100,
        warmup=0,
    )


def noise(seed):
    return 0.1 * torch.randn(2, 4096, generator=torch.Generator().manual_seed(seed))


def test_a_run_writes_a_vocoder(recipe):
    pytest.importorskip("soundfile")
    model = SpectralVocoder.from_pretrained(train(recipe))
    assert model(waveform_to_mel(noise(0))).shape == (2, 4096)


def test_a_vocoder_is_put_beside_its_autoencoder(recipe, tmp_path):
    pytest.importorskip("soundfile")
    MelAutoencoder(
        latent_channels=4, width=8, multipliers=(1,), blocks=1, groups=4
    ).save_pretrained(tmp_path / "mel")
    last = train(dataclasses.replace(recipe, autoencoder=str(tmp_path / "mel")))
    assert MelAutoencoder.from_pretrained(last / "vae").config["latent_channels"] == 4
    assert load_vocoder(last / "vocoder", dtype=torch.float32)
    with pytest.raises(LuminaError, match="no autoencoder of spectrograms"):
        train(dataclasses.replace(recipe, autoencoder=str(last / "vocoder"), out=str(tmp_path)))


def test_equal_sounds_have_no_error():
    error, _ = spectrum_error(noise(0), noise(0))
    assert error.item() == pytest.approx(0, abs=1e-5)


def test_the_error_does_not_ask_for_the_sign_of_a_wave():
    turned, _ = spectrum_error(-noise(0), noise(0))
    other, _ = spectrum_error(noise(1), noise(0))
    assert turned.item() == pytest.approx(0, abs=1e-5)
    assert other.item() > 0.1


def test_critic_and_vocoder_do_not_learn_from_the_loss_of_the_other():
    critic = SpectrumCritic()
    made = noise(1).requires_grad_()
    scores, differences = vocoder_loss(critic, noise(0), made)
    (scores + differences).backward()
    assert made.grad.abs().sum() > 0
    assert all(weight.grad is None for weight in critic.parameters())
    made.grad = None
    critic_loss(critic, noise(0), made).backward()
    assert made.grad is None
    assert all(weight.grad is not None for weight in critic.parameters())


def test_a_critic_learns_to_tell_a_tone_from_noise():
    torch.manual_seed(0)
    critic = SpectrumCritic()
    tone = 0.3 * (torch.arange(4096) * 0.3).sin().expand(2, -1)
    optimizer = torch.optim.Adam(critic.parameters(), 3e-3)
    first = critic_loss(critic, tone, noise(0)).item()
    for seed in range(15):
        optimizer.zero_grad()
        critic_loss(critic, tone, noise(seed)).backward()
        optimizer.step()
    assert critic_loss(critic, tone, noise(99)).item() < 0.7 * first
