"""What is left of a sound in its mel spectrogram: about what models of spectrograms can make.

The judges of sounds are made of sounds that took this way as well, so that they listen to nothing
that a vocoder loses. It stands apart from the spectrograms that models are trained on.
"""

import functools

import numpy as np
from jaxtyping import Complex, Float

WINDOW, HOP = 1024, 256  # samples at 16 kHz
BANDS = 80
_MOMENTUM = 0.99
_FAINTEST = 1e-5  # of a magnitude; full scale has some hundreds


def pass_through_mel(
    waveform: Float[np.ndarray, " samples"],
    rng: np.random.Generator,
    *,
    rounds: int,
    astray: float = 1.0,
) -> Float[np.ndarray, " samples"]:
    """A waveform at 16 kHz whose phases, and magnitudes within bands, were lost and found again.

    Args:
        waveform: More than a window of samples.
        rng: Source of the phases that are begun with.
        rounds: How long they are searched for; 1 or more.
        astray: How far from the true ones they begin: 0 is there, 1 is anywhere.

    Source:
        Griffin and Lim, "Signal estimation from modified short-time Fourier transform" (1984);
        with the momentum of Perraudin, Balazs and Søndergaard, "A fast Griffin-Lim" (2013).
    """
    spectrum = _transform(waveform)
    filters, inverse = _filters()
    magnitude = np.maximum(np.maximum(np.abs(spectrum) @ filters.T, _FAINTEST) @ inverse.T, 1e-6)
    phase = np.angle(spectrum) + astray * rng.uniform(-np.pi, np.pi, spectrum.shape)
    turn, before = np.exp(1j * phase), np.zeros_like(spectrum)
    for _ in range(rounds):
        found = _transform(_return(magnitude * turn, len(waveform)))
        ahead = found - _MOMENTUM / (1 + _MOMENTUM) * before
        turn, before = ahead / (np.abs(ahead) + 1e-9), found
    return np.clip(_return(magnitude * turn, len(waveform)), -1, 1).astype(np.float32)


def _transform(waveform: Float[np.ndarray, " samples"]) -> Complex[np.ndarray, "frames bins"]:
    padded = np.pad(waveform, (WINDOW // 2, WINDOW // 2 + -len(waveform) % HOP))
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP]
    return np.fft.rfft(frames * _window(), axis=1)


def _return(
    spectrum: Complex[np.ndarray, "frames bins"], samples: int
) -> Float[np.ndarray, " samples"]:
    frames = np.fft.irfft(spectrum, axis=1) * _window()
    total = np.zeros((len(frames) - 1) * HOP + WINDOW)
    weight = np.zeros_like(total)
    for number, frame in enumerate(frames):
        part = slice(number * HOP, number * HOP + WINDOW)
        total[part] += frame
        weight[part] += np.square(_window())
    whole = total / np.maximum(weight, 1e-3)
    return whole[WINDOW // 2 : WINDOW // 2 + samples]


@functools.cache
def _window() -> Float[np.ndarray, " window"]:
    return np.hanning(WINDOW + 1)[:-1]


@functools.cache
def _filters() -> tuple[Float[np.ndarray, "bands bins"], Float[np.ndarray, "bins bands"]]:
    """Triangles of equal area, even over a scale that is linear to 1 kHz, and their inverse."""
    edges = _hertz(np.linspace(0, _mel(8000.0), BANDS + 2))
    bins = np.linspace(0, 8000, WINDOW // 2 + 1)
    low, middle, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising, falling = (bins - low) / (middle - low), (high - bins) / (high - middle)
    filters = np.maximum(0, np.minimum(rising, falling)) * 2 / (high - low)
    return filters, np.linalg.pinv(filters)


def _mel(hertz: float) -> float:
    return hertz * 0.015 if hertz < 1000 else 15 + np.log(hertz / 1000) * 27 / np.log(6.4)


def _hertz(mels: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    return np.where(mels < 15, mels / 0.015, 1000 * np.exp((mels - 15) * np.log(6.4) / 27))
