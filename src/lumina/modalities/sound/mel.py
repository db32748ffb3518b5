"""Mel spectrograms: how loud a sound is in each of 80 bands, 62.5 times a second."""

import functools
import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

SAMPLE_RATE = 16_000
"""Samples of a waveform in a second."""

FFT = 1024
"""Samples of the window of each frame."""

HOP = 256
"""Samples from one frame to the next."""

MELS = 80
"""Bands from 0 to 8,000 Hz, evenly spread over the mel scale."""

QUIETEST = 1e-5
"""Magnitudes below this count as silence."""

SILENCE = math.log10(QUIETEST)
"""What a mel spectrogram holds where there is no sound."""


def waveform_to_mel(waveform: Float[Tensor, "b samples"]) -> Float[Tensor, "b 80 frames"]:
    """Decadic logarithm of the magnitude in each band.

    Args:
        waveform: Samples in [-1, 1] at 16 kHz. Silence is added to fill the last frame.

    Returns:
        One frame for each 256 samples, from -5 (silence) to about 1, in float32.

    Raises:
        ValueError: If there are too few samples for one window.

    Source:
        Settings and scale of the vocoder of the original release (Make-An-Audio 2).
    """
    samples = waveform.float()
    samples = functional.pad(samples, (0, -samples.shape[-1] % HOP))
    with torch.autocast(samples.device.type, enabled=False):
        magnitudes = stft_magnitude(samples, fft=FFT, hop=HOP)
        bands = mel_filters().to(samples.device) @ magnitudes
    return bands.clamp(min=QUIETEST).log10()


def stft_magnitude(
    waveform: Float[Tensor, "b samples"], *, fft: int, hop: int
) -> Float[Tensor, "b bins frames"]:
    """Magnitude of the short-time spectrum, with as many frames as whole hops.

    Args:
        waveform: At least half a window of samples.
        fft: Samples of the window, and twice the bins less one.
        hop: Samples from one frame to the next.

    Raises:
        ValueError: If there are too few samples.
    """
    margin = (fft - hop) // 2
    if waveform.shape[-1] <= margin:
        raise ValueError(f"{waveform.shape[-1]} samples are too few, more than {margin} are needed")
    padded = functional.pad(waveform.unsqueeze(1), (margin, margin), mode="reflect").squeeze(1)
    window = torch.hann_window(fft, device=waveform.device)
    spectrum = torch.stft(padded, fft, hop, window=window, center=False, return_complex=True)
    # Not `abs`, whose gradient is unbounded at silence.
    return (spectrum.real.square() + spectrum.imag.square() + _FLOOR).sqrt()


@functools.cache
def mel_filters() -> Float[Tensor, "80 bins"]:
    """How much each bin of the spectrum counts in each band: triangles of equal area.

    Source:
        Slaney's Auditory Toolbox (1998), the default of librosa, which the release used.
    """
    edges = torch.from_numpy(
        _mel_to_hertz(np.linspace(0, _hertz_to_mel(SAMPLE_RATE / 2), MELS + 2))
    )
    bins = torch.linspace(0, SAMPLE_RATE / 2, FFT // 2 + 1, dtype=torch.float64)
    low, middle, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising, falling = (bins - low) / (middle - low), (high - bins) / (high - middle)
    triangles = torch.minimum(rising, falling).clamp(min=0)
    return (triangles * 2 / (high - low)).float()


def frames_of(seconds: float) -> int:
    """Frames of a sound of this length, the last one whole."""
    return math.ceil(round(seconds * SAMPLE_RATE, 6) / HOP)


_FLOOR = 1e-9

# The mel scale is linear up to a corner and logarithmic above it.
_HERTZ_PER_MEL = 200 / 3
_CORNER = 1000.0
_LOG_STEP = math.log(6.4) / 27


def _hertz_to_mel(hertz: float) -> float:
    return _CORNER / _HERTZ_PER_MEL + math.log(hertz / _CORNER) / _LOG_STEP


def _mel_to_hertz(mels: np.ndarray) -> np.ndarray:
    corner = _CORNER / _HERTZ_PER_MEL
    above = _CORNER * np.exp(_LOG_STEP * (np.maximum(mels, corner) - corner))
    return np.where(mels < corner, mels * _HERTZ_PER_MEL, above)
