"""Sentences of a small vocabulary said by some voices, as a world to train models of speech on."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from lumina.errors import LuminaError
from lumina.settings import setting
from lumina.spelling import VOICES, count_frames
from lumina.worlds.sentences import draw_sentence, is_held_out, list_words
from lumina.worlds.speaking import SPEAKERS, check_program, speak, version_of

VERSION = 1
"""Changes when the same sentence is said in another way."""

HOP = 256
"""Samples of a frame, in which sizes are counted."""

SPEEDS = (0.85, 1.2)
"""Slowest and fastest speech of training, relative to what is usual."""


@dataclass(frozen=True)
class Spoken:
    """What is said, by whom, and how fast."""

    sentence: str
    voice: str
    speed: float

    @property
    def label(self) -> int:
        """Number of the voice."""
        return VOICES.index(self.voice)

    @property
    def frames(self) -> int:
        """About how many frames it takes."""
        return count_frames(self.sentence, self.voice, speed=self.speed)


@dataclass(frozen=True, kw_only=True)
class SpeechWorld:
    """Sentences, each followed by silence up to the size asked for.

    Sentences of about one length leave the least of it: name a source for each size.
    """

    shortest: int = setting(0, "shortest sentences", ge=0, unit="frames of 16 ms")
    longest: int = setting(216, "longest sentences", ge=1, unit="frames of 16 ms")

    modality = "speech"
    sizes = ((256,),)

    def check(self) -> None:
        """Refuse if a program that speaks is missing, or few sentences are as long as asked for."""
        is_narrow = self.shortest + _LEAST_RANGE > self.longest
        if is_narrow or self.longest < _FEWEST_FRAMES or self.shortest > _MOST_FRAMES:
            raise LuminaError(
                f"few sentences are {self.shortest} to {self.longest} frames long",
                hint=f"set shortest to {_MOST_FRAMES} at most, and longest above it and"
                f" {_FEWEST_FRAMES}, by {_LEAST_RANGE} at least",
            )
        for speaker in SPEAKERS.values():
            check_program(speaker.program)

    def draw(self, rng: np.random.Generator) -> Spoken:
        """Any sentence of the right length that is not held out."""
        while True:
            sentence, voice = draw_sentence(rng), str(rng.choice(VOICES))
            brief = Spoken(sentence, voice, round(float(rng.uniform(*SPEEDS)), 2))
            if self.shortest <= brief.frames <= self.longest and not is_held_out(sentence):
                return brief

    def make(self, brief: Spoken, size: tuple[int, ...]) -> Float[np.ndarray, " samples"]:
        """The waveform, of so many frames.

        Raises:
            LuminaError: If the sentence takes longer.
        """
        waveform = speak(brief.sentence, brief.voice, speed=brief.speed)
        missing = size[0] * HOP - len(waveform)
        if missing < 0:
            raise LuminaError(
                f"{brief.sentence!r} takes {len(waveform) / HOP:.0f} frames, and the size is"
                f" {size[0]}",
                hint="lower longest of the world, or choose a larger size",
            )
        return np.pad(waveform, (0, missing))

    def captions(self, brief: Spoken) -> tuple[str, ...]:
        """What is said."""
        return (brief.sentence,)

    def names(self) -> dict[str, Sequence[str]]:
        """Voices, and words that they say."""
        return {"voices": VOICES, "words": list_words()}

    def words(self) -> set[str]:
        """Those of all sentences."""
        return set(list_words())

    def digest(self) -> str:
        """The version, and those of the programs."""
        programs = sorted({speaker.program for speaker in SPEAKERS.values()})
        return " ".join([f"speech {VERSION}", *map(version_of, programs)])


WORLD = SpeechWorld

_LEAST_RANGE = 16
_FEWEST_FRAMES, _MOST_FRAMES = 64, 200
