"""How long letters are, from sentences that voices say: the source of `lumina.spelling`'s table."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from lumina.spelling import LETTERS

PRIOR = 3.0
"""How many sentences the belief is worth that all letters take the same time."""

SHORTEST = 0.1
"""Least that a letter takes, relative to the mean of all."""


class Tempo(NamedTuple):
    """How fast a voice is.

    Args:
        edges: Frames of every sentence, however short.
        letter: Frames of an average letter.
    """

    edges: float
    letter: float


def fit_shares(
    sentences: Sequence[str], frames: Mapping[str, Sequence[float]]
) -> tuple[dict[str, float], dict[str, Tempo]]:
    """How long each letter is relative to others, and the tempo of each voice.

    Args:
        sentences: What was said.
        frames: How many frames each sentence took, for each voice.
    """
    counts = np.array([[one.count(letter) for letter in LETTERS] for one in sentences], float)
    found = [_fit_letters(counts, np.array(lengths, float)) for lengths in frames.values()]
    shares = np.mean([one / one.mean() for one in found], axis=0).clip(SHORTEST)
    tempos = {
        voice: Tempo(*np.polynomial.Polynomial.fit(counts @ shares, lengths, 1).convert().coef)
        for voice, lengths in frames.items()
    }
    return dict(zip(LETTERS, shares.tolist(), strict=True)), tempos


def _fit_letters(
    counts: Float[np.ndarray, "n letters"], lengths: Float[np.ndarray, " n"]
) -> Float[np.ndarray, " letters"]:
    """Frames of each letter, beside a number of frames that all sentences have."""
    mean = lengths.mean() / counts.sum(1).mean()
    centered = counts - counts.mean(0)
    residual = lengths - lengths.mean() - centered @ np.full(len(LETTERS), mean)
    ridge = centered.T @ centered + PRIOR * np.eye(len(LETTERS))
    return mean + np.linalg.solve(ridge, centered.T @ residual)
