"""Paths from noise to data, what a model may predict on them, and what it learns."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lumina.errors import LuminaError, UnknownNameError

Sample = Tensor | Sequence[Tensor]
"""A batch, or samples of different sizes."""

Times = Float[Tensor, "*b"]
Rate = Callable[[Tensor], Tensor]

PREDICTIONS = ("velocity", "noise", "score")
WEIGHTS = (None, "velocity", "likelihood")


@dataclass(frozen=True)
class Path:
    """How much data and how much noise there is at each time, from noise (0) to data (1).

    Args:
        alpha: Share of the data.
        sigma: Share of the noise.
        alpha_rate: Derivative of `alpha`.
        sigma_rate: Derivative of `sigma`.

    Source:
        SiT, arXiv:2401.08740, section 2 and table 1.
    """

    alpha: Rate
    sigma: Rate
    alpha_rate: Rate
    sigma_rate: Rate

    def mix(
        self, noise: Float[Tensor, "b *grid"], data: Float[Tensor, "b *grid"], times: Times
    ) -> Float[Tensor, "b *grid"]:
        """The points of the way at `times`, one for each sample."""
        t = _fit(times, data)
        return self.alpha(t) * data + self.sigma(t) * noise

    def velocity(
        self, noise: Float[Tensor, "b *grid"], data: Float[Tensor, "b *grid"], times: Times
    ) -> Float[Tensor, "b *grid"]:
        """The direction of the way at `times`."""
        t = _fit(times, data)
        return self.alpha_rate(t) * data + self.sigma_rate(t) * noise

    def pull(self, times: Times) -> Times:
        """How strongly samples are pulled toward data: the factor of the score in the velocity."""
        alpha, sigma = self.alpha(times), self.sigma(times)
        return self.alpha_rate(times) / alpha * sigma.square() - sigma * self.sigma_rate(times)

    def to_velocity(
        self, output: Float[Tensor, "b *grid"], x: Float[Tensor, "b *grid"], times: Times, kind: str
    ) -> Float[Tensor, "b *grid"]:
        """The velocity, where a model predicts that, the noise or the score.

        Raises:
            UnknownNameError: If `kind` is none of these.
        """
        if kind not in PREDICTIONS:
            raise UnknownNameError.among(PREDICTIONS, kind, kind="prediction")
        if kind == "velocity":
            return output
        t = _fit(times, x)
        score = output if kind == "score" else -output / self.sigma(t)
        return self.alpha_rate(t) / self.alpha(t) * x + self.pull(t) * score

    def to_score(
        self, velocity: Float[Tensor, "b *grid"], x: Float[Tensor, "b *grid"], times: Times
    ) -> Float[Tensor, "b *grid"]:
        """The gradient of the logarithm of the density, from the velocity."""
        return -self.to_noise(velocity, x, times) / self.sigma(_fit(times, x))

    def to_noise(
        self, velocity: Float[Tensor, "b *grid"], x: Float[Tensor, "b *grid"], times: Times
    ) -> Float[Tensor, "b *grid"]:
        """The expected noise, from the velocity."""
        t = _fit(times, x)
        ratio = self.alpha(t) / self.alpha_rate(t)
        return (ratio * velocity - x) / (ratio * self.sigma_rate(t) - self.sigma(t))


def _vp_log_alpha(t: Tensor) -> Tensor:
    return -0.25 * (1 - t) ** 2 * (_VP_MOST - _VP_LEAST) - 0.5 * (1 - t) * _VP_LEAST


def _vp_alpha_rate(t: Tensor) -> Tensor:
    slope = 0.5 * (1 - t) * (_VP_MOST - _VP_LEAST) + 0.5 * _VP_LEAST
    return _vp_log_alpha(t).exp() * slope


def _vp_sigma(t: Tensor) -> Tensor:
    return (-torch.expm1(2 * _vp_log_alpha(t))).sqrt()


_VP_LEAST, _VP_MOST = 0.1, 20.0  # noise added at data and at noise

LINEAR = Path(
    alpha=lambda t: t,
    sigma=lambda t: 1 - t,
    alpha_rate=torch.ones_like,
    sigma_rate=lambda t: -torch.ones_like(t),
)
PATHS = {
    "linear": LINEAR,
    "gvp": Path(
        alpha=lambda t: (math.pi / 2 * t).sin(),
        sigma=lambda t: (math.pi / 2 * t).cos(),
        alpha_rate=lambda t: math.pi / 2 * (math.pi / 2 * t).cos(),
        sigma_rate=lambda t: -math.pi / 2 * (math.pi / 2 * t).sin(),
    ),
    "vp": Path(
        alpha=lambda t: _vp_log_alpha(t).exp(),
        sigma=_vp_sigma,
        alpha_rate=_vp_alpha_rate,
        sigma_rate=lambda t: -_vp_log_alpha(t).exp() * _vp_alpha_rate(t) / _vp_sigma(t),
    ),
}
"""Straight; with constant variance by sine and cosine; and that of diffusion (DDPM)."""


def flow_loss(
    predict: Callable[[Any, Tensor], Sample],
    noise: Sample,
    data: Sample,
    times: Float[Tensor, " b"],
    *,
    path: Path = LINEAR,
    prediction: str = "velocity",
    weight: str | None = None,
) -> Float[Tensor, " b"]:
    """Mean squared error of each sample's prediction.

    Args:
        predict: Takes points and their times; what it returns may have more channels than they.
        noise: Where the paths begin; a list if sizes differ, in which case `predict` gets one.
        data: Where they end.
        times: Between 0 and 1, one for each sample.
        path: The way from one to the other.
        prediction: What `predict` returns: "velocity", "noise" or "score".
        weight: How errors of noise and score count: None, "velocity" (as they would in the
            velocity) or "likelihood" (as in a bound of the likelihood).

    Raises:
        LuminaError: If errors of the velocity are to be weighted.
        UnknownNameError: If there is no such prediction or weight.

    Source:
        Lumina-T2X, arXiv:2405.05945, equation 3; SiT, arXiv:2401.08740, section 2.4.
    """
    if prediction not in PREDICTIONS:
        raise UnknownNameError.among(PREDICTIONS, prediction, kind="prediction")
    if weight not in WEIGHTS:
        raise UnknownNameError.among(map(str, WEIGHTS), str(weight), kind="weight")
    if prediction == "velocity" and weight is not None:
        raise LuminaError("errors of the velocity have no weight", hint="leave the weight out")
    pairs = [
        (start[None], end[None], time[None])
        for start, end, time in zip(noise, data, times, strict=True)
    ]
    points = [path.mix(*pair)[0] for pair in pairs]
    found = predict(torch.stack(points) if isinstance(data, Tensor) else points, times)
    factors = _weights(path, prediction, weight, times)
    errors = []
    for output, (start, end, time), factor in zip(found, pairs, factors, strict=True):
        own = output[None, : end.shape[1]]
        own = own.to(torch.promote_types(own.dtype, torch.float32))
        if prediction == "velocity":
            error = own - path.velocity(start, end, time)
        elif prediction == "noise":
            error = own - start
        else:  # in units of the noise, where the score has no pole
            error = own * path.sigma(_fit(time, own)) + start
        errors.append((factor * error.square()).mean())
    return torch.stack(errors)


def _weights(
    path: Path, prediction: str, weight: str | None, times: Float[Tensor, " b"]
) -> Float[Tensor, " b"]:
    if prediction == "velocity" or weight is None:
        return torch.ones_like(times)
    sigma = path.sigma(times)
    as_velocity = (path.pull(times) / sigma).square()
    return as_velocity if weight == "velocity" else path.pull(times) / sigma.square()


def _fit(times: Times, x: Float[Tensor, "b *grid"]) -> Tensor:
    """Times with as many axes as the samples."""
    return times.view(-1, *[1] * (x.ndim - 1)) if times.ndim == 1 else times
