"""What the released models of sound and music expect: their path and their times."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lumina.flow.path import Path

LEAST_NOISE = 1e-4
"""Share of the noise that is left at the end of a path."""

PATH = Path(
    alpha=lambda t: t,
    sigma=lambda t: 1 - (1 - LEAST_NOISE) * t,
    alpha_rate=torch.ones_like,
    sigma_rate=lambda t: torch.full_like(t, LEAST_NOISE - 1),
)
"""The straight path, up to a little noise.

Source: arXiv:2210.02747, equation 22; `lumina_audio/models/diffusion/ddpm_audio.py`.
"""

TIMES = 1000
"""Times that the models know, and that they count."""


def count_times(times: Float[Tensor, "*b"]) -> Int[Tensor, "*b"]:
    """Times in [0, 1] as the released models are given them: whole thousandths, rounded down."""
    return (times * TIMES).long()
