"""Point clouds as tokens: one a point, without order, and known by coordinates alone.

A network is trained on clouds of `TRAINED_POINTS` points and used for up to `MOST_POINTS`. Three
things make up for the difference: features that follow how dense a cloud is, noise whose large
features do not depend on it, and attention to `KEYS` points alone, so that the time of a step grows
with the number of points and not with its square.
"""

import math
from collections.abc import Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from lumina.errors import LuminaError
from lumina.media.ply import count_points, read_points
from lumina.media.point_pictures import draw_points
from lumina.modalities import Latents, Modality, Scaling
from lumina.modalities.point_pairing import pair_noise
from lumina.nn.attention import fused_attend

TRAINED_POINTS = 256
MOST_POINTS = 8192

KEYS = 512
"""Points that all points of a larger cloud attend to: the first of it, which noise has drawn like
all others."""

SCALE = 4.0
"""Factor from points within 0.5 of the middle to what the network sees, whose deviation is 1."""

BANDS = 6
WAVE = 8.0
"""Longest wave of the features, which no noise is much wider than; the others halve it each."""

FEATURES = 3 + 3 * 2 * BANDS
"""Coordinates themselves, and the sine and cosine of each in each band."""

KEPT = 0.9
"""Share of the variance of noise that neighbors have in common."""


def check_points(count: int) -> None:
    """Raise a `LuminaError` unless clouds of so many points can be made."""
    if not (isinstance(count, Integral) and TRAINED_POINTS <= count <= MOST_POINTS):
        raise LuminaError(
            f"a cloud of {count!r} points cannot be made",
            hint=f"ask for {TRAINED_POINTS} to {MOST_POINTS} points",
        )


def encode_points(points: Float[Tensor, "*b n 3"]) -> Float[Tensor, "*b 3 n"]:
    """What a network learns to make of clouds within 0.5 of the middle."""
    return (SCALE * points).mT


def decode_points(x: Float[Tensor, "*b 3 n"]) -> Float[Tensor, "*b n 3"]:
    """Clouds out of what a network made."""
    return x.mT / SCALE


def draw_noise(
    count: int,
    generator: torch.Generator | None,
    *,
    trained: int = TRAINED_POINTS,
    kept: float = KEPT,
) -> Float[Tensor, "3 n"]:
    """Noise for a cloud: that of as many points as in training, each with others around it.

    A network has learned which shape to make from how the mean, the spread and so on of the noise
    of few points differ by chance. Independent noise for many points differs less, and would make
    all clouds of a prompt the average shape. Here each point has the normal distribution, and
    points come in groups around those of a smaller cloud, so that large features differ as they
    do in training; the same seed means the same shape at any number of points.

    Args:
        count: How many points, at least `trained`.
        generator: Source of chance, on whose device the noise is. None is torch's own.
        trained: Points of a cloud in training.
        kept: Share of the variance, in [0, 1], that the points of a group have in common. 0 is
            independent noise.

    Source:
        Ours. The shares of groups and of points within them add up to a variance of 1.
    """
    device = "cpu" if generator is None else generator.device
    first = torch.randn(3, trained, generator=generator, device=device)
    if count == trained:
        return first
    group = torch.arange(count) % trained
    own = torch.randn(3, count, generator=generator, device=device)
    return math.sqrt(kept) * first[:, group] + math.sqrt(1 - kept) * own


def band_frequencies(
    times: Float[Tensor, " b"], *, points: int, trained: int = TRAINED_POINTS
) -> Float[Tensor, "b bands"]:
    """Radians for each unit of length of each band of features, from slow to fast.

    Counted in distances between neighbors, a wave of fixed length becomes longer where there are
    more points. This is what position interpolation does for pictures, and it is right as long as
    a cloud is noise and only its outline matters: at time 0 the bands are those of training. As
    details appear, fast bands become faster, until at time 1 they turn nearly as much from one
    neighbor to the next as they did in training. Slow bands stay: they tell one end of the shape
    from the other.

    Args:
        times: Between 0 (noise) and 1 (data).
        points: Of each cloud.
        trained: Points of a cloud in training, where bands are the same at all times.

    Source:
        No formula of the "time-aware scaled Fourier features" of Lumina-Next, arXiv:2406.18583,
        is published. This is that of its rotary positions (section 2.3, `time_aware_ntk`),
        with coordinates in units of the distance between neighbors: with base b, scale s and
        exponents x from 1/B to 1 for B bands, max((b s^(B/d))^-x, b^-x / s), where d is
        (B - 1) t + 1. Points lie on surfaces: s is the root of how many times more there are.
    """
    band = torch.arange(BANDS, device=times.device)
    plain = 2 * math.pi / WAVE * 2.0**band
    exponent = (BANDS - band) / BANDS  # 1 for the slowest
    width = (BANDS - 1) * times.float().unsqueeze(-1) + 1  # (b, 1)
    growth = (1 - exponent * BANDS / width).clamp_min(0)  # (b, bands)
    return plain * math.sqrt(points / trained) ** growth


