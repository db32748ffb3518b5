"""Times between noise (0) and data (1): where a sampler stops, and what a model is trained on."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from lumina.errors import LuminaError
from lumina.requests import check_increasing

SIGMOID = {"middle": 0.6, "start_slope": 6.0, "end_slope": 20.0}
"""The constants of Lumina-Next, arXiv:2406.18583, section 2.4."""


def uniform_times(steps: int) -> Float[Tensor, " points"]:
    """Both ends of `steps` equal steps, from 0 to 1.

    Raises:
        LuminaError: If there is no step.
    """
    if steps < 1:
        raise LuminaError(f"steps is {steps}, which is out of range", hint="allowed: 1 and above")
    return torch.linspace(0, 1, steps + 1)


def shift_times(times: Float[Tensor, " s"], factor: float) -> Float[Tensor, " s"]:
    """Move times toward noise, or toward data where the factor is below 1; 0 and 1 stay.

    Args:
        times: In [0, 1], where 0 is noise.
        factor: Above 0; 1 changes nothing.

    Raises:
        LuminaError: If the factor is not above 0.

    Source:
        Time shifting of Lumina-T2X, arXiv:2405.05945, section 2.3, which is the rational schedule
        of Lumina-Next, arXiv:2406.18583, section 2.4.
    """
    if not factor > 0:
        raise LuminaError(f"the shift is {factor}, which is out of range", hint="allowed: above 0")
    return times / (times + factor - factor * times)


def sigmoid_times(
    times: Float[Tensor, " s"], *, middle: float, start_slope: float, end_slope: float
) -> Float[Tensor, " s"]:
    """Take small steps at both ends; 0 and 1 stay.

    Args:
        times: In [0, 1].
        middle: Where steps are largest, between 0 and 1.
        start_slope: How steep the curve is below `middle`, above 0.
        end_slope: How steep it is above.

    Source:
        Lumina-Next, arXiv:2406.18583, section 2.4, whose normalisation is not told: here the two
        halves of the sigmoid meet at `middle`, and the whole is stretched to reach 0 and 1.
    """

    def curve(u: Tensor) -> Tensor:
        slope = torch.where(u < middle, start_slope, end_slope)
        return torch.sigmoid(slope * (u - middle))

    ends = curve(torch.tensor([0.0, 1.0], dtype=times.dtype, device=times.device))
    return (curve(times) - ends[0]) / (ends[1] - ends[0])


def resolution_shift(tokens: int, *, base: int) -> float:
    """The factor of `shift_times` for samples of more tokens than a model was trained with.

    Source:
        Stable Diffusion 3, arXiv:2403.03206, equation 23.
    """
    return math.sqrt(tokens / base)


def check_times(times: Sequence[float]) -> Float[Tensor, " points"]:
    """A list of times that a sampler can stop at.

    Raises:
        LuminaError: If there are fewer than two, they do not increase or leave [0, 1].
    """
    check_increasing(times)
    return torch.tensor(times)


def interval(
    path: str,
    prediction: str = "velocity",
    *,
    margin: float = 0.0,
    diffusion: str | None = None,
    last_step: float = 0.0,
) -> tuple[float, float]:
    """First and last time at which a prediction is asked for.

    Noise, score and diffusion have poles at one end or both, which a margin keeps away from.

    Args:
        path: "linear", "gvp" or "vp".
        prediction: "velocity", "noise" or "score".
        margin: Distance to the poles.
        diffusion: Form of the diffusion of an SDE. None is an ODE.
        last_step: Size of the last step of an SDE, which adds no noise.

    Source:
        `check_interval` in transport/transport.py of the original code.
    """
    end = 1 - (last_step if diffusion and last_step else margin)
    if path == "vp":
        return 0.0, end
    if prediction == "velocity" and diffusion is None:
        return 0.0, 1.0
    has_pole = prediction != "velocity" or diffusion == "sbdm"
    return (margin if has_pole else 0.0), end


def draw_uniform(
    count: int, *, low: float = 0.0, high: float = 1.0, generator: torch.Generator | None = None
) -> Float[Tensor, " b"]:
    """Times to train on, all equally often."""
    return low + (high - low) * torch.rand(count, generator=generator)


def draw_logit_normal(
    count: int, *, mean: float = 0.0, spread: float = 1.0, generator: torch.Generator | None = None
) -> Float[Tensor, " b"]:
    """Times to train on, most often in the middle.

    Source:
        Stable Diffusion 3, arXiv:2403.03206, section 3.1.
    """
    return torch.sigmoid(mean + spread * torch.randn(count, generator=generator))
