import math

import pytest
import torch

from lumina.modalities.sound.mel import (
    HOP,
    MELS,
    SAMPLE_RATE,
    SILENCE,
    frames_of,
    mel_filters,
    waveform_to_mel,
)


def tone(hertz, seconds=1.0):
    return (torch.arange(int(seconds * SAMPLE_RATE)) * 2 * math.pi * hertz / SAMPLE_RATE).sin()[
        None
    ]


def test_a_higher_tone_is_in_a_higher_band():
    bands = [int(waveform_to_mel(tone(hertz)).mean(-1).argmax()) for hertz in (200, 800, 3200)]
    assert bands == sorted(set(bands))


def test_a_tone_is_loudest_in_the_band_around_its_frequency():
    mel = waveform_to_mel(0.5 * tone(1000.0)).mean(-1)[0]
    bins = torch.linspace(0, SAMPLE_RATE / 2, mel_filters().shape[1])
    middle = bins[mel_filters()[mel.argmax()].argmax()]
    assert middle == pytest.approx(1000, abs=40)


def test_ten_times_the_amplitude_is_one_more():
    quiet, loud = waveform_to_mel(0.05 * tone(440)), waveform_to_mel(0.5 * tone(440))
    heard = quiet > SILENCE + 1  # away from where both are cut
    assert torch.allclose(loud[heard] - quiet[heard], torch.ones(()), atol=1e-2)


def test_silence_is_the_least_value():
    assert waveform_to_mel(torch.zeros(1, 4 * HOP)).unique().tolist() == pytest.approx(
        [SILENCE], abs=0.2
    )


def test_mixed_precision_does_not_round_it():
    noise = torch.randn(1, 8 * HOP, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        mixed = waveform_to_mel(noise)
    assert torch.equal(mixed, waveform_to_mel(noise))


@pytest.mark.parametrize("samples", [1000, 16_000, 16_001])
def test_a_frame_is_made_of_each_256_samples(samples):
    mel = waveform_to_mel(torch.zeros(2, samples))
    assert mel.shape == (2, MELS, frames_of(samples / SAMPLE_RATE))


def test_moving_a_sound_by_one_frame_moves_the_spectrogram_by_one():
    noise = torch.randn(1, 40 * HOP, generator=torch.Generator().manual_seed(0))
    moved = waveform_to_mel(noise.roll(HOP, -1))
    assert torch.allclose(moved[..., 5:35], waveform_to_mel(noise)[..., 4:34], atol=1e-4)


def test_filters_are_triangles_of_equal_area():
    areas = mel_filters().double().sum(1) * SAMPLE_RATE / 1024
    # Of the narrowest bands, only a few bins are inside.
    assert torch.allclose(areas[20:], torch.ones(60, dtype=torch.float64), atol=0.05)


def test_too_short_a_sound_is_refused():
    with pytest.raises(ValueError, match="too few"):
        waveform_to_mel(torch.zeros(1, 10))
