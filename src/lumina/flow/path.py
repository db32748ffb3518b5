"""The straight path from noise to data, and what a model learns on it."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

Sample = Tensor | Sequence[Tensor]
"""A batch, or samples of different sizes."""


def mix(
    noise: Float[Tensor, "b *grid"], data: Float[Tensor, "b *grid"], times: Float[Tensor, " b"]
) -> Float[Tensor, "b *grid"]:
    """The points that lie at `times` on the way from noise (0) to data (1)."""
    times = times.view(-1, *[1] * (data.ndim - 1))
    return times * data + (1 - times) * noise


def velocity_loss(
    velocity: Callable[[Sample, Tensor], Sample],
    noise: Sample,
    data: Sample,
    times: Float[Tensor, " b"],
) -> Float[Tensor, " b"]:
    """Mean squared error of each sample's velocity, which is data minus noise on the whole way.

    Args:
        velocity: Takes points and their times; what it returns may have more channels than they.
        noise: Where the paths begin; a list if sizes differ, in which case `velocity` gets one.
        data: Where they end.
        times: In [0, 1], one for each sample.

    Source:
        Lumina-T2X, arXiv:2405.05945, equation 3.
    """
    if isinstance(data, Tensor) and isinstance(noise, Tensor):
        points: Sample = mix(noise, data, times)
    else:
        points = [
            mix(start[None], end[None], time[None])[0]
            for start, end, time in zip(noise, data, times, strict=True)
        ]
    found = velocity(points, times)
    errors = [
        (one[: len(end)].float() - (end - start)).square().mean()
        for one, start, end in zip(found, noise, data, strict=True)
    ]
    return torch.stack(errors)
