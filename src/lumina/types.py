"""Types that many parts share: sizes, and the seams where features join the flow."""

from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

from jaxtyping import Bool, Float
from torch import Tensor


class Size(NamedTuple):
    """Width and height of a picture, in pixels."""

    width: int
    height: int


Velocity = Callable[[Tensor, Tensor], Tensor]
"""The direction of the flow: `(x, time) -> dx/dtime`, with noise at time 0 and data at time 1."""

VelocityAt = Callable[[float], Velocity]
"""Velocities to follow from one time to the next: what is decided once a step is decided here."""


@runtime_checkable
class Attend(Protocol):
    """Attention itself: what turns queries, keys and values into values."""

    def __call__(
        self,
        query: Float[Tensor, "b n h k"],
        key: Float[Tensor, "b m g k"],
        value: Float[Tensor, "b m g k"],
        *,
        mask: Bool[Tensor, "b 1 #n m"] | None = None,
        scale: float | None = None,
    ) -> Float[Tensor, "b n h k"]:
        """Return one value for each query.

        Args:
            query: Queries of `h` heads.
            key: Keys of `g` heads, where `g` divides `h`.
            value: Values of `g` heads.
            mask: True where a query may look. None lets it look everywhere.
            scale: Factor on the scores. None stands for one over the root of the head width.
        """
        ...
