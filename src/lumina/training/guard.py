"""A watch over loss and gradient: a run that goes wrong stops before it spoils its weights."""

import math
from collections import deque
from collections.abc import Callable
from pathlib import Path
from statistics import median

from lumina.errors import LuminaError

MEMORY = 100
"""Steps whose gradients tell what is usual."""

ENOUGH = 20
"""Steps before anything is unusual."""


class Guard:
    """Stops a run whose loss is not a number, or whose gradient leaps.

    Args:
        spike: How many times the usual norm of the gradient is too much. 0: none is.
    """

    def __init__(self, spike: float = 0.0):
        self.spike = spike
        self._norms: deque[float] = deque(maxlen=MEMORY)

    def check(
        self, loss: float, norm: float, step: int, *, last: Callable[[], Path | None]
    ) -> None:
        """Look at a step before the weights change.

        Args:
            loss: Of the step.
            norm: Of its gradient, before clipping.
            step: Its number, for the message.
            last: Finds the last good state, for the message.

        Raises:
            LuminaError: If the step would do harm.
        """
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise LuminaError(
                f"the loss is {loss} and the norm of its gradient {norm} at step {step}",
                hint=f"{_tell(last())}; lower learning_rate",
            )
        if self.spike and len(self._norms) >= ENOUGH:
            usual = median(self._norms)
            if norm > self.spike * usual:
                raise LuminaError(
                    f"the norm of the gradient is {norm:.3g} at step {step}, and usually"
                    f" {usual:.3g}",
                    hint=f"{_tell(last())}; lower learning_rate, or raise spike",
                )
        self._norms.append(norm)

    def state(self) -> list[float]:
        """What to store with a state of the run."""
        return list(self._norms)

    def restore(self, state: list[float]) -> None:
        """Go on from what was stored."""
        self._norms = deque(state, maxlen=MEMORY)


def _tell(last: Path | None) -> str:
    return "no state was saved yet" if last is None else f"the last good state is {last}"