def features(
    x: Float[Tensor, "b n 3"], times: Float[Tensor, " b"], points: int
) -> Float[Tensor, "b n f"]:
    """What is known of each point: its coordinates, and waves of them.

    Args:
        x: Points on their way from noise to data.
        times: Between 0 (noise) and 1 (data).
        points: As in `band_frequencies`; usually n.
    """
    angles = x.float().unsqueeze(-1) * band_frequencies(times, points=points)[:, None, None]
    waves = [angles.sin().flatten(-2), angles.cos().flatten(-2)]
    return torch.cat([x.float(), *waves], dim=-1).to(x.dtype)


def attend_to_few(
    query: Float[Tensor, "b n h k"],
    key: Float[Tensor, "b n g k"],
    value: Float[Tensor, "b n g k"],
    *,
    mask: None = None,
    scale: float | None = None,
) -> Float[Tensor, "b n h k"]:
    """Attend to the first `KEYS` points: an `Attend`."""
    return fused_attend(query, key[:, :KEYS], value[:, :KEYS], scale=scale)


class PointCodec:
    """Points and what a flow makes of them, which are the same but for their scale."""

    def encode(self, media: Sequence[Float[np.ndarray, "n 3"]]) -> Latents:
        """Points in the units of the flow; there is no spread."""
        mean = encode_points(torch.from_numpy(np.stack(media)).float())
        return Latents(mean, torch.zeros_like(mean))

    def decode(self, latents: Float[Tensor, "b 3 n"]) -> list[Float[np.ndarray, "n 3"]]:
        """Clouds from what a flow made."""
        return list(decode_points(latents.float()).cpu().numpy())


class PointModality(Modality):
    """Point clouds of 256 to 8,192 points."""

    needs_autoencoder = False
    axes = ("points",)
    endings = (".ply",)

    def read(self, path: Path, size: Sequence[int]) -> Float[np.ndarray, "n 3"]:
        """Some of the points of a file, in a box around the middle whose longest side is 1."""
        self.check(path, size)
        points = read_points(path)
        low, high = points.min(0), points.max(0)
        chosen = np.random.default_rng(len(points)).permutation(len(points))[: size[0]]
        return (points[chosen] - (low + high) / 2) / max(float((high - low).max()), 1e-9)

    def check(self, path: Path, size: Sequence[int]) -> None:
        """Refuse what has too few points."""
        count = count_points(path)
        if count < size[0]:
            raise LuminaError(
                f"{path} has {count} points, and {size[0]} are needed",
                hint="ask for fewer, or draw more from its surface",
            )

    def open(self, autoencoder: Path, device: torch.device) -> PointCodec:
        """There is nothing to load."""
        return PointCodec()

    def scaling(self, autoencoder: Path) -> Scaling:
        """The codec has scaled already."""
        return Scaling()

    def network(self, autoencoder: Path, size: Sequence[int]) -> dict[str, Any]:
        """One token a point, features to read, and no rotary positions."""
        return {
            "sample_size": TRAINED_POINTS,
            "patch_size": 1,
            "in_channels": FEATURES,
            "out_channels": 3,
            "learn_sigma": False,
            "rope_axes": (0, 0, 0),
        }

    def grid(self, autoencoder: Path, size: Sequence[int]) -> tuple[int, ...]:
        """The points."""
        return (size[0],)

    def draw_noise(
        self, latents: Float[Tensor, "3 n"], generator: torch.Generator
    ) -> Float[Tensor, "3 n"]:
        """Noise in the order that brings it nearest to the points."""
        noise = torch.randn(latents.shape, generator=generator)
        return torch.from_numpy(pair_noise(noise.mT.numpy(), latents.mT.numpy())).mT

    def enter(
        self, x: Float[Tensor, "b 3 n"], times: Float[Tensor, " b"], hints: None = None
    ) -> Float[Tensor, "b channels n"]:
        """Features of each point."""
        return features(x.mT, times, x.shape[-1]).mT

    def positions(self, network: Any, x: Tensor) -> dict[str, Any]:
        """There are none; in large clouds all attend to a few, unless processes share the points.

        Scores are about those of all points, since those that attention sees are a fair sample.
        """
        is_shared = getattr(network, "_parallel_config", None) is not None
        return {} if x.shape[-1] <= KEYS or is_shared else {"attend": attend_to_few}

    def show(self, medium: Float[np.ndarray, "n 3"], *, small: bool = True) -> Image.Image:
        """A picture of the cloud."""
        return draw_points(medium, side=128) if small else draw_points(medium)


MODALITY = PointModality()
