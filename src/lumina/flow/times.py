"""Where between noise and data a sampler stops."""

import torch
from jaxtyping import Float
from torch import Tensor


def uniform_times(steps: int) -> Float[Tensor, " points"]:
    """Both ends of `steps` equal steps, from 0 to 1."""
    return torch.linspace(0, 1, steps + 1)


def shift_times(times: Float[Tensor, " s"], factor: float) -> Float[Tensor, " s"]:
    """Move times toward noise, or toward data where the factor is below 1; 0 and 1 stay.

    Args:
        times: In [0, 1], where 0 is noise.
        factor: Above 0; 1 changes nothing.

    Source:
        Time shifting of Lumina-T2X, arXiv:2405.05945, section 2.3, which is the rational schedule
        of Lumina-Next, arXiv:2406.18583, section 2.4.
    """
    return times / (times + factor - factor * times)
