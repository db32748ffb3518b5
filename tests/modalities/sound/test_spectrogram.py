import numpy as np
import pytest

from lumina.modalities.sound.spectrogram import _BOTTOM, _LEFT, draw_spectrogram, mel_of


@pytest.mark.parametrize("hertz", [300, 1500, 6000])
def test_a_tone_is_a_bright_line_at_its_frequency(hertz):
    tone = np.sin(2 * np.pi * hertz * np.arange(16_000) / 16_000)
    picture = np.asarray(draw_spectrogram(tone, width=100, height=200).convert("L")).astype(int)
    column = picture[16:-_BOTTOM, _LEFT + 50]
    height = (200 - column.argmax()) / 200
    assert height == pytest.approx(mel_of(hertz) / mel_of(8000), abs=0.02)


def test_a_sound_in_the_second_half_is_bright_on_the_right():
    waveform = np.random.default_rng(0).normal(size=32_000) * (np.arange(32_000) > 16_000)
    picture = np.asarray(draw_spectrogram(waveform, width=200).convert("L"))
    inside = picture[20 : -_BOTTOM - 4, _LEFT : _LEFT + 200].mean(0)
    assert inside[120:].min() > inside[:80].max() + 40


@pytest.mark.parametrize("samples", [100, 16_000, 160_000])
def test_a_picture_has_one_size_whatever_the_length(samples):
    assert draw_spectrogram(np.zeros(samples)).size == draw_spectrogram(np.ones(500)).size


def test_silence_is_dark():
    picture = np.asarray(draw_spectrogram(np.zeros(16_000), width=100, height=200).convert("L"))
    assert picture[16:-_BOTTOM, _LEFT : _LEFT + 100].max() < 8
