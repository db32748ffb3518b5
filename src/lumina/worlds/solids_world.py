"""Point clouds of solids, as a world to train models of points on."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from lumina.errors import refuse_missing_library
from lumina.settings import setting
from lumina.worlds import drawn_words
from lumina.worlds.solid_kinds import KINDS
from lumina.worlds.solid_names import NAMES, name_of
from lumina.worlds.solids import Solid, draw_cloud, draw_names, draw_solid, tell

VERSION = 1
"""Changes when the same cloud has other points."""

SAYINGS = 6
"""Captions of a cloud in English, which tell different parts of its shape."""


@dataclass(frozen=True)
class Cloud:
    """A solid and the seed of the points on it."""

    solid: Solid
    seed: int


@dataclass(frozen=True, kw_only=True)
class SolidWorld:
    """Chairs, mugs, airplanes and other solids of many shapes, as points of their surfaces."""

    foreign: bool = setting(False, "captions in fourteen languages, instead of English alone")

    modality = "points"
    sizes = ((256,),)

    def check(self) -> None:
        """Refuse if the library that builds solids is missing."""
        refuse_missing_library("trimesh", extra="points")

    def draw(self, rng: np.random.Generator) -> Cloud:
        """A solid of any kind."""
        return Cloud(draw_solid(rng), int(rng.integers(2**32)))

    def make(self, brief: Cloud, size: tuple[int, ...]) -> Float[np.ndarray, "n 3"]:
        """So many points of its surface."""
        return draw_cloud(brief.solid, size[0], np.random.default_rng(brief.seed))

    def captions(self, brief: Cloud) -> tuple[str, ...]:
        """What English says of its shape, and other languages of its kind if they are wanted."""
        rng = np.random.default_rng((brief.seed, VERSION))
        english = [tell(brief.solid, draw_names(brief.solid, rng)) for _ in range(SAYINGS)]
        others = [name_of(brief.solid.kind, language) for language in NAMES if language != "en"]
        return (*english, *others) if self.foreign else tuple(english)

    def names(self) -> dict[str, Sequence[str]]:
        """Kinds of solids."""
        return {"solids": list(KINDS)}

    def words(self) -> set[str]:
        """Those of many captions in all languages."""
        return drawn_words(replace(self, foreign=True))

    def digest(self) -> str:
        """The version."""
        return f"solids {VERSION}"


WORLD = SolidWorld
