"""Sounds of a General MIDI soundfont, as a world to train models of sound on."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from lumina.settings import setting
from lumina.worlds import drawn_words, sounds
from lumina.worlds.sound_names import NAMES, name_sound
from lumina.worlds.soundfont import SAMPLE_RATE, play, soundfont_digest

VERSION = 2
"""Changes when the same sound is played in another way."""

HOP = 256
"""Samples of a frame, in which sizes are counted."""

SAYINGS = 4
ENGLISH = 3
"""How many times as likely as one in another language each English caption is."""


@dataclass(frozen=True)
class Played:
    """What sounds, and the seed of what that leaves open."""

    brief: sounds.Brief
    seed: int


@dataclass(frozen=True, kw_only=True)
class SoundWorld:
    """Instruments that play some notes, and effects."""

    foreign: bool = setting(False, "captions in fourteen languages, instead of English alone")

    modality = "sound"
    sizes = ((128,), (192,), (256,))

    def check(self) -> None:
        """Refuse if fluidsynth or the soundfont is missing."""
        play([], HOP / SAMPLE_RATE)

    def draw(self, rng: np.random.Generator) -> Played:
        """Any sound that is not held out."""
        return Played(sounds.draw_brief(rng), int(rng.integers(2**32)))

    def make(self, brief: Played, size: tuple[int, ...]) -> Float[np.ndarray, " samples"]:
        """The waveform of so many frames."""
        rng = np.random.default_rng(brief.seed)
        waveform = sounds.render(brief.brief, rng, seconds=size[0] * HOP / SAMPLE_RATE)
        return waveform.astype(np.float32)

    def captions(self, brief: Played) -> tuple[str, ...]:
        """Some of the ways of English to tell it, and its name in other languages if wanted."""
        rng = np.random.default_rng((brief.seed, VERSION))
        told = [
            sounds.write(brief.brief),
            *(sounds.write(brief.brief, rng) for _ in range(SAYINGS)),
        ]
        english = tuple(dict.fromkeys(told))
        if not self.foreign:
            return english
        return (*english * ENGLISH, *(name_sound(brief.brief.kind, name) for name in NAMES))

    def names(self) -> dict[str, Sequence[str]]:
        """Instruments and effects."""
        return {"sounds": list(sounds.KINDS)}

    def words(self) -> set[str]:
        """Those of many captions in all languages."""
        return drawn_words(replace(self, foreign=True))

    def digest(self) -> str:
        """The version, and the soundfont."""
        return f"sounds {VERSION} {soundfont_digest()}"


WORLD = SoundWorld
