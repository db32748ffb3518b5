"""Guidance: velocities in, a velocity out."""

import torch
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
        steered = away[:, :channels] + guidance * (toward[:, :channels] - away[:, :channels])
        return torch.cat([steered, toward[:, steered.shape[1] :]], dim=1)

    return guided
