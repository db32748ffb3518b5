"""How rotary positions are read on grids larger than those of training."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from lumina.errors import UnknownNameError
from lumina.requests import EXTRAPOLATIONS

PerAxis = float | tuple[float, ...]
"""One number for all axes, or one for each: frames, rows and columns."""

WATERSHED = 0.3
"""The time from which the released sampler scales by NTK instead of linearly."""

YARN_SLOW, YARN_FAST = 1.0, 32.0
"""Turns on the trained grid below which YaRN interpolates, and above which it does not."""


class RopeScaling(NamedTuple):
    """What changes the frequencies of rotations, and the scores of attention with them.

    Args:
        linear: Divides positions, to fit a larger grid in the range known from training.
        ntk: Multiplies `theta`, which stretches low frequencies and keeps high ones.
        floor: Keeps frequencies from falling below those that `linear=floor` gives.
        kept_above: Patches of the trained grid. Frequencies that turn often on it stay what they
            are without any scaling, as YaRN has it.
        attention: Factor on the scores of attention to tokens.
    """

    linear: PerAxis = 1.0
    ntk: PerAxis = 1.0
    floor: PerAxis | None = None
    kept_above: PerAxis | None = None
    attention: float = 1.0


UNSCALED = RopeScaling()


def extrapolate(
    method: str,
    *,
    scale: PerAxis,
    length: PerAxis,
    head_width: int,
    theta: float = 10000.0,
    time: float = 1.0,
    watershed: float = WATERSHED,
) -> RopeScaling:
    """The scaling of a method.

    Args:
        method: "none"; "linear" (position interpolation); "ntk", as the original code has it;
            "watershed", which changes from "linear" to "ntk" at one time; "frequency-aware" and
            "time-aware" of the paper; "yarn".
        scale: How many times longer the grid is than that of training. The last three leave axes
            alone that are shorter; the others squeeze those.
        length: Patches of an axis in training.
        head_width: Channels of a head.
        theta: As in `rope_table`.
        time: Between 0 (noise) and 1 (data).
        watershed: From which time "watershed" is NTK.

    Raises:
        UnknownNameError: If there is no such method.

    Source:
        Lumina-Next, arXiv:2406.18583, section 2.3; YaRN, arXiv:2309.00071.
    """
    if method not in EXTRAPOLATIONS:
        raise UnknownNameError.among(EXTRAPOLATIONS, method, kind="extrapolation")
    if method == "none":
        return UNSCALED
    if method == "watershed":
        method = "linear" if time < watershed else "ntk"
    if method == "linear":
        return RopeScaling(linear=scale)
    if method == "ntk":
        return RopeScaling(ntk=scale)
    larger = _each(lambda s: max(1.0, s), scale)
    if method == "yarn":
        return RopeScaling(linear=larger, kept_above=length, attention=_yarn_attention(larger))
    if method == "time-aware":
        ntk = _each(lambda s: time_aware_ntk(s, time, head_width=head_width), larger)
    else:
        ntk = _each(lambda s, n: frequency_aware_ntk(s, length=n, theta=theta), larger, length)
    return RopeScaling(ntk=ntk, floor=larger)


def frequency_aware_ntk(scale: float, *, length: float, theta: float = 10000.0) -> float:
    """Factor `ntk` that fits the wave which is as long as the trained grid, and slower ones more.

    Args:
        scale: How many times longer an axis is than in training.
        length: Patches of an axis in training. No wave fits into 2 pi or fewer: then all that a
            floor allows is stretched.
        theta: As in `rope_table`.

    Source:
        Frequency-aware scaled RoPE of Lumina-Next, arXiv:2406.18583, section 2.3, which goes with
        `floor=scale`; the original code (`ntk_v2` in visual_anagrams/models/nextdit.py) has none.
    """
    if scale == 1 or length <= 2 * math.pi:
        return 1.0 if scale == 1 else float("inf")
    return scale ** (math.log(theta) / math.log(length / (2 * math.pi)))


def time_aware_ntk(scale: float, time: float, *, head_width: int) -> float:
    """Factor `ntk` that goes from linear interpolation at noise to NTK scaling at data.

    Args:
        scale: How many times longer an axis is than in training.
        time: Between 0 (noise) and 1 (data).
        head_width: Channels of a head.

    Source:
        Time-aware scaled RoPE of Lumina-Next, arXiv:2406.18583, section 2.3, which goes with
        `floor=scale` (`ntk_v3` in visual_anagrams/models/nextdit.py of the original code).
    """
    return scale ** (head_width / (time * (head_width - 1) + 1))


def yarn_share(
    frequencies: Float[Tensor, " half"], length: float | Float[Tensor, " half"]
) -> Float[Tensor, " half"]:
    """How much of each frequency YaRN keeps: 0 for slow waves, 1 for fast ones."""
    turns = length * frequencies / (2 * torch.pi)
    return ((turns - YARN_SLOW) / (YARN_FAST - YARN_SLOW)).clamp(0, 1)


def _yarn_attention(scale: PerAxis) -> float:
    """Factor on scores: YaRN multiplies queries and keys by the root of it each."""
    factors = [scale] if isinstance(scale, float | int) else scale
    # As many times more tokens as the axes together are longer, counted as one axis of a square.
    mean = math.prod(factors) ** (1 / max(1, sum(factor != 1 for factor in factors)))
    return (0.1 * math.log(mean) + 1) ** 2


def _each(compute: Callable[..., float], *values: PerAxis) -> Any:
    """Compute once if all numbers hold for all axes, else for each axis."""
    count = max((len(value) for value in values if isinstance(value, tuple)), default=0)
    if not count:
        return compute(*values)
    columns = [value if isinstance(value, tuple) else (value,) * count for value in values]
    return tuple(compute(*row) for row in zip(*columns, strict=True))
