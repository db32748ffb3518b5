"""Solids of everyday kinds with continuous shapes: drawn, sampled as points, and told in words."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from lumina.worlds.solid_kinds import KINDS
from lumina.worlds.solid_parts import Triangles

HELD_OUT = 907
"""What tells the random numbers of shapes that are never trained on from those of training."""


class Solid(NamedTuple):
    """One solid.

    Args:
        kind: A name in `KINDS`.
        units: A number in [0, 1) for each range of its kind, in their order.
    """

    kind: str
    units: tuple[float, ...]

    @property
    def shape(self) -> dict[str, float]:
        """The numbers that shape it, by name."""
        ranges = KINDS[self.kind].ranges
        return {
            name: _value(unit, *ends)
            for unit, (name, ends) in zip(self.units, ranges.items(), strict=True)
        }


def draw_solid(rng: np.random.Generator, kind: str | None = None) -> Solid:
    """A solid of a kind, or of any."""
    kind = kind or str(rng.choice(list(KINDS)))
    return Solid(kind, tuple(rng.random(len(KINDS[kind].ranges)).tolist()))


def held_out_solids(count: int, *, seed: int = 0) -> list[Solid]:
    """Solids for judging, of kinds that are drawn by chance.

    Shapes are continuous, so that those of another generator never equal them. If kinds took turns,
    two lists would be more alike than chance: a solid would have one more of its kind in the other
    list than beside it in its own.

    Args:
        count: How many.
        seed: Which of many such lists.
    """
    rng = np.random.default_rng([HELD_OUT, seed])
    return [draw_solid(rng) for _ in range(count)]


def build_surface(solid: Solid) -> Triangles:
    """Its surface around the middle of its box, whose longest side is 1."""
    return _fit(KINDS[solid.kind].build(solid.shape))


def sample_points(
    triangles: Triangles, count: int, rng: np.random.Generator
) -> Float[np.ndarray, "n 3"]:
    """Random points of a surface, as many on average on each piece of the same area."""
    corner, *others = np.moveaxis(triangles, 1, 0)
    first, second = (other - corner for other in others)
    areas = np.linalg.norm(np.cross(first, second), axis=-1)
    face = rng.choice(len(areas), size=count, p=areas / areas.sum())
    along, aside = rng.random((2, count, 1))
    # A parallelogram is folded onto the triangle that is half of it.
    outside = along + aside > 1
    along, aside = np.where(outside, 1 - along, along), np.where(outside, 1 - aside, aside)
    return (corner[face] + along * first[face] + aside * second[face]).astype(np.float32)


def draw_cloud(solid: Solid, count: int, rng: np.random.Generator) -> Float[np.ndarray, "n 3"]:
    """Random points of a solid, within 0.5 of the middle along each axis."""
    return sample_points(build_surface(solid), count, rng)


def tell(solid: Solid, names: Sequence[str] = ()) -> str:
    """Caption in English.

    Args:
        solid: What it is of.
        names: Numbers of its shape to tell. Those in the middle of their range have no words.
    """
    phrases = [phrase for name in names if (phrase := _phrase(solid, name))]
    before = [phrase for phrase in phrases if not phrase.startswith("with ")]
    after = [phrase.removeprefix("with ") for phrase in phrases if phrase.startswith("with ")]
    name = " ".join([*before, solid.kind])
    text = name if solid.kind == "stairs" else f"{'an' if name[0] in 'aeiou' else 'a'} {name}"
    return f"{text} with {' and '.join(after)}" if after else text


def draw_names(solid: Solid, rng: np.random.Generator, *, most: int = 2) -> tuple[str, ...]:
    """Numbers to tell, from none to as many as asked; those without words are never drawn."""
    known = [name for name in KINDS[solid.kind].words if _phrase(solid, name)]
    count = min(int(rng.integers(most + 1)), len(known))
    chosen = set(rng.permutation(len(known))[:count].tolist())
    return tuple(name for number, name in enumerate(known) if number in chosen)


def _phrase(solid: Solid, name: str) -> str:
    kind = KINDS[solid.kind]
    unit = solid.units[list(kind.ranges).index(name)]
    return kind.words[name][int(unit * len(kind.words[name]))]


def _value(unit: float, low: float, high: float) -> float:
    if isinstance(low, int) and isinstance(high, int):
        return low + int(unit * (high - low + 1))
    return low + unit * (high - low)


def _fit(triangles: Triangles) -> Triangles:
    low, high = triangles.min((0, 1)), triangles.max((0, 1))
    return (triangles - (low + high) / 2) / (high - low).max()
