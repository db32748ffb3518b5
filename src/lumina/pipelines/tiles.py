"""Run convolutions and norms on a large picture tile by tile, with what the whole would give.

Two things make a tile differ from the same place in the whole: it is cut off from its surroundings,
and norms see no more than it. So each tile is computed with all that its layers can see around it,
which is cut off again. And the statistics of each norm are measured over all tiles before anything
behind it runs, which takes one more pass over the tiles, from the latest activation that was kept.
What fits the memory is kept. So more memory is less time, and the result is the same.
"""

import ctypes
import itertools
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

KEPT_FRACTION = 0.35
"""Of the memory: what a kept activation may take. While the next is made there are two of them, and
tiles take the rest."""

WORKING_COPIES = 4
"""How often the largest activation of a layer is in memory: as it comes in, normalised, activated,
and as it goes out. The shipped autoencoder takes 3 to 12 % more (`benchmarks/tiling.py`)."""

SMALLEST_SIDE = 64
"""Of a tile, in pixels of what comes out. Smaller ones would be mostly surroundings."""

TILES_BETWEEN_TRIMS = 4
"""On a CPU. A trim after every tile costs half as much time again, and saves little more."""

State = tuple[Tensor, ...]
"""What goes from step to step: the latest activation last, before it what is added to it later."""

Place = tuple[slice, slice]
"""Rows and columns of a tile."""

Normalise = Callable[[nn.GroupNorm, Tensor], Tensor]


@dataclass(frozen=True)
class Step:
    """A convolution of 3x3 with all that comes before it, back to the convolution before.

    Args:
        run: Computes it. A norm is not called, but given to the function that it gets.
        widths: Channels of each activation in the state that comes out.
        widest: Channels of its largest activation, had that the size of what comes out.
        norm: What the last activation of the state is normalised with.
        scale: How many times as long the sides come out: 1, 2 or 0.5.
    """

    run: Callable[[State, Normalise], State]
    widths: tuple[int, ...]
    widest: int
    norm: nn.GroupNorm | None = None
    scale: float = 1

    def seen(self, start: int, end: int) -> tuple[int, int]:
        """The stretch of its input that a stretch of its output depends on."""
        if self.scale == 2:
            return (start - 1) // 2, end // 2 + 1
        if self.scale == 0.5:
            return 2 * start - 1, 2 * end + 1
        return start - 1, end + 1


class Affine(NamedTuple):
    """What a norm does to an activation, once its statistics are known."""

    scale: Float[Tensor, "b c 1 1"]
    shift: Float[Tensor, "b c 1 1"]

    def apply(self, x: Float[Tensor, "b c rows cols"]) -> Float[Tensor, "b c rows cols"]:
        """Scale and shift, in float32."""
        return (x * self.scale).add_(self.shift).to(x.dtype)


def run_in_tiles(
    steps: Sequence[Step], x: Float[Tensor, "b c rows cols"], *, memory: float
) -> Float[Tensor, "b out_channels out_rows out_cols"]:
    """Run steps tile by tile, with what the whole would give.

    Args:
        steps: What to run.
        x: Where to begin.
        memory: Bytes for tiles and kept activations, beside `x` and what comes out. What working
            on one of those takes is the least.
    """
    ends = max(x.nbytes, _state_bytes(steps, x))
    memory = max(memory, WORKING_COPIES * ends)
    kept: State = (x,)
    pending: list[Step] = []
    affines: dict[nn.GroupNorm, Affine] = {}
    tiles = partial(_tiles, affines=affines, memory=memory * (1 - 2 * KEPT_FRACTION))
    for step in steps:
        if step.norm is not None:
            parts = (state[-1] for _, state in tiles(pending, kept))
            affines[step.norm] = _as_affine(step.norm, parts)
        pending.append(step)
        fits = _state_bytes(pending, kept[0]) <= memory * KEPT_FRACTION
        if fits or step is steps[-1]:
            kept = _join(tiles(pending, kept), _size_after(pending, kept[0]))
            pending = []
    return kept[-1]


def whole_bytes(steps: Sequence[Step], x: Float[Tensor, "b c rows cols"]) -> int:
    """What it takes to run steps on the whole, in bytes."""
    return _working_bytes(steps, x, max(_size_after(steps, x)))


def _tiles(
    steps: Sequence[Step],
    source: State,
    *,
    affines: dict[nn.GroupNorm, Affine],
    memory: float,
) -> Iterator[tuple[Place, State]]:
    """What steps make of a source, tile by tile."""
    rows, cols = _size_after(steps, source[0])
    side = max(rows, cols)
    while side > SMALLEST_SIDE and _working_bytes(steps, source[-1], side) > memory:
        side = math.ceil(side / 2)
    places = itertools.product(_stretches(rows, side), _stretches(cols, side))
    for index, place in enumerate(places):
        yield place, _run_tile(steps, source, place, affines)
        if index % TILES_BETWEEN_TRIMS == 0:
            _trim_heap()


def _run_tile(
    steps: Sequence[Step],
    source: State,
    place: Place,
    affines: dict[nn.GroupNorm, Affine],
) -> State:
    """Compute one tile with its surroundings, and cut them off."""
    rows, cols = map(partial(_surroundings, steps), place, source[0].shape[2:])
    state = tuple(x[:, :, rows, cols] for x in source)
    for step in steps:
        state = step.run(state, lambda norm, x: affines[norm].apply(x))
    scale = math.prod(step.scale for step in steps)
    top, left = int(rows.start * scale), int(cols.start * scale)
    rows, cols = (
        slice(part.start - edge, part.stop - edge)
        for part, edge in zip(place, (top, left), strict=True)
    )
    return tuple(x[:, :, rows, cols] for x in state)


