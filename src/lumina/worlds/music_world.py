"""Short pieces of music, as a world to train models of sound on."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from lumina.settings import setting
from lumina.worlds import drawn_words
from lumina.worlds.music import (
    FORMS,
    INSTRUMENTS,
    MODES,
    PITCHES,
    TEMPI,
    Tune,
    draw_tune,
    render_tune,
    write_tune,
)
from lumina.worlds.music_captions import tell_tune
from lumina.worlds.soundfont import SAMPLE_RATE, play, soundfont_digest
from lumina.worlds.vocabulary import LANGUAGES

VERSION = 2
"""Changes when the same piece is played or told in another way."""

HOP = 256
"""Samples of a frame, in which sizes are counted."""

ENGLISH = 4
"""How many times as likely as one in another language each English caption is."""

SAYINGS = 4


@dataclass(frozen=True)
class Piece:
    """What is played, and the seed of what that leaves open."""

    tune: Tune
    seed: int


@dataclass(frozen=True, kw_only=True)
class MusicWorld:
    """Scales, melodies and chords in a key, at a tempo, by one instrument."""

    foreign: bool = setting(False, "captions in fourteen languages, instead of English alone")
    held_out: bool = setting(False, "only combinations that are otherwise left out")

    modality = "sound"
    sizes = ((192,), (256,))

    def check(self) -> None:
        """Refuse if fluidsynth or the soundfont is missing."""
        play([], HOP / SAMPLE_RATE)

    def draw(self, rng: np.random.Generator) -> Piece:
        """Any piece that is not held out, or any that is."""
        return Piece(draw_tune(rng, is_held_out=self.held_out), int(rng.integers(2**32)))

    def make(self, brief: Piece, size: tuple[int, ...]) -> Float[np.ndarray, " samples"]:
        """The waveform of so many frames."""
        rng = np.random.default_rng(brief.seed)
        waveform = render_tune(brief.tune, rng, seconds=size[0] * HOP / SAMPLE_RATE)
        return waveform.astype(np.float32)

    def captions(self, brief: Piece) -> tuple[str, ...]:
        """What English says of it, and other languages if they are wanted."""
        rng = np.random.default_rng((brief.seed, VERSION))
        sayings = [write_tune(brief.tune), *(write_tune(brief.tune, rng) for _ in range(SAYINGS))]
        english = tuple(dict.fromkeys(sayings))
        if not self.foreign:
            return english
        others = [tell_tune(brief.tune, code) for code in LANGUAGES if code != "en"]
        return (*english * ENGLISH, *others)

    def names(self) -> dict[str, Sequence[str]]:
        """All that a piece is told by."""
        return {
            "forms": FORMS,
            "instruments": list(INSTRUMENTS),
            "keys": [f"{pitch} {mode}" for pitch in PITCHES for mode in MODES],
            "beats per minute": list(map(str, TEMPI)),
        }

    def words(self) -> set[str]:
        """Those of many captions in all languages."""
        return drawn_words(replace(self, foreign=True))

    def digest(self) -> str:
        """The version, and the soundfont."""
        return f"music {VERSION} {soundfont_digest()}"


WORLD = MusicWorld
