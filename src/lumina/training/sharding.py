"""More than one process: which of them there are, and how they share a network and its data."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate

from lumina.errors import LuminaError

Batch = TypeVar("Batch", bound=tuple[Any, ...])
Result = TypeVar("Result")


@dataclass(frozen=True)
class Share:
    """The part of each batch that a process takes."""

    number: int = 0
    count: int = 1

    def of(self, samples: int) -> slice:
        """Which of a number of samples are this process's.

        Raises:
            LuminaError: If they cannot be shared evenly.
        """
        if samples % self.count:
            raise LuminaError(
                f"{samples} samples cannot be shared evenly by {self.count} processes",
                hint="choose a batch_size that they divide",
            )
        size = samples // self.count
        return slice(self.number * size, (self.number + 1) * size)

    def take(self, batch: Batch) -> Batch:
        """This process's rows of a batch, which is a tuple of tensors."""
        if self.count == 1:
            return batch
        rows = self.of(len(batch[0]))
        return type(batch)(*(part[rows] for part in batch))


ALONE = Share()


@contextmanager
def processes(device: torch.device) -> Iterator[Share]:
    """Join the processes that a launcher such as torchrun started, if it did.

    Yields:
        The share of this process.
    """
    if "WORLD_SIZE" not in os.environ or dist.is_initialized():
        yield own_share()
        return
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    # One process encodes all data while the others wait.
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=timedelta(days=1))
    try:
        yield own_share()
    finally:
        dist.destroy_process_group()


def own_share(*, together: int = 1) -> Share:
    """The share of this process among those that are joined.

    Args:
        together: How many neighbouring processes take the same share, since they share its tokens.
    """
    if not dist.is_initialized():
        return ALONE
    return Share(dist.get_rank() // together, dist.get_world_size() // together)


def shard(module: nn.Module, device: torch.device, *, replicas: int = 1) -> None:
    """Spread the weights of a module, block by block, over all joined processes.

    Args:
        module: With its blocks in `layers`, if it has such.
        device: Where the weights are.
        replicas: How many groups of processes hold all weights each (HSDP). 1 spreads them over
            all processes.

    Raises:
        LuminaError: If the processes do not divide into that many groups.
    """
    count = dist.get_world_size()
    if count % replicas:
        raise LuminaError(
            f"{count} processes do not divide into {replicas} replicas",
            hint="choose replicas that divide the number of processes",
        )
    shape = (count,) if replicas == 1 else (replicas, count // replicas)
    names = ("shard",) if replicas == 1 else ("replicate", "shard")
    mesh = init_device_mesh(device.type, shape, mesh_dim_names=names)
    blocks: Any = getattr(module, "layers", ())
    for block in blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(module, mesh=mesh)


def in_turn(make: Callable[[], Result]) -> Result:
    """What `make` gives, in the first process before the others, who find its files."""
    if not dist.is_initialized():
        return make()
    is_first = dist.get_rank() == 0
    result = make() if is_first else None
    dist.barrier()
    return make() if result is None else result


def mean_over_processes(value: Float[Tensor, ""]) -> float:
    """The mean of a number over all processes."""
    if not dist.is_initialized():
        return value.item()
    total = value.detach().double()
    dist.all_reduce(total)
    return total.item() / dist.get_world_size()


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor that processes share; every one of them has to ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def shared_like(values: Tensor, like: Tensor) -> Tensor:
    """This process's part of values that all of them know, shared as another tensor is."""
    if not isinstance(like, DTensor):
        return values
    known = DTensor.from_local(values, like.device_mesh, [Replicate()] * like.device_mesh.ndim)
    return known.redistribute(placements=like.placements)
