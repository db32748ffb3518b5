import math

import pytest
import torch

from lumina.modalities.sound.vocoder import (
    BigVGAN,
    SmoothSnake,
    lowpass_filter,
    without_weight_norm,
)

SMALL = {
    "num_mels": 8,
    "upsample_initial_channel": 16,
    "upsample_rates": (4, 2),
    "upsample_kernel_sizes": (8, 4),
    "resblock_kernel_sizes": (3,),
    "resblock_dilation_sizes": ((1, 3),),
}


@torch.no_grad()
def test_a_frame_becomes_as_many_samples_as_the_rates_say(tmp_path):
    model = BigVGAN(**SMALL).eval()
    mel = torch.randn(2, 8, 5)
    waveform = model(mel)
    assert waveform.shape == (2, 5 * 8)
    assert waveform.abs().max() <= 1
    model.save_pretrained(tmp_path)
    assert torch.equal(BigVGAN.from_pretrained(tmp_path)(mel), waveform)


@torch.no_grad()
def test_the_activation_adds_no_frequency_that_folds_back():
    """The square of a sine of 0.3 has 0.6 times the sampling rate in it, which would be 0.4."""
    times = torch.arange(512)
    wave = (2 * math.pi * 0.3 * times).sin()[None, None]
    smooth = SmoothSnake(1, log_scale=True)
    plain, filtered = smooth.act(wave), smooth(wave)
    window = torch.hann_window(512)

    def at(signal, frequency):
        return torch.fft.rfft(signal[0, 0] * window)[round(frequency * 512)].abs()

    assert at(filtered, 0.4) < 0.5 * at(plain, 0.4)
    assert at(filtered, 0.3) == pytest.approx(at(plain, 0.3), rel=0.5)


def test_the_filter_passes_a_constant_and_stops_the_fastest():
    weights = lowpass_filter(12)
    assert weights.sum() == pytest.approx(1)
    assert (weights * torch.tensor([1.0, -1.0] * 6)).sum() == pytest.approx(0, abs=1e-3)


def test_weight_norms_are_multiplied_out():
    torch.manual_seed(0)
    layer = torch.nn.utils.parametrizations.weight_norm(torch.nn.Conv1d(3, 4, 5))
    parametrized = layer.parametrizations.weight
    stored = {
        "conv.weight_g": parametrized.original0.detach() * 2,
        "conv.weight_v": parametrized.original1.detach() * 3,
        "conv.bias": layer.bias.detach(),
        "act.upsample.filter": torch.ones(1),
    }
    plain = without_weight_norm(stored)
    assert plain.keys() == {"conv.weight", "conv.bias"}
    assert torch.allclose(plain["conv.weight"], 2 * layer.weight.detach())
