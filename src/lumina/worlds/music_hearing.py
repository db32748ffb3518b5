"""What is heard in music: when notes begin, how high they are, in which key and how fast."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from lumina.worlds.hearing import HOP, loudness
from lumina.worlds.music import MODES

SAMPLE_RATE = 16_000
FRAMES = SAMPLE_RATE / HOP  # in a second

LOWEST, HIGHEST = 62.0, 98.0
"""MIDI pitches between which notes are looked for."""

SHORTEST_BEAT = 0.24
"""Seconds below which two beginnings are one."""


class Heard(NamedTuple):
    """Notes or chords in the order in which they begin.

    Args:
        starts: Seconds.
        pitches: MIDI pitch of the clearest note of each, in tenths of a semitone.
        chroma: How strong each of the twelve pitch classes is in each, from C.
    """

    starts: Float[np.ndarray, " notes"]
    pitches: Float[np.ndarray, " notes"]
    chroma: Float[np.ndarray, "notes 12"]


def hear(waveform: Float[np.ndarray, " samples"]) -> Heard:
    """Notes of a waveform at 16 kHz; there may be none."""
    starts = find_beats(waveform)
    if len(starts) == 0:
        return Heard(np.zeros(0), np.zeros(0), np.zeros((0, 12)))
    ends = [*starts[1:], len(waveform) / SAMPLE_RATE]
    salience = [
        _salience(_part(waveform, start, end)) for start, end in zip(starts, ends, strict=True)
    ]
    strengths = np.stack(salience)
    return Heard(starts, _GRID[strengths.argmax(1)], _fold(strengths))


def find_beats(waveform: Float[np.ndarray, " samples"]) -> Float[np.ndarray, " notes"]:
    """Seconds at which notes begin on a steady beat, from the first that is heard to the last.

    The beat is the one that explains most: of what becomes louder, much is near one of its beats,
    and near most of its beats something does. A tremble between beats is left out, and a beat on
    which nothing is heard is filled in.
    """
    starts, strengths = find_starts(waveform)
    if len(starts) < 2:
        return starts
    strengths = np.minimum(strengths, np.median(strengths))
    # In longer pieces a beat that is a little off drifts farther.
    tried = max(_TRIED, round(_TRIED_A_SECOND * (starts[-1] - starts[0])))
    beats = 60 / np.geomspace(*_TEMPI, tried)
    fits = [
        (_fit(starts, strengths, first, beat), first, beat)
        for first in starts[: len(starts) // 2 + 1]
        for beat in beats
    ]
    _, first, beat = max(fits)
    numbers, errors = _on_beats(starts, first, beat)
    near = np.flatnonzero(np.abs(errors) < _LATE)
    numbers -= numbers[near].min()
    line = np.polyfit(numbers[near], starts[near], 1) if len(near) > 1 else (beat, first)
    found = np.polyval(line, np.arange(numbers[near].max() + 1))
    return np.maximum(found, 0.0)


def find_starts(
    waveform: Float[np.ndarray, " samples"],
) -> tuple[Float[np.ndarray, " notes"], Float[np.ndarray, " notes"]]:
    """Seconds at which many bands become louder at once than they were, and how much louder."""
    bands = np.maximum(loudness(waveform), -50.0)
    padded = np.pad(bands, ((_TREMBLE, 0), (0, 0)), constant_values=-50.0)
    heard = np.lib.stride_tricks.sliding_window_view(padded, _TREMBLE - 2, axis=0)
    before = heard[: len(bands)].max(-1)
    rise = np.maximum(bands - before, 0).mean(1)
    reach = round(SHORTEST_BEAT / 2 * FRAMES)
    padded = np.pad(rise, reach)
    highest = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1).max(1)
    peaks = np.flatnonzero((rise == highest) & (rise > _LEAST))
    # After silence everything is louder: the first note says little of how much others are.
    usual = np.sort(rise[peaks])[-4:-1]
    kept = peaks[rise[peaks] > _SHARE * usual.mean()] if len(usual) else peaks
    return kept / FRAMES, rise[kept]


def tempo_of(starts: Float[np.ndarray, " notes"]) -> float:
    """Beats in a minute of notes on every beat, of which some may be missed; 0 for one note."""
    if len(starts) < 2:
        return 0.0
    beat = float(np.median(np.diff(starts)))
    for _ in range(2):
        numbers = np.round((starts - starts[0]) / beat)
        if numbers[-1] < 1:
            return 0.0
        beat = float(np.polyfit(numbers, starts, 1)[0])
    return 60 / beat if beat > 0 else 0.0


def key_of(heard: Heard, *, is_chords: bool) -> tuple[int, str]:
    """First pitch class and mode of a piece that begins on the first pitch of its scale.

    It is the key that has most of the notes, where the first note counts for more.

    Args:
        heard: At least one note.
        is_chords: Whether it begins with the chord of the key, instead of a note.
    """
    keys = [(first, mode) for first in range(12) for mode in MODES]
    if not is_chords:
        classes = np.round(heard.pitches).astype(int) % 12
        counts = np.bincount(classes, minlength=12) / len(classes)
        return max(keys, key=lambda key: _inside(counts, key) + _FIRST * (key[0] == classes[0]))
    chord = heard.chroma[0]
    return max(keys, key=lambda key: chord[_chord(key)].sum() + 1e-3 * _inside(chord, key))


def _inside(counts: np.ndarray, key: tuple[int, str]) -> float:
    return float(counts[[(key[0] + step) % 12 for step in MODES[key[1]]]].sum())


def _chord(key: tuple[int, str]) -> list[int]:
    return [(key[0] + MODES[key[1]][degree]) % 12 for degree in (0, 2, 4)]


def _fit(
    starts: Float[np.ndarray, " notes"],
    strengths: Float[np.ndarray, " notes"],
    first: float,
    beat: float,
) -> float:
    """Harmonic mean of how much is on beats, and of on how many beats there is something."""
    numbers, errors = _on_beats(starts, first, beat)
    near = (np.abs(errors) < _LATE) & (numbers >= 0)
    on_beats = strengths * near * (1 - np.abs(errors) / _LATE / 2)
    explained = float(on_beats.sum() / strengths.sum())
    filled = float(on_beats.sum() / strengths.max() / (numbers[near].max() + 1))
    return 2 * explained * filled / (explained + filled)


def _on_beats(
    starts: Float[np.ndarray, " notes"], first: float, beat: float
) -> tuple[Float[np.ndarray, " notes"], Float[np.ndarray, " notes"]]:
    """Number of the nearest beat of each note, and seconds from there."""
    numbers = np.round((starts - first) / beat)
    return numbers, starts - first - numbers * beat


_LEAST = 1.0  # decibels, over all bands
_SHARE = 0.35  # of the usual rise, below which there is no note
_TREMBLE = 20  # frames in which a note that trembles is once as loud as it gets
_TEMPI = (70.0, 200.0)  # beats in a minute that are listened for
_TRIED = 100  # tempi between them
_TRIED_A_SECOND = 40  # a beat is off by 13 ms over the piece at most, far below `_LATE`
_LATE = 0.06  # seconds from a beat within which a note is on it
_FIRST = 0.3  # of the first note for the key, as a share of all notes

_GRID = np.arange(LOWEST, HIGHEST + 0.05, 0.1)
_FFT = 16_384
_PARTIALS = np.arange(1, 7)
_FADING = 0.8


def _part(
    waveform: Float[np.ndarray, " samples"], start: float, end: float
) -> Float[np.ndarray, " part"]:
    """A note without its attack, which has no pitch, and without the next one."""
    begin = round((start + 0.03) * SAMPLE_RATE)
    finish = round(min(end - 0.02, start + 0.45) * SAMPLE_RATE)
    return waveform[begin : max(finish, begin + 1024)]


def _salience(part: Float[np.ndarray, " part"]) -> Float[np.ndarray, " pitches"]:
    """How much of a sound lies at the partials of each pitch."""
    spectrum = np.sqrt(np.abs(np.fft.rfft(part * np.hanning(len(part)), _FFT)))
    hertz = 440 * 2 ** ((_GRID - 69) / 12)
    places = hertz[:, None] * _PARTIALS * _FFT / SAMPLE_RATE
    at = np.interp(places, np.arange(len(spectrum)), spectrum, right=0.0)
    return at @ _FADING ** (_PARTIALS - 1) / max(float(spectrum.max()), 1e-9)


def _fold(salience: Float[np.ndarray, "notes pitches"]) -> Float[np.ndarray, "notes 12"]:
    """The strongest of each class of pitch, in all octaves."""
    classes = np.round(_GRID).astype(int) % 12
    return np.stack([salience[:, classes == one].max(1) for one in range(12)], 1)