def _surroundings(steps: Sequence[Step], part: slice, size: int) -> slice:
    """The part of a source that steps need for a part of what they make of it.

    Args:
        steps: What is run.
        part: Rows or columns of what comes out.
        size: All rows or columns of the source.
    """
    start, end = part.start, part.stop
    for step in reversed(steps):
        start, end = step.seen(start, end)
    # A convolution that halves takes every other row from the first one on, which must be one
    # that it takes in the whole.
    stride = max(1, round(1 / math.prod(step.scale for step in steps)))
    return slice(max(0, start // stride * stride), min(size, end))


def _stretches(size: int, side: int) -> Iterator[slice]:
    """Parts of a length, as equal as can be, none longer than a side."""
    count = math.ceil(size / side)
    edges = [size * index // count for index in range(count + 1)]
    return map(slice, edges[:-1], edges[1:])


def _join(tiles: Iterator[tuple[Place, State]], size: tuple[int, int]) -> State:
    """Put tiles together to a whole of a size."""
    whole: State = ()
    for (rows, cols), state in tiles:
        whole = whole or tuple(x.new_empty(*x.shape[:2], *size) for x in state)
        for x, tile in zip(whole, state, strict=True):
            x[:, :, rows, cols] = tile
    return whole


def _trim_heap() -> None:
    """Give freed memory back to the system, where the C library waits to be told.

    The blocks of a tile have many sizes, and glibc keeps so many gaps between them that a process
    grows to about twice what it uses.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:  # musl has none
            trim(0)


def _as_affine(norm: nn.GroupNorm, parts: Iterator[Float[Tensor, "b c rows cols"]]) -> Affine:
    """A norm with the statistics of a picture in parts.

    The variance is that inside of parts and that between their means, which loses no digits to a
    difference of large sums.
    """
    counts, variances, means = [], [], []
    for part in parts:
        groups = part.float().unflatten(1, (norm.num_groups, -1)).flatten(2)
        variance, mean = torch.var_mean(groups, dim=-1, correction=0)
        counts.append(groups.shape[-1])
        variances.append(variance)
        means.append(mean)
    shares = torch.tensor(counts, device=means[0].device)[:, None, None] / sum(counts)
    mean = (shares * torch.stack(means)).sum(0)
    between = (torch.stack(means) - mean).square()
    variance = (shares * (torch.stack(variances) + between)).sum(0)

    weight, bias = _weight_and_bias(norm)
    channels = norm.num_channels // norm.num_groups
    mean, variance = (x.repeat_interleave(channels, dim=1) for x in (mean, variance))
    scale = weight * (variance + norm.eps).rsqrt()
    shift = bias - mean * scale
    return Affine(scale[:, :, None, None], shift[:, :, None, None])


NEAR = 2.0**-6
"""How far bfloat16 may be from a number, with room for a sum."""


def _weight_and_bias(norm: nn.GroupNorm) -> tuple[Float[Tensor, " c"], Float[Tensor, " c"]]:
    """Weights of a norm, in float32."""
    # Those that are offloaded are nowhere but in a call, and what is there meanwhile is anything.
    ones = torch.ones(norm.num_channels, device=norm.weight.device, dtype=norm.weight.dtype)
    low, high = norm(torch.stack([-ones, ones], dim=-1)[None])[0].float().unbind(-1)
    weight, bias = (high - low) / 2 * math.sqrt(1 + norm.eps), (high + low) / 2
    if norm.weight.device.type == "meta":
        return weight, bias
    # A call rounds to the dtype of the weights, so they are read where they are what it shows.
    own, own_bias = norm.weight.float(), norm.bias.float()
    are_there = torch.allclose(own_bias + own, high, rtol=NEAR, atol=NEAR) and torch.allclose(
        own_bias - own, low, rtol=NEAR, atol=NEAR
    )
    return (own, own_bias) if are_there else (weight, bias)


def _size_after(steps: Sequence[Step], x: Float[Tensor, "b c rows cols"]) -> tuple[int, int]:
    """Rows and columns of what steps make of an activation."""
    rows, cols = x.shape[2:]
    for step in steps:
        rows, cols = int(rows * step.scale), int(cols * step.scale)
    return rows, cols


def _state_bytes(steps: Sequence[Step], x: Float[Tensor, "b c rows cols"]) -> int:
    """What the state after some steps takes."""
    return math.prod(_size_after(steps, x)) * sum(steps[-1].widths) * len(x) * x.element_size()


def _working_bytes(steps: Sequence[Step], x: Float[Tensor, "b c rows cols"], side: int) -> int:
    """What it takes to make one tile, of which a square of a side comes out."""
    start, end = 0, side
    most = 0
    for index in reversed(range(len(steps))):
        rows, cols = _size_after(steps[: index + 1], x)
        most = max(most, steps[index].widest * min(end - start, rows) * min(end - start, cols))
        start, end = steps[index].seen(start, end)
    rows, cols = x.shape[2:]
    most = max(most, x.shape[1] * min(end - start, rows) * min(end - start, cols))
    return WORKING_COPIES * most * len(x) * x.element_size()
