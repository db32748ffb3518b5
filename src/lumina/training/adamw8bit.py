"""AdamW that keeps its two averages in 8 bits each, instead of 32.

The codes of an average have the shape of the weight, and the scales of its blocks the same rows, so
that both are divided among processes as the weight is: any number of them resumes a run with the
same bits.
"""

import math
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.distributed.tensor import zeros as shared_zeros

BLOCK = 256
"""Numbers that share a scale, where rows divide into so many; else a whole row does."""

# Fractions of two irrational numbers: their multiples fill [0, 1) evenly, without chance.
# Source: the plastic number, for two dimensions; M. Roberts, "The unreasonable effectiveness of
# quasirandom sequences" (2018).
ALONG_ROWS, ALONG_STEPS = 0.7548776662466927, 0.5698402909980532


class Code(NamedTuple):
    """How numbers in [-1, 1] become codes: by evenly spaced roots, which keep small ones apart.

    Args:
        dtype: Of the codes.
        largest: Code of 1.
        root: Which root is spaced evenly.
    """

    dtype: torch.dtype
    largest: int
    root: int


MEAN = Code(torch.int8, 127, 2)
"""Of averaged gradients: from 1 to 1/16,000 of the largest of a block."""

SQUARE = Code(torch.uint8, 255, 4)
"""Of averaged squares, which span twice as many magnitudes: from 1 to 2e-10."""

AVERAGES = {"mean": MEAN, "square": SQUARE}


class AdamW8bit(torch.optim.Optimizer):
    """AdamW whose averages take 2 bytes of each number of a weight, and the scales of blocks.

    Vectors keep theirs in float32. Rounding goes up or down in turns, so that an average moves even
    where a step changes it by less than a code.

    Args:
        parameters: Weights, or groups of them.
        lr: Learning rate.
        betas: Memory of the average of gradients, and of that of their squares.
        eps: Added to the root of the average of squares.
        weight_decay: Decoupled decay per step and unit of learning rate.

    Source:
        Decoupled Weight Decay Regularization, arXiv:1711.05101. Averages by blocks in codes of 8
        bits, and the update from what is not rounded yet: arXiv:2110.02861; the codes are our own.
    """

    def __init__(
        self,
        parameters: list[Any],
        *,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ):
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(parameters, defaults)
        self.register_load_state_dict_post_hook(_restore_types)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Update every weight that has a gradient."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._update(weight, group)

    def _update(self, weight: nn.Parameter, group: dict[str, Any]) -> None:
        state = self.state[weight]
        if not state:
            state |= _empty_state(weight)
        state["step"] += 1
        step, (memory, memory_of_squares) = int(state["step"]), group["betas"]
        gradient = _own(weight.grad).float()
        mean, square = _read(state, "mean"), _read(state, "square")
        mean = mean.lerp(gradient, 1 - memory)
        square = square.lerp(gradient.square(), 1 - memory_of_squares)
        _write(state, "mean", mean, step)
        _write(state, "square", square, step)
        spread = (square / (1 - memory_of_squares**step)).sqrt_().add_(group["eps"])
        rate = group["lr"] / (1 - memory**step)
        own = _own(weight)
        own.mul_(1 - group["lr"] * group["weight_decay"])
        own.add_((mean / spread).to(own.dtype), alpha=-rate)


def pack(
    values: Float[Tensor, "rows cols"], code: Code, *, step: int
) -> tuple[Integer[Tensor, "rows cols"], Float[Tensor, "rows blocks"]]:
    """Codes of numbers, and the largest of each block.

    Args:
        values: Numbers; none is below 0 where codes have no sign.
        code: How they are coded.
        step: Which numbers are rounded up. Over many steps a number is rounded up as often as it is
            far from the code below it.
    """
    blocks = values.unflatten(1, (-1, _block(values.shape[1])))
    scales = blocks.abs().amax(-1)
    sizes = blocks.abs() / scales.clamp(min=torch.finfo(torch.float32).tiny).unsqueeze(-1)
    roots = sizes.pow(1 / code.root).mul_(code.largest).flatten(1)
    numbers = torch.arange(values.shape[1], dtype=torch.float64)
    threshold = (numbers * ALONG_ROWS + step * ALONG_STEPS).frac().float().to(values.device)
    codes = (roots + threshold).floor_().clamp_(max=code.largest)
    if not code.dtype.is_signed:
        # An average of squares divides: one that became 0 would make a step of any size.
        codes = torch.where(values > 0, codes.clamp(min=1), codes)
    return (codes * values.sign()).to(code.dtype), scales


def unpack(
    codes: Integer[Tensor, "rows cols"], scales: Float[Tensor, "rows blocks"], code: Code
) -> Float[Tensor, "rows cols"]:
    """Numbers of codes."""
    parts = codes.float().div_(code.largest)
    sizes = parts.abs().pow_(code.root).mul_(parts.sign())
    blocks = sizes.unflatten(1, (-1, _block(codes.shape[1])))
    return (blocks * scales.unsqueeze(-1)).flatten(1)


def _empty_state(weight: Tensor) -> dict[str, Tensor]:
    state = {"step": torch.zeros(())}
    for name, code in AVERAGES.items():
        if weight.ndim < 2:
            state[name] = torch.zeros_like(weight, dtype=torch.float32)
            continue
        width = math.prod(weight.shape[1:])
        shape = (weight.shape[0], width // _block(width))
        state[name] = torch.zeros_like(weight, dtype=code.dtype)
        state[f"{name}_scales"] = _zeros_beside(weight, shape)
    return state


def _restore_types(optimizer: torch.optim.Optimizer) -> None:
    """Give loaded averages their types, for which PyTorch's optimizers take that of the weight.

    In float32, codes and scales are what they were.
    """
    for state in optimizer.state.values():
        for name, code in AVERAGES.items():
            if f"{name}_scales" in state:
                state[name] = state[name].to(code.dtype)
                state[f"{name}_scales"] = state[f"{name}_scales"].float()


def _zeros_beside(weight: Tensor, shape: tuple[int, int]) -> Tensor:
    """Zeros in rows that processes share as they share those of a weight."""
    if not isinstance(weight, DTensor):
        return torch.zeros(shape, device=weight.device)
    mesh, placements = weight.device_mesh, weight.placements
    return shared_zeros(shape, dtype=torch.float32, device_mesh=mesh, placements=placements)


def _read(state: dict[str, Tensor], name: str) -> Tensor:
    """An average, in float32 and the shape of the weight."""
    kept = _own(state[name])
    if f"{name}_scales" not in state:
        return kept
    return unpack(kept.flatten(1), _own(state[f"{name}_scales"]), AVERAGES[name]).view(kept.shape)


def _write(state: dict[str, Tensor], name: str, values: Tensor, step: int) -> None:
    kept = _own(state[name])
    if f"{name}_scales" not in state:
        kept.copy_(values)
        return
    codes, scales = pack(values.flatten(1), AVERAGES[name], step=step)
    kept.copy_(codes.view(kept.shape))
    _own(state[f"{name}_scales"]).copy_(scales)


def _own(tensor: Any) -> Tensor:
    """This process's part of a tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _block(width: int) -> int:
    return width if width % BLOCK else BLOCK
