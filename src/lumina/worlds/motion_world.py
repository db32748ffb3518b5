"""Clips of emoji that move, as a world to train models of clips on."""

import functools
import importlib.resources
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from lumina.errors import LuminaError, UnknownNameError
from lumina.settings import setting
from lumina.types import Size
from lumina.worlds.drawings import find_font
from lumina.worlds.motion import DIRECTIONS, FRAMES, Clip, paint_clip
from lumina.worlds.motion_captions import write_every
from lumina.worlds.motion_cast import Cast
from lumina.worlds.references import load_references
from lumina.worlds.vocabulary import LANGUAGES

VERSION = 1
"""Changes when the same clip is painted in another way."""


@dataclass(frozen=True, kw_only=True)
class MotionWorld:
    """Things of lumina-mini that move, spin, change size, fade, bounce or stay."""

    kinds: tuple[str, ...] = setting(tuple(DIRECTIONS), "kinds of motion that are drawn")
    foreign: bool = setting(False, "captions in fourteen languages, instead of English alone")
    held_out: bool = setting(False, "only things in motions that are otherwise left out")

    modality = "video"
    sizes = ((96, 96, FRAMES),)

    def __post_init__(self) -> None:
        """Refuse kinds that there are not."""
        for kind in self.kinds:
            if kind not in DIRECTIONS:
                raise UnknownNameError.among(DIRECTIONS, kind, kind="kind of motion")

    def check(self) -> None:
        """Refuse if the font with the drawings is missing, or no kind is left."""
        find_font()
        if not self.kinds:
            raise LuminaError("there are no kinds of motion", hint="leave kinds out for all")

    def draw(self, rng: np.random.Generator) -> Clip:
        """A clip, of which each kind is as likely as the others."""
        cast = usual_cast()
        while True:
            thing = cast.things[rng.integers(len(cast.things))]
            kind = self.kinds[rng.integers(len(self.kinds))]
            if not cast.backgrounds(thing) or (kind == "spin" and not cast.is_spinner(thing)):
                continue
            clip = cast.draw_of(thing, kind, rng)
            if clip.is_held_out == self.held_out:
                return clip

    def make(
        self, brief: Clip, size: tuple[int, ...]
    ) -> UInt8[np.ndarray, "frames height width 3"]:
        """The painted clip: width, height and frames."""
        return paint_clip(brief, Size(*size[:2]), size[2])

    def captions(self, brief: Clip) -> tuple[str, ...]:
        """What English says of it, and other languages if they are wanted."""
        languages = LANGUAGES if self.foreign else ("en",)
        return tuple(text for language in languages for text in write_every(brief, language))

    def digest(self) -> str:
        """The version."""
        return f"motion {VERSION}"


WORLD = MotionWorld


@functools.cache
def usual_cast() -> Cast:
    """The things of lumina-mini."""
    return Cast(*usual_references())


@functools.cache
def usual_references() -> tuple[list[str], UInt8[np.ndarray, "n side side 4"]]:
    """Emoji of lumina-mini, and the drawing of each as RGBA bytes."""
    folder = importlib.resources.files("lumina") / "weights" / "lumina-mini"
    return load_references(Path(str(folder)))
