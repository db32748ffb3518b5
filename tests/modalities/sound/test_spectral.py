import pytest
import torch

from lumina.modalities.sound.mel import HOP, MELS, waveform_to_mel
from lumina.modalities.sound.spectral import SpectralVocoder, inverse_stft

SMALL = {"width": 16, "depth": 1, "inner_width": 32}


@pytest.mark.parametrize(("fft", "hop"), [(1024, 256), (64, 16), (64, 32)])
def test_the_inverse_transform_undoes_the_transform(fft, hop):
    waveform = torch.randn(2, 12 * hop, generator=torch.Generator().manual_seed(0))
    margin = (fft - hop) // 2
    padded = torch.nn.functional.pad(waveform, (margin, margin))
    window = torch.hann_window(fft)
    spectrum = torch.stft(padded, fft, hop, window=window, center=False, return_complex=True)
    assert torch.allclose(inverse_stft(spectrum, hop=hop), waveform, atol=1e-4)


@torch.no_grad()
def test_each_frame_becomes_one_hop(tmp_path):
    model = SpectralVocoder(**SMALL).eval()
    mel = waveform_to_mel(0.1 * torch.randn(2, 10 * HOP))
    waveform = model(mel)
    assert waveform.shape == (2, 10 * HOP)
    model.save_pretrained(tmp_path)
    assert torch.equal(SpectralVocoder.from_pretrained(tmp_path)(mel), waveform)


@torch.no_grad()
def test_the_default_is_small():
    weights = sum(weight.numel() for weight in SpectralVocoder().parameters())
    assert 2 * weights < 3.2e6  # bytes in half precision


@torch.no_grad()
def test_frames_far_apart_do_not_hear_each_other():
    model = SpectralVocoder(**SMALL).eval()
    mel = torch.randn(1, MELS, 40)
    other = torch.cat([mel[..., :30], torch.randn(1, MELS, 10)], -1)
    assert torch.allclose(model(mel)[:, : 20 * HOP], model(other)[:, : 20 * HOP], atol=1e-5)
