"""Which pictures an evaluation of drawings asks for."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np

from lumina.types import Size
from lumina.worlds.captions import PLACES, RELATIONS, Brief, write
from lumina.worlds.drawings import PALETTE

SEED = 0  # of what is drawn; picture k of a section has the seed k
BASE = Size(128, 128)
SIZES = (
    Size(96, 96),
    Size(160, 160),
    Size(192, 192),
    Size(192, 96),
    Size(96, 192),
    Size(160, 112),
    Size(112, 160),
)


@dataclass(frozen=True)
class Counts:
    """Pictures of each section.

    Args:
        names: Things that are named in English.
        per_language: Things that are named in each other language.
        combinations: Of colors, of places and of pairs, each.
        per_size: Things that are drawn at each size.
        unseen: Drawings outside the vocabulary.
    """

    names: int = 150
    per_language: int = 8
    combinations: int = 60
    per_size: int = 24
    unseen: int = 200

    def scaled(self, factor: float) -> "Counts":
        """As many times more of everything, and one at least."""
        return Counts(**{name: max(1, round(factor * n)) for name, n in asdict(self).items()})


QUICK = Counts()
FULL = Counts(names=10_000, per_language=250, combinations=500, per_size=150)


class Trial(NamedTuple):
    """One picture to ask for."""

    section: str
    brief: Brief
    language: str
    size: Size
    seed: int

    @property
    def prompt(self) -> str:
        """The caption that a model is given."""
        return write(self.brief, self.language)


def plan(things: list[str], counts: Counts, *, languages: Sequence[str]) -> list[Trial]:
    """Every picture to ask for, the same each time; combinations are held out of training."""
    alone = [Brief((thing,)) for thing in shuffled(things, "en")[: counts.names]]
    trials = [Trial("retrieval", brief, "en", BASE, seed) for seed, brief in enumerate(alone)]
    for language in languages:
        chosen = shuffled(things, language)[: counts.per_language]
        trials += [
            Trial("languages", Brief((thing,)), language, BASE, seed)
            for seed, thing in enumerate(chosen)
        ]
    for section, draw in (("color", _draw_color), ("place", _draw_place), ("pairs", _draw_pair)):
        rng = _source(section)
        for seed in range(counts.combinations):
            brief = _draw_held_out(draw, rng, things)
            trials.append(Trial(section, brief, "en", BASE, seed))
    for size in SIZES:
        trials += [
            Trial("sizes", brief, "en", size, seed)
            for seed, brief in enumerate(alone[: counts.per_size])
        ]
    return trials


def shuffled(things: list[str], purpose: str) -> list[str]:
    """Things in an order that is the same each time, and another for each purpose."""
    return [things[index] for index in _source(purpose).permutation(len(things))]


def _source(purpose: str) -> np.random.Generator:
    """Randomness that is the same each time, and another for each purpose."""
    return np.random.default_rng([SEED, *purpose.encode()])


def _draw_held_out(
    draw: Callable[[np.random.Generator, list[str]], Brief],
    rng: np.random.Generator,
    things: list[str],
) -> Brief:
    while True:
        brief = draw(rng, things)
        if brief.is_held_out:
            return brief


def _draw_color(rng: np.random.Generator, things: list[str]) -> Brief:
    return Brief((_pick(rng, things),), _pick(rng, list(PALETTE)))


def _draw_place(rng: np.random.Generator, things: list[str]) -> Brief:
    return Brief((_pick(rng, things),), _maybe_color(rng), _pick(rng, list(PLACES)))


def _draw_pair(rng: np.random.Generator, things: list[str]) -> Brief:
    first, second = (things[i] for i in rng.choice(len(things), 2, replace=False))
    return Brief((first, second), _maybe_color(rng), relation=_pick(rng, list(RELATIONS)))


def _maybe_color(rng: np.random.Generator) -> str | None:
    return _pick(rng, list(PALETTE)) if rng.random() < 0.5 else None


def _pick(rng: np.random.Generator, options: list[str]) -> str:
    return options[rng.integers(len(options))]
