"""Several endless lists merged into one by weight, with every place in it found at once."""

import heapq
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Turn(NamedTuple):
    """One place in the merged list.

    Args:
        which: Number of the list that it is from.
        index: Place in that list.
    """

    which: int
    index: int


class Interleaving:
    """Lists whose turns are spread evenly, each in proportion to its weight.

    Turn j of a list of weight w comes at the moment (j + phase) / w. How many turns of each list
    there are before a moment follows from that, so that any place of the merged list is found
    without walking to it. At no moment is a list a whole turn from its share of the turns.

    Args:
        weights: How often each list has a turn, relative to the others; above 0.
        costs: What a turn of each list costs, above 0.
        rng: Draws the phases, which decide who comes first.
    """

    def __init__(self, weights: Sequence[float], costs: Sequence[int], rng: np.random.Generator):
        total = math.fsum(weights)
        self._weights = [weight / total for weight in weights]
        self._costs = list(costs)
        self._phases = [float(phase) for phase in rng.random(len(self._weights))]

    def between(self, start: int, stop: int) -> list[Turn]:
        """Turns before which at least `start` and less than `stop` has been spent, in order."""
        moment = self._last_moment_before(start)
        counts = [self._turns_before(which, moment) for which in range(len(self._weights))]
        spent = sum(count * cost for count, cost in zip(counts, self._costs, strict=True))
        coming = [(self._moment(which, index), which, index) for which, index in enumerate(counts)]
        heapq.heapify(coming)
        turns = []
        while spent < stop:
            _, which, index = coming[0]
            if spent >= start:
                turns.append(Turn(which, index))
            spent += self._costs[which]
            heapq.heapreplace(coming, (self._moment(which, index + 1), which, index + 1))
        return turns

    def _last_moment_before(self, spent: int) -> float:
        """A moment before which less than this has been spent, or the start."""
        rate = math.fsum(
            weight * cost for weight, cost in zip(self._weights, self._costs, strict=True)
        )
        # Each list is less than one turn ahead of its share, and the 1 is for rounding.
        return max(0.0, (spent - sum(self._costs)) / rate - 1)

    def _turns_before(self, which: int, moment: float) -> int:
        count = max(0, math.ceil(moment * self._weights[which] - self._phases[which]))
        # What is decided by `_moment` must agree with it to the last bit.
        while count and self._moment(which, count - 1) >= moment:
            count -= 1
        while self._moment(which, count) < moment:
            count += 1
        return count

    def _moment(self, which: int, index: int) -> float:
        return (index + self._phases[which]) / self._weights[which]
