"""Exam of models of point clouds: how like clouds of held-out solids theirs are.

For each number of points, as many clouds are made as there are true ones, with captions of other
held-out solids, of kinds drawn by chance. By Chamfer distance, of at most 2,048 points of each:
are the nearest clouds of each cloud of its own side (1-NNA), how far is each true cloud from the
nearest made one (MMD), how many true clouds are nearest to a made one (COV), and is the nearest
true cloud of the kind that was asked for? True examples are clouds of the solids whose captions
are asked for: what is measured of them is what a perfect model would reach.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from lumina.evaluation.exams import Outcome, Wish, by_language
from lumina.evaluation.lines import Line, share
from lumina.evaluation.points import (
    Measured,
    chamfer_among,
    chamfer_matrix,
    score_distances,
)
from lumina.worlds.solid_kinds import KINDS
from lumina.worlds.solid_names import NAMES, name_of
from lumina.worlds.solids import Solid, draw_cloud, draw_names, held_out_solids, tell
from lumina.worlds.solids_world import SolidWorld

SIDE = 100
"""True clouds, and as many are made."""

QUICK = {256: SIDE, 2048: SIDE, 8192: 24}
FULL = {256: SIDE, 2048: SIDE, 8192: SIDE}
"""Clouds of each number of points."""

COMPARED_POINTS = 2048
"""Points of each cloud that are compared, where there are as many."""

LANGUAGES = "languages"

_TRUE, _ASKED = 0, 1  # lists of held-out solids
_THINNED = 2  # what tells the random numbers of this from those of drawing clouds


class CloudVerdict(NamedTuple):
    """What is known of a cloud.

    Args:
        points: Those of it that are compared.
        distances: To true clouds of as many points.
        kind: Of the nearest of these.
    """

    points: Float[np.ndarray, "n 3"]
    distances: Float[np.ndarray, " true"]
    kind: str


class CloudExam:
    """Clouds of 256, 2,048 and 8,192 points.

    Args:
        usual: Has no effect: models make any number of points.
    """

    called = "clouds"
    world = SolidWorld(foreign=True)
    languages = tuple(NAMES)

    def __init__(self, usual: Mapping[str, Any]):
        """There is nothing to set up."""

    def plan(self, *, full: bool, names: int | None, languages: Sequence[str]) -> list[Wish]:
        """Solids at each number of points, and each kind in each language."""
        share = 1.0 if names is None else names / SIDE
        wishes = []
        for points, most in (FULL if full else QUICK).items():
            side = min(most, max(2, round(share * most)))
            wishes += [
                Wish(
                    f"{points} points",
                    _tell(solid, number),
                    solid,
                    number,
                    {"points": points},
                    # Larger batches leave the caches of a processor: half as fast a cloud.
                    at_once=max(1, 8 * min(QUICK) // points),
                )
                for number, solid in enumerate(held_out_solids(side, seed=_ASKED))
            ]
        for language in languages:
            wishes += [
                Wish(
                    LANGUAGES,
                    name_of(kind, language),
                    Solid(kind, ()),
                    number,
                    {"points": min(QUICK)},
                    language,
                )
                for number, kind in enumerate(list(KINDS)[:names])
            ]
        return wishes

    def example(self, wish: Wish) -> np.ndarray | None:
        """A cloud of the solid that is told; names alone tell no shape."""
        if wish.section == LANGUAGES:
            return None
        rng = np.random.default_rng((_ASKED, wish.seed))
        return draw_cloud(wish.brief, wish.arguments["points"], rng)

    def judge(self, wish: Wish, medium: np.ndarray) -> CloudVerdict:
        """Distances to true clouds."""
        points = _thin(medium, wish.seed)
        distances = chamfer_matrix([points], _true_clouds(len(medium)))
        kinds = [solid.kind for solid in held_out_solids(SIDE, seed=_TRUE)]
        return CloudVerdict(points, distances[0], kinds[int(distances.argmin())])

    def measure(self, outcomes: Sequence[Outcome]) -> list[Line]:
        """Distances between both sides for each number of points, and kinds by language."""
        lines = []
        for section in dict.fromkeys(outcome.wish.section for outcome in outcomes):
            same = [outcome for outcome in outcomes if outcome.wish.section == section]
            if section == LANGUAGES:
                lines.append(share(section, "kind", [_is_right(outcome) for outcome in same]))
                lines += by_language(same, _is_right, "kind")
            else:
                lines += _compare(same)
        return lines

    def describe(self, outcome: Outcome) -> dict[str, Any]:
        """The kind that was asked for, and that of the nearest true cloud."""
        asked, found = outcome.wish.brief.kind, outcome.verdict.kind
        return {
            "points": outcome.wish.arguments["points"],
            "asked": asked,
            "found": found,
            "right": asked == found,
        }


EXAM = CloudExam


def _compare(outcomes: Sequence[Outcome]) -> list[Line]:
    """Made clouds of one number of points, against as many true ones."""
    wish, count = outcomes[0].wish, len(outcomes)
    scores = score_distances(
        chamfer_among([outcome.verdict.points for outcome in outcomes]),
        np.stack([outcome.verdict.distances[:count] for outcome in outcomes]),
        _among_true(wish.arguments["points"], count),
    )
    return [
        _line(wish.section, "1-NNA (0.5 is best)", 2 * count, scores.nearest, ""),
        _line(wish.section, "MMD x 1000", count, _thousands(scores.matching), ""),
        _line(wish.section, "COV (1 is best)", count, scores.coverage, "share"),
        share(wish.section, "kind", [_is_right(outcome) for outcome in outcomes]),
    ]


@functools.cache
def _true_clouds(points: int) -> list[np.ndarray]:
    return [
        _thin(draw_cloud(solid, points, np.random.default_rng((_TRUE, number))), number)
        for number, solid in enumerate(held_out_solids(SIDE, seed=_TRUE))
    ]


@functools.cache
def _among_true(points: int, side: int) -> Float[np.ndarray, "true true"]:
    return chamfer_among(_true_clouds(points)[:side])


def _tell(solid: Solid, number: int) -> str:
    return tell(solid, draw_names(solid, np.random.default_rng((_ASKED, number))))


def _thin(cloud: np.ndarray, number: int) -> np.ndarray:
    rng = np.random.default_rng((_THINNED, number))
    return cloud[rng.permutation(len(cloud))[:COMPARED_POINTS]]


def _is_right(outcome: Outcome) -> bool:
    return outcome.verdict.kind == outcome.wish.brief.kind


def _line(section: str, what: str, count: int, measured: Measured, unit: str) -> Line:
    return Line(section, what, count, *measured, unit=unit)


def _thousands(measured: Measured) -> Measured:
    return Measured(*(1000 * value for value in measured))
