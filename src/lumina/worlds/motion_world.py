"""Clips of emoji that move, as a world to train models of clips on."""

import functools
import importlib.resources
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from lumina.errors import LuminaError, UnknownNameError
from lumina.settings import setting
from lumina.types import Size
from lumina.worlds import words_in
from lumina.worlds.drawings import PALETTE, find_font
from lumina.worlds.motion import DIRECTIONS, FRAMES, MOTIONS, Clip, paint_clip
from lumina.worlds.motion_captions import AFTER, write_every
from lumina.worlds.motion_cast import Cast
from lumina.worlds.references import load_references
from lumina.worlds.vocabulary import COMMON, LANGUAGES, shipped_names

VERSION = 2
"""Changes when the same numbers give another clip, or the same clip is painted in another way."""


@dataclass(frozen=True, kw_only=True)
class MotionWorld:
    """Common things that move, spin, change size, fade, bounce or stay."""

    kinds: tuple[str, ...] = setting(tuple(DIRECTIONS), "kinds of motion that are drawn")
    foreign: bool = setting(False, "captions in fourteen languages, instead of English alone")
    held_out: bool = setting(False, "only things in motions that are otherwise left out")

    modality = "video"
    sizes = ((64, 64, FRAMES),)

    def __post_init__(self) -> None:
        """Refuse kinds that there are not."""
        for kind in self.kinds:
            if kind not in DIRECTIONS:
                raise UnknownNameError.among(DIRECTIONS, kind, kind="kind of motion")

    def check(self) -> None:
        """Refuse if the font with the drawings is missing, or no kind is left."""
        find_font()
        if not set(self.kinds) - ({"still"} if self.held_out else set()):
            raise LuminaError(
                "there are no such kinds of motion; nothing that is still is held out",
                hint="leave kinds out for all",
            )

    def draw(self, rng: np.random.Generator) -> Clip:
        """A clip of any of the kinds."""
        return usual_cast().draw(rng, kinds=self.kinds, is_held_out=self.held_out)

    def make(
        self, brief: Clip, size: tuple[int, ...]
    ) -> UInt8[np.ndarray, "frames height width 3"]:
        """The painted clip: width, height and frames."""
        return paint_clip(brief, Size(*size[:2]), size[2])

    def captions(self, brief: Clip) -> tuple[str, ...]:
        """What English says of it, and other languages if they are wanted."""
        languages = LANGUAGES if self.foreign else ("en",)
        return tuple(text for language in languages for text in write_every(brief, language))

    def names(self) -> dict[str, Sequence[str]]:
        """Things, and what they do."""
        things, motions = shipped_names("en"), (AFTER[motion][0] for motion in MOTIONS)
        return {"things": [things[one] for one in COMMON], "motions": tuple(motions)}

    def words(self) -> set[str]:
        """Those of each thing, motion and background in all languages."""
        clips = [Clip(thing) for thing in COMMON]
        clips += [Clip(COMMON[0], *motion) for motion in MOTIONS]
        clips += [Clip(COMMON[0], background=color) for color in PALETTE]
        captions = (one for clip in clips for code in LANGUAGES for one in write_every(clip, code))
        return {word for text in captions for word in words_in(text)}

    def digest(self) -> str:
        """The version."""
        return f"motion {VERSION}"


WORLD = MotionWorld


@functools.cache
def usual_cast() -> Cast:
    """The common things."""
    return Cast(*usual_references())


@functools.cache
def usual_references() -> tuple[list[str], UInt8[np.ndarray, "n side side 4"]]:
    """Common emoji, and the drawing of each as RGBA bytes."""
    folder = importlib.resources.files("lumina") / "weights" / "lumina-mini"
    things, drawings = load_references(Path(str(folder)))
    return list(COMMON), drawings[[things.index(thing) for thing in COMMON]]
