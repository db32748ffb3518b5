"""The judge of generated music: instrument, pitch, tempo and key, from the waveform alone."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from lumina.worlds.music import INSTRUMENTS, Tune, compose, count_beats, draw_tune, render_tune
from lumina.worlds.music_hearing import SAMPLE_RATE, Heard, hear, key_of, tempo_of
from lumina.worlds.sound_judge import JUDGE_SEED, SoundJudge, with_losses
from lumina.worlds.sounds import SECONDS

CLIPS = 40
"""Pieces of each instrument that a judge is made of."""

TEMPO_TOLERANCE = 0.08
PITCH_TOLERANCE = 0.5  # semitones
WHOLE = 0.75
"""Share of the beats of its length that a piece has, if it does not end before."""


class TuneVerdict(NamedTuple):
    """Which parts of a request a piece of music keeps.

    Args:
        instrument: Whether the nearest instrument is the one asked for, if a note is heard.
        pitch: Share of the notes within half a semitone of what was asked for, in any octave. Notes
            that the length has time for and that are not heard are wrong ones.
        tempo: Whether it is within 8 %, in a piece that fills its length.
        key: Whether the first pitch and the mode are those asked for, in such a piece.
    """

    instrument: bool
    pitch: float
    tempo: bool
    key: bool


def judge_tune(
    waveform: Float[np.ndarray, " samples"], tune: Tune, *, instruments: SoundJudge
) -> TuneVerdict:
    """Judge a waveform at 16 kHz by the piece that was asked for."""
    heard = hear(waveform)
    if len(heard.starts) == 0:
        return TuneVerdict(instrument=False, pitch=0.0, tempo=False, key=False)
    instrument = instruments.judge(waveform).name == tune.instrument
    tempo = tempo_of(heard.starts)
    beats = count_beats(tune, len(waveform) / SAMPLE_RATE)
    is_whole = len(heard.starts) >= WHOLE * beats
    is_in_time = bool(abs(tempo / tune.tempo - 1) <= TEMPO_TOLERANCE)
    key = key_of(heard, is_chords=tune.form == "chords")
    return TuneVerdict(
        instrument,
        pitch_share(heard, tune, beats=beats),
        tempo=is_whole and is_in_time,
        key=is_whole and key == (tune.key, tune.mode),
    )


def pitch_share(heard: Heard, tune: Tune, *, beats: int) -> float:
    """Share of notes that are where they should be; those that are not heard are not.

    The notes of a scale follow from the request; those of melodies and the clearest notes of
    chords may be any of the key.
    """
    right = [
        min(_distance(pitch, one) for one in allowed) <= PITCH_TOLERANCE
        for pitch, allowed in zip(heard.pitches, _allowed(heard, tune), strict=True)
    ]
    return float(sum(right) / max(len(right), beats))


def fit_instruments() -> SoundJudge:
    """A judge of the instruments that play music.

    Raises:
        LuminaError: If fluidsynth or the soundfont is not installed.
    """
    examples = {}
    for number, name in enumerate(INSTRUMENTS):
        rng = np.random.default_rng((JUDGE_SEED, 9, number))
        tunes = [replace(draw_tune(rng), instrument=name) for _ in range(CLIPS)]
        clips = [render_tune(t, rng, seconds=float(rng.uniform(*SECONDS))) for t in tunes]
        examples[name] = with_losses(clips, rng)
    return SoundJudge.fit(examples)


def _allowed(heard: Heard, tune: Tune) -> list[tuple[int, ...]]:
    """Classes of pitch that each note may have."""
    if not tune.form.endswith("scale"):
        return [tune.scale] * len(heard.starts)
    beats = np.round((heard.starts - heard.starts[0]) / tune.beat).astype(int)
    asked = compose(tune, np.random.default_rng(0), beats=int(beats[-1]) + 1)
    return [asked[beat] for beat in beats]


def _distance(pitch: float, other: int) -> float:
    """Semitones between two pitches, in any octave."""
    return abs((pitch - other + 6) % 12 - 6)
