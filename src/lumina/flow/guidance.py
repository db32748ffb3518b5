"""Guidance: velocities in, a velocity out."""

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor

from lumina.types import Velocity


def guide(velocity: Velocity, guidance: float, *, channels: int | None = None) -> Velocity:
    """Follow a condition more closely than a model does by itself.

    Args:
        velocity: Takes a batch of twice the size: rows with the condition, then the same rows
            without it (or with what to keep away from).
        guidance: How far to go from the second half toward the first and past it. 1 ends at
            the first half.
        channels: Guide this many leading channels and leave the others as conditioned. None
            guides all.

    Returns:
        A velocity for the rows themselves.

    Source:
        Classifier-free guidance, arXiv:2207.12598.
    """

    def guided(x: Float[Tensor, "b c *grid"], t: Float[Tensor, ""]) -> Float[Tensor, "b c *grid"]:
        toward, away = velocity(torch.cat([x, x]), t).chunk(2)
        return _steer(toward, away, guidance, channels)

    return guided


def guide_across(
    velocity: Velocity,
    guidance: float,
    *,
    group: dist.ProcessGroup | None = None,
    channels: int | None = None,
) -> Velocity:
    """Guide as `guide` does, with each half of the pair on a process of its own.

    Args:
        velocity: Takes the rows: with the condition on the first process of the group, without
            it on the second.
        guidance: As in `guide`.
        group: Two processes, which follow the same rows. None: all.
        channels: As in `guide`.

    Returns:
        A velocity for the rows, the same on both processes.
    """

    def guided(x: Float[Tensor, "b c *grid"], t: Float[Tensor, ""]) -> Float[Tensor, "b c *grid"]:
        own = velocity(x, t).contiguous()
        toward, away = torch.empty_like(own), torch.empty_like(own)
        dist.all_gather([toward, away], own, group=group)
        return _steer(toward, away, guidance, channels)

    return guided


def _steer(
    toward: Float[Tensor, "b c *grid"],
    away: Float[Tensor, "b c *grid"],
    guidance: float,
    channels: int | None,
) -> Float[Tensor, "b c *grid"]:
    steered = away[:, :channels] + guidance * (toward[:, :channels] - away[:, :channels])
    return torch.cat([steered, toward[:, steered.shape[1] :]], dim=1)
