"""Pictures of sounds: time to the right, frequency upward, brighter where it is louder."""

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont

from lumina.modalities.sound.mel import SAMPLE_RATE

WINDOW, HOP = 1024, 128
QUIETEST_DB = -80.0
"""Decibels below the loudest point, where a picture is black."""

SILENCE_DB = -120.0
"""What silence counts as, which has no loudness."""

FREQUENCIES = (100, 200, 500, 1000, 2000, 4000, 8000)
"""Where the vertical axis is labelled, in Hz."""


def draw_spectrogram(
    waveform: Float[np.ndarray, " samples"], *, width: int = 640, height: int = 256
) -> Image.Image:
    """Spectrogram of a waveform at 16 kHz, with axes in seconds and Hz.

    Args:
        waveform: Samples in [-1, 1].
        width: Of the spectrogram in pixels, without its labels.
        height: The same.
    """
    levels = _levels(waveform, height)
    colors = (_COLORS[np.round(levels * (len(_COLORS) - 1)).astype(int)]).astype(np.uint8)
    picture = Image.fromarray(colors[::-1]).resize((width, height), Image.Resampling.BILINEAR)
    canvas = Image.new("RGB", (width + _LEFT + _RIGHT, height + _TOP + _BOTTOM), "white")
    canvas.paste(picture, (_LEFT, _TOP))
    _label(canvas, len(waveform) / SAMPLE_RATE, width, height)
    return canvas


def mel_of(hertz: float) -> float:
    """Place of a frequency on the vertical axis, on a mel scale."""
    return 2595 * float(np.log10(1 + hertz / 700))


def _levels(waveform: Float[np.ndarray, " samples"], height: int) -> Float[np.ndarray, "rows cols"]:
    """Loudness in [0, 1] in rows that are even on the mel scale."""
    padded = np.pad(waveform, WINDOW // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP]
    power = np.abs(np.fft.rfft(frames * np.hanning(WINDOW), axis=1)) ** 2
    places = np.linspace(0, mel_of(SAMPLE_RATE / 2), height)
    bins = 700 * (10 ** (places / 2595) - 1) * WINDOW / SAMPLE_RATE
    decibels = 10 * np.log10(power + 10 ** (SILENCE_DB / 10))
    rows = np.stack([np.interp(bins, np.arange(decibels.shape[1]), frame) for frame in decibels], 1)
    loudest = max(rows.max(), SILENCE_DB - QUIETEST_DB)  # so that silence alone is black
    return np.clip((rows - loudest) / -QUIETEST_DB + 1, 0, 1)


def _label(canvas: Image.Image, seconds: float, width: int, height: int) -> None:
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=_LABEL)
    bottom = _TOP + height
    lowest = bottom + _LABEL
    for hertz in FREQUENCIES:
        y = bottom - round(mel_of(hertz) / mel_of(SAMPLE_RATE / 2) * height)
        draw.line((_LEFT - 4, y, _LEFT - 1, y), fill="black")
        if lowest - y < _LABEL:
            continue
        lowest = y
        draw.text((_LEFT - 6, y), str(hertz), fill="black", font=font, anchor="rm")
    draw.text((4, 2), "Hz", fill="black", font=font)
    step = next(step for step in _STEPS if seconds / step <= _MOST_LABELS)
    for number in range(int(seconds / step + 1e-6) + 1):
        x = _LEFT + round(number * step / seconds * width)
        draw.line((x, bottom, x, bottom + 3), fill="black")
        draw.text((x, bottom + 5), f"{number * step:g}", fill="black", font=font, anchor="mt")
    draw.text((_LEFT + width + 6, bottom + 5), "s", fill="black", font=font, anchor="lt")


_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 20, 16, 22
_LABEL = 11  # pixels of height
_STEPS = (0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 120)
_MOST_LABELS = 10

_STOPS = ((0, 0, 4), (60, 15, 110), (150, 45, 125), (230, 90, 80), (250, 180, 60), (255, 255, 220))
_COLORS = np.stack(
    [
        np.interp(np.linspace(0, 1, 256), np.linspace(0, 1, len(_STOPS)), channel)
        for channel in zip(*_STOPS, strict=True)
    ],
    axis=1,
)
"""From silence to the loudest, ever brighter."""
