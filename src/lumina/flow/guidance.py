"""Guidance: velocities in, a velocity out."""

from dataclasses import dataclass

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor

from lumina.errors import LuminaError
from lumina.types import Velocity

TINY = 1e-12
"""Below this, a velocity is none."""


@dataclass(frozen=True, kw_only=True)
class Guidance:
    """How to go from a velocity with a condition and one without it to the one to follow.

    Args:
        scale: How far to go from the velocity without the condition toward the one with it and
            past it; 1 ends there. A tensor has one number for each sample, of 1 and above.
        channels: Guide this many leading channels and leave the others as conditioned. None
            guides all.
        interval: Times from the first of which, and before the second of which, to guide. At
            other times the velocity with the condition is followed, in half the time.
        rescale: From 0 to 1, how far to bring the spread of the guided velocity of each sample
            back to that of the one with the condition.
        normalize: Shorten the guided velocity of a sample where it is longer than the one with
            the condition.

    Raises:
        LuminaError: If the interval does not lie in [0, 1] or `rescale` is not in it.

    Source:
        Classifier-free guidance, arXiv:2207.12598; the interval, arXiv:2404.07724; rescaling,
        arXiv:2305.08891, section 3.4.
    """

    scale: float | Tensor = 4.0
    channels: int | None = None
    interval: tuple[float, float] = (0.0, 1.0)
    rescale: float = 0.0
    normalize: bool = False

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        start, end = self.interval
        if not 0 <= start < end <= 1:
            raise LuminaError(
                f"the guidance interval is {start} to {end}", hint="give two times, 0 <= a < b <= 1"
            )
        if not 0 <= self.rescale <= 1:
            raise LuminaError(
                f"the guidance is rescaled by {self.rescale}, which is out of range",
                hint="allowed: 0 to 1",
            )

    @property
    def is_on(self) -> bool:
        """Whether there is anything to guide at any time."""
        scale = self.scale
        return bool((scale > 1).any()) if isinstance(scale, Tensor) else scale > 1

    def is_on_at(self, time: float) -> bool:
        """Whether to guide at this time."""
        start, end = self.interval
        return self.is_on and start <= time and (time < end or end == 1)

    def steer(
        self, toward: Float[Tensor, "b c *grid"], away: Float[Tensor, "b c *grid"]
    ) -> Float[Tensor, "b c *grid"]:
        """The velocity to follow.

        Args:
            toward: The velocity with the condition.
            away: The velocity without it, or with what to keep away from.
        """
        scale = self.scale
        if isinstance(scale, Tensor):
            # Where one number for all would not guide, neither does one for a picture.
            scale = _per_sample(scale.to(toward).clamp(min=1), toward)
        start, end = away[:, : self.channels], toward[:, : self.channels]
        steered = start + scale * (end - start)
        if self.rescale:
            spreads = end.flatten(1).std(1) / steered.flatten(1).std(1).clamp(min=TINY)
            steered = steered + self.rescale * steered * (_per_sample(spreads, steered) - 1)
        if self.normalize:
            ratio = end.flatten(1).norm(dim=1) / steered.flatten(1).norm(dim=1).clamp(min=TINY)
            steered = steered * _per_sample(ratio.clamp(max=1), steered)
        return torch.cat([steered, toward[:, steered.shape[1] :]], dim=1)


def guide(
    velocity: Velocity, guidance: Guidance, *, group: dist.ProcessGroup | None = None
) -> Velocity:
    """Follow a condition more closely than a model does by itself.

    Args:
        velocity: Takes a batch of twice the size: rows with the condition, then the same rows
            without it (or with what to keep away from). With a group it takes the rows
            themselves: with the condition on its first process, without it on its second.
        guidance: How to make one velocity of both halves.
        group: Two processes, each of which computes a half. None: one computes both.

    Returns:
        A velocity for the rows themselves, the same on all processes of the group.
    """

    def guided(x: Float[Tensor, "b c *grid"], t: Float[Tensor, ""]) -> Float[Tensor, "b c *grid"]:
        if group is None:
            return guidance.steer(*velocity(torch.cat([x, x]), t).chunk(2))
        own = velocity(x, t).contiguous()
        toward, away = torch.empty_like(own), torch.empty_like(own)
        dist.all_gather([toward, away], own, group=group)
        return guidance.steer(toward, away)

    return guided


def _per_sample(
    values: Float[Tensor, " b"], like: Float[Tensor, "b c *grid"]
) -> Float[Tensor, "b *ones"]:
    return values.view(-1, *[1] * (like.ndim - 1))
