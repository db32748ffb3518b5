"""What a sound is like: numbers that tell instruments and effects apart, whatever they play."""

import functools

import numpy as np
from jaxtyping import Float

WINDOW, HOP = 512, 160  # samples at 16 kHz: 32 and 10 ms
BANDS = 48
DEEP = 60.0  # decibels below the loudest frame, where a sound ends


def loudness(waveform: Float[np.ndarray, " samples"]) -> Float[np.ndarray, "frames 48"]:
    """Decibels in bands up to 8 kHz, every 10 ms, relative to the loudest of the sound."""
    padded = np.pad(waveform, WINDOW // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP]
    spectra = np.abs(np.fft.rfft(frames * np.hanning(WINDOW), axis=1)) ** 2
    power = 10 * np.log10(spectra @ _bands().T + 1e-10)
    return np.maximum(power - max(power.max(), _INAUDIBLE), -DEEP - 20)


def describe(waveform: Float[np.ndarray, " samples"]) -> Float[np.ndarray, " features"]:
    """Colour, its changes, attacks and rhythm of a sound, of any length and loudness."""
    bands = loudness(waveform)
    level = bands.max(1)
    is_heard = level > -_HEARD
    heard = bands[is_heard] if is_heard.any() else bands
    cepstra = heard @ _cosines().T
    rising = np.maximum(np.diff(bands, axis=0), 0)[level[1:] > -_HEARD]
    slopes = np.abs(np.diff(cepstra, axis=0)).mean(0) if len(cepstra) > 1 else cepstra[0] * 0
    attack = _attack(bands, level)
    return np.concatenate(
        [
            heard.mean(0),
            heard.std(0),
            cepstra.mean(0),
            cepstra.std(0),
            slopes,
            rising.mean(0) if len(rising) else bands[0] * 0,
            attack.mean(0),
            attack.std(0),
            _rhythm(level),
        ]
    ).astype(np.float32)


_INAUDIBLE = -30.0  # decibels; the loudest possible tone has 42
_HEARD = DEEP - 15  # of the features that average over time


def _attack(
    bands: Float[np.ndarray, "frames 48"], level: Float[np.ndarray, " frames"]
) -> Float[np.ndarray, "frames_of_attack 48"]:
    """The first quarter of a second after the sound begins."""
    begin = int(np.argmax(level > -25))
    return bands[begin : begin + 25]


def _rhythm(level: Float[np.ndarray, " frames"]) -> Float[np.ndarray, " 12"]:
    """How long it is heard, how it fades, and how fast its level trembles."""
    shares = [(level > -depth).mean() for depth in (5, 10, 20, 30, 40)]
    changes = np.diff(level)
    spectrum = np.abs(np.fft.rfft(np.maximum(level, -DEEP) + DEEP, 512))[1:]
    pieces = np.array_split(spectrum, [6, 16, 40, 90])
    trembling = [np.log1p(piece.mean()) for piece in pieces]
    return np.array([*shares, changes.max(), changes.min() / 4, *trembling])


@functools.cache
def _bands() -> Float[np.ndarray, "48 bins"]:
    """Overlapping triangles, evenly spread over the mel scale."""
    mels = np.linspace(0, 2595 * np.log10(1 + 8000 / 700), BANDS + 2)
    edges = 700 * (10 ** (mels / 2595) - 1)
    bins = np.linspace(0, 8000, WINDOW // 2 + 1)
    # The lowest bands are narrower than a bin and would be empty.
    low = np.minimum(edges[:-2], edges[1:-1] - bins[1])[:, None]
    high = np.maximum(edges[2:], edges[1:-1] + bins[1])[:, None]
    middle = edges[1:-1, None]
    return np.maximum(0, np.minimum((bins - low) / (middle - low), (high - bins) / (high - middle)))


@functools.cache
def _cosines() -> Float[np.ndarray, "20 48"]:
    orders = np.arange(1, 21)[:, None]
    return np.cos(np.pi / BANDS * (np.arange(BANDS) + 0.5) * orders) / BANDS * 4
