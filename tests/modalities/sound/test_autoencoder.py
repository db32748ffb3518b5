import pytest
import torch

from lumina.modalities.sound.autoencoder import MelAutoencoder
from lumina.modalities.sound.mel import MELS

SMALL = {"width": 8, "multipliers": (1, 2), "blocks": 1, "groups": 4, "latent_channels": 6}


@pytest.fixture
def autoencoder():
    torch.manual_seed(0)
    return MelAutoencoder(**SMALL).eval()


@torch.no_grad()
@pytest.mark.parametrize(("halved", "frames"), [((), 24), ((0,), 12), ((0, 1), 6)])
def test_each_halved_level_halves_the_frames(halved, frames):
    model = MelAutoencoder(**SMALL | {"halved_levels": halved}).eval()
    latents = model.encode(torch.randn(1, MELS, 24)).latent_dist.mean
    assert latents.shape == (1, 6, frames)


@torch.no_grad()
def test_decoding_gives_back_the_length(autoencoder):
    mel = torch.randn(2, MELS, 20)
    assert autoencoder(mel).sample.shape == mel.shape


@torch.no_grad()
def test_a_saved_autoencoder_is_the_same(autoencoder, tmp_path):
    mel = torch.randn(1, MELS, 16)
    autoencoder.save_pretrained(tmp_path)
    again = MelAutoencoder.from_pretrained(tmp_path)
    assert torch.equal(again(mel).sample, autoencoder(mel).sample)


@torch.no_grad()
def test_without_attention_far_frames_change_nothing():
    model = MelAutoencoder(**SMALL | {"has_attention": False, "groups": 4}).eval()
    # Norms would carry the far frames here.
    for part in model.modules():
        if isinstance(part, torch.nn.GroupNorm):
            part.forward = lambda x: x
    mel = torch.randn(1, MELS, 200)
    other = torch.cat([mel[..., :100], torch.randn(1, MELS, 100)], -1)
    assert torch.allclose(model(mel).sample[..., :60], model(other).sample[..., :60], atol=1e-5)
