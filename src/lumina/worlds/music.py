"""Short pieces of music: scales, chords and melodies in a key, at a tempo, by one instrument."""

import hashlib
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from lumina.worlds.soundfont import Note, play

PITCHES = ("C", "C sharp", "D", "E flat", "E", "F", "F sharp", "G", "A flat", "A", "B flat", "B")
"""Names of the twelve pitches, from C."""

MODES = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10)}
"""Steps of a scale above its first pitch, in semitones."""

TEMPI = (80, 100, 120, 150, 180)
"""Notes or chords in a minute."""

FORMS = ("rising scale", "falling scale", "melody", "chords")

INSTRUMENTS = {
    "piano": 0,
    "music box": 10,
    "marimba": 12,
    "pipe organ": 19,
    "guitar": 25,
    "violin": 40,
    "trumpet": 56,
    "clarinet": 71,
}
"""Instruments of General MIDI that speak at once, so that beats can be heard."""


@dataclass(frozen=True)
class Tune:
    """What a caption of music asks for.

    Args:
        form: One of `FORMS`.
        instrument: A key of `INSTRUMENTS`.
        key: The first pitch of the scale, from 0 (C) to 11 (B).
        mode: "major" or "minor".
        tempo: Beats in a minute, one of `TEMPI`.
    """

    form: str
    instrument: str
    key: int
    mode: str
    tempo: int

    @property
    def is_held_out(self) -> bool:
        """Whether this instrument is never trained on in this key: about a tenth of them."""
        text = f"{self.instrument}|{self.key}|{self.mode}"
        return hashlib.blake2b(text.encode(), digest_size=4).digest()[0] % 10 == 0

    @property
    def beat(self) -> float:
        """Seconds from one note or chord to the next."""
        return 60 / self.tempo

    @property
    def scale(self) -> tuple[int, ...]:
        """Classes of pitch that belong to the key, from 0 (C) to 11 (B)."""
        return tuple((self.key + step) % 12 for step in MODES[self.mode])


def draw_tune(
    rng: np.random.Generator,
    *,
    is_held_out: bool = False,
    form: str | None = None,
    instrument: str | None = None,
) -> Tune:
    """Random piece.

    Args:
        rng: Source of chance.
        is_held_out: Whether to draw one that is never trained on, or one that may be.
        form: None is any, as for the instrument.
        instrument: What plays it.
    """
    while True:
        tune = Tune(
            form=form or str(rng.choice(FORMS)),
            instrument=instrument or str(rng.choice(list(INSTRUMENTS))),
            key=int(rng.integers(12)),
            mode=str(rng.choice(list(MODES))),
            tempo=int(rng.choice(TEMPI)),
        )
        if tune.is_held_out == is_held_out:
            return tune


def write_tune(tune: Tune, rng: np.random.Generator | None = None) -> str:
    """Caption of a piece in English: the first way of telling it, or with `rng` any way."""
    key = f"{PITCHES[tune.key]} {tune.mode}"
    article = "" if tune.form == "chords" else "a "
    pace = f"{tune.tempo} beats per minute"
    ways = (
        f"{article}{tune.form} in {key} on a {tune.instrument} at {pace}",
        f"a {tune.instrument} plays {article}{tune.form} in {key} at {pace}",
        f"{tune.instrument}, {tune.form}, {key}, {pace}",
    )
    return ways[0 if rng is None else int(rng.integers(len(ways)))]


def compose(tune: Tune, rng: np.random.Generator, *, beats: int) -> list[tuple[int, ...]]:
    """MIDI pitches of each beat: one for a note, three for a chord.

    A piece begins on the first pitch of its scale, and melodies and chords end on it too.
    """
    if tune.form == "chords":
        degrees = [0, *(int(d) for d in rng.choice([0, 3, 4, 5], max(beats - 2, 0))), 0][:beats]
        return [tuple(_pitch(tune, degree + third) for third in (0, 2, 4)) for degree in degrees]
    if tune.form == "melody":
        degrees = _walk(rng, beats)
    else:
        degrees = [_scale_degree(beat) for beat in range(beats)]
        if tune.form == "falling scale":
            degrees = [7 - degree for degree in degrees]
    return [(_pitch(tune, degree),) for degree in degrees]


def count_beats(tune: Tune, seconds: float) -> int:
    """How many notes or chords a piece of a length has, at least two."""
    return max(2, int((seconds - _START) / tune.beat))


def tune_notes(tune: Tune, rng: np.random.Generator, *, seconds: float) -> list[Note]:
    """The notes of a piece that fills a time."""
    beats = count_beats(tune, seconds)
    program = INSTRUMENTS[tune.instrument]
    velocity = int(rng.integers(85, 115))
    return [
        Note(_START + beat * tune.beat, 0.85 * tune.beat, pitch, program, velocity)
        for beat, pitches in enumerate(compose(tune, rng, beats=beats))
        for pitch in pitches
    ]


def render_tune(
    tune: Tune, rng: np.random.Generator, *, seconds: float
) -> Float[np.ndarray, " samples"]:
    """Waveform of a piece in [-1, 1] at 16 kHz.

    Raises:
        LuminaError: If fluidsynth or the soundfont is not installed.
    """
    waveform = play(tune_notes(tune, rng, seconds=seconds), seconds)
    peak = float(np.abs(waveform).max())
    return waveform * (float(rng.uniform(0.5, 0.95)) / max(peak, 1e-4))


_START = 0.05  # seconds before the first note
# MIDI pitch of the C from which keys are counted; keys above F lie below it. An octave lower, half
# tones are closer than bands of a mel spectrogram.
_OCTAVE = 72
_HIGHEST_KEY = 5
_TELLING = {2, 5, 6}


def _pitch(tune: Tune, degree: int) -> int:
    """MIDI pitch of a degree of the scale, where 0 is its first pitch and 7 the octave."""
    first = _OCTAVE + tune.key - (12 if tune.key > _HIGHEST_KEY else 0)
    octaves, step = divmod(degree, 7)
    return first + 12 * octaves + MODES[tune.mode][step]


def _scale_degree(beat: int) -> int:
    """A scale that begins again after its octave."""
    return beat % 8


def _walk(rng: np.random.Generator, beats: int) -> list[int]:
    """Degrees of a melody: mostly steps, within an octave, from the first pitch back to it.

    One that is long enough has a third, a sixth or a seventh, by which the modes differ.
    """
    while True:
        degrees = [0]
        while len(degrees) < beats - 1:
            step = int(rng.choice([-2, -1, -1, 1, 1, 2, 4]))
            if 0 <= degrees[-1] + step <= 7:
                degrees.append(degrees[-1] + step)
        if beats < 3 or _TELLING & set(degrees):
            return [*degrees, 0][:beats]
