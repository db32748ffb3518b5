"""How like real clouds of points generated ones are, by distances between clouds."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from lumina.errors import refuse_missing_library
from lumina.evaluation.intervals import interval_of_mean, wilson

Cloud = Float[np.ndarray, "_ 3"]
Matrix = Float[np.ndarray, "_ _"]


class Measured(NamedTuple):
    """A number and the ends of its 95 % interval."""

    value: float
    low: float
    high: float


class CloudScores(NamedTuple):
    """How like real clouds made ones are.

    Args:
        matching: Distance from each real cloud to the nearest that was made, on average (MMD).
        coverage: Share of real clouds that are the nearest real one of some made cloud (COV).
        nearest: Share of clouds whose nearest other cloud is of the same side, real or made
            (1-NNA): 0.5 if nothing tells them apart, 1 if everything does.
    """

    matching: Measured
    coverage: Measured
    nearest: Measured


def chamfer_matrix(first: Sequence[Cloud], second: Sequence[Cloud]) -> Matrix:
    """Chamfer distance from each cloud of a list to each of another.

    It is the mean squared distance to the nearest point of the other cloud, both ways added.

    Raises:
        LuminaError: If the package that finds nearest points is not installed.

    Source:
        Learning representations and generative models for 3D point clouds, arXiv:1707.02392, with
        means instead of sums, as PointFlow, arXiv:1906.12320, has it.
    """
    rows, cols = _with_trees(first), _with_trees(second)
    return np.array([[_between(row, col) for col in cols] for row in rows])


def chamfer_among(clouds: Sequence[Cloud]) -> Matrix:
    """Chamfer distance between all clouds of a list: half the work of `chamfer_matrix`."""
    known = _with_trees(clouds)
    matrix = np.zeros((len(known), len(known)))
    for row in range(len(known)):
        for col in range(row):
            matrix[row, col] = matrix[col, row] = _between(known[row], known[col])
    return matrix


def score_distances(
    among_made: Float[np.ndarray, "made made"],
    across: Float[np.ndarray, "made real"],
    among_real: Float[np.ndarray, "real real"],
) -> CloudScores:
    """Compare two sets by their distances.

    Args:
        among_made: From each made cloud to each.
        across: From each made cloud (rows) to each real one (columns).
        among_real: From each real cloud to each.
    """
    nearest_made = across.min(0).tolist()
    covered = len(set(across.argmin(1).tolist()))
    whole = np.block([[among_made, across], [across.T, among_real]])
    is_made = np.arange(len(whole)) < len(among_made)
    return CloudScores(
        matching=Measured(float(np.mean(nearest_made)), *interval_of_mean(nearest_made)),
        coverage=Measured(covered / across.shape[1], *wilson(covered, across.shape[1])),
        nearest=nearest_neighbor_accuracy(whole, is_made),
    )


def nearest_neighbor_accuracy(
    distances: Float[np.ndarray, "all all"], is_made: Bool[np.ndarray, " all"]
) -> Measured:
    """Share of clouds whose nearest other cloud is of the same side.

    Two clouds that are nearest to each other are right or wrong together. The interval is that of
    as many independent ones as have the same variance, where nothing tells the sides apart.

    Source:
        Revisiting classifier two-sample tests, arXiv:1610.06545.
    """
    others = distances.copy()
    np.fill_diagonal(others, np.inf)
    nearest = others.argmin(1)
    count = len(nearest)
    right = int((is_made[nearest] == is_made).sum())
    mutual = int((nearest[nearest] == np.arange(count)).sum())
    independent = max(1, round(count**2 / (count + mutual)))
    ends = wilson(round(right / count * independent), independent)
    return Measured(right / count, *ends)


def _with_trees(clouds: Sequence[Cloud]) -> list[tuple[Any, Cloud]]:
    known = []
    for cloud in clouds:
        tree = _tree(cloud)
        # Points that are near to each other look in the same part of a tree: in the order of
        # their own, they find it in the cache.
        known.append((tree, cloud[tree.indices]))
    return known


def _tree(cloud: Cloud) -> Any:
    refuse_missing_library("scipy", extra="points")
    import scipy.spatial

    spatial: Any = scipy.spatial  # whose types do not know its own class
    return spatial.cKDTree(cloud)  # KDTree costs more a call, and finds the same


def _between(first: tuple[Any, Cloud], second: tuple[Any, Cloud]) -> float:
    (tree, cloud), (other_tree, other) = first, second
    to_other, _ = other_tree.query(cloud)
    to_first, _ = tree.query(other)
    return float(np.mean(np.square(to_other)) + np.mean(np.square(to_first)))
