"""How much of a machine a run uses: floating-point operations against the measured peak."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.utils.flop_counter import FlopCounterMode

PASSES = 3
"""A step costs as much as three forward passes: the backward pass counts for two."""

_LEAST_SIDE, _SIDE = 256, 1024
_ROUNDS = 10
_PATIENCE = 0.2  # seconds that a product may take


class Meter:
    """Counts the operations of the first forward pass, of which later ones are copies."""

    def __init__(self) -> None:
        self.forward = 0

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Count what is computed inside, the first time."""
        if self.forward:
            yield
            return
        with FlopCounterMode(display=False) as counter:
            yield
        self.forward = counter.get_total_flops()


def matmul_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Operations per second that products of large matrices reach here."""
    side = _LEAST_SIDE
    a = torch.randn(side, side, device=device, dtype=dtype)
    _product(a)  # warms up
    # Where numbers of a type are multiplied one by one, the largest would take a minute.
    while side < _SIDE and 8 * _timed(a) < _PATIENCE:
        side *= 2
        a = torch.randn(side, side, device=device, dtype=dtype)
        _product(a)
    seconds = min(_timed(a) for _ in range(_ROUNDS))
    return 2 * side**3 / seconds


def _timed(a: torch.Tensor) -> float:
    _wait(a.device)
    began = time.perf_counter()
    _product(a)
    _wait(a.device)
    return time.perf_counter() - began


def _product(a: torch.Tensor) -> None:
    torch.mm(a, a)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
