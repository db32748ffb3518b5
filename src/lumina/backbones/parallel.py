"""Processes that share the tokens of one sample, as diffusers' `enable_parallelism` sets it up."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from diffusers import ContextParallelConfig, FirstBlockCacheConfig, ParallelConfig
from diffusers.models._modeling_parallel import ContextParallelInput, ContextParallelOutput
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh

from lumina.errors import LuminaError
from lumina.nn.ring import RingAttend

CONTEXT_PARALLEL_PLAN = {
    "token_split": {
        0: ContextParallelInput(split_dim=1, split_output=True),
        1: ContextParallelInput(split_dim=-3, split_output=True),
    },
    "norm_out": ContextParallelOutput(gather_dim=1),
}
"""Where diffusers splits tokens among processes, and where it puts them together again."""


class TokenSplit(nn.Module):
    """Where diffusers splits tokens and their rotations. By itself it passes them on."""

    def forward(
        self, tokens: Float[Tensor, "b n d"], rope: Float[Tensor, "*b n half 2"]
    ) -> tuple[Float[Tensor, "b n d"], Float[Tensor, "*b n half 2"]]:
        """Return both as they are."""
        return tokens, rope


def check_context_parallel(config: ContextParallelConfig, *, heads: int, cache: object) -> None:
    """Refuse ways of sharing tokens that cannot work.

    Args:
        config: The way.
        heads: Heads of the queries.
        cache: Settings of the step cache in use, if there is one.

    Raises:
        LuminaError: If they cannot.
    """
    degree = config.ulysses_degree or 1
    if heads % degree and not config.ulysses_anything:
        raise LuminaError(
            f"ulysses_degree is {degree}, and {heads} heads cannot be split evenly by it",
            hint="use a divisor of the heads, ring_degree, or ulysses_anything=True",
        )
    ring = config.ring_degree or 1
    if degree > 1 and ring > 1:
        # Diffusers would ask its kernel for the sums of the scores, which that cannot return.
        raise LuminaError(
            f"ulysses_degree is {degree} and ring_degree is {ring}, and tokens can be"
            " shared in one of these ways at a time",
            hint=f"set one of them to {degree * ring}, and leave the other out",
        )
    if config.ring_anything:
        raise LuminaError(
            "ring_anything is set, and the ring here takes even parts of the tokens alone",
            hint="leave it out, or use ulysses_degree with ulysses_anything=True",
        )
    if isinstance(cache, FirstBlockCacheConfig):
        # Each process would compare tokens of its own, and wait for another that goes on.
        raise LuminaError(
            "FirstBlockCacheConfig is enabled, and cannot decide for processes that share tokens",
            hint="disable_cache() first, or use another cache",
        )


def check_attends_share(attends: Sequence[object], config: ParallelConfig | None) -> None:
    """Refuse attention that would see the tokens of one process alone, and not say so.

    Args:
        attends: What was given for the tokens of each block. None: the model's own.
        config: How processes share the tokens. None: not at all.

    Raises:
        LuminaError: If one of them is made for all tokens, and a process has a part.
    """
    if config is None or config.context_parallel_config is None:
        return
    if any(attend is not None and not isinstance(attend, RingAttend) for attend in attends):
        raise LuminaError(
            "processes share the tokens, and the attention that was given sees a part of them",
            hint="leave attend out, or give a RingAttend",
        )


def share_tokens(module: Any, device: torch.device, *, processes: int, way: str) -> None:
    """Let neighbouring processes work on tokens of the same samples.

    All joined processes make groups of as many. Processes of a group have to be given the same
    batch. Each gets the same output and the gradient by its own tokens: those of a group, added
    up, are the gradient.

    Args:
        module: The network.
        device: Where its weights are.
        processes: How many make a group.
        way: "ulysses", where each takes some heads of all tokens, or "ring".

    Raises:
        LuminaError: If the network cannot share tokens, the processes do not divide into such
            groups, or heads not among a group.
    """
    if getattr(module, "_cp_plan", None) is None:
        raise LuminaError(
            f"{type(module).__name__} has no tokens that processes could share",
            hint="set context_parallel=1",
        )
    total = dist.get_world_size() if dist.is_initialized() else 1
    if total % processes:
        raise LuminaError(
            f"{total} processes do not divide into groups of {processes} that share tokens",
            hint="choose a context_parallel that divides the number of processes",
        )
    shape = (processes, 1) if way == "ring" else (1, processes)
    mesh = init_device_mesh(
        device.type, (total // processes, *shape), mesh_dim_names=("data", "ring", "ulysses")
    )
    config = ContextParallelConfig(mesh=mesh, ring_degree=shape[0], ulysses_degree=shape[1])
    module.enable_parallelism(config=config)


def check_shares(tokens: int, config: ParallelConfig | None) -> None:
    """Refuse tokens that processes cannot share.

    Args:
        tokens: How many each sample has, padding included.
        config: How they are shared. None: not at all.

    Raises:
        LuminaError: If they do not divide evenly among the processes, and have to.
    """
    context = None if config is None else config.context_parallel_config
    if context is None or context.ulysses_anything:
        return
    processes = (context.ring_degree or 1) * (context.ulysses_degree or 1)
    if tokens % processes:
        raise LuminaError(
            f"{tokens} tokens do not divide evenly among {processes} processes",
            hint="use a picture of another size, another number of processes, or"
            " ulysses_anything=True",
        )


def set_up_on_cpu(config: ParallelConfig | ContextParallelConfig) -> ParallelConfig:
    """Make the mesh of processes where there is no accelerator to count devices of.

    Diffusers takes the number of a process modulo that of accelerators, which is 0.
    """
    if isinstance(config, ContextParallelConfig):
        config = ParallelConfig(context_parallel_config=config)
    context = config.context_parallel_config
    if context is None:
        raise LuminaError(
            "parallelism on a CPU needs a ContextParallelConfig",
            hint="use ContextParallelConfig(ulysses_degree=2), or an accelerator",
        )
    mesh = context.mesh or init_device_mesh(
        "cpu", context.mesh_shape, mesh_dim_names=context.mesh_dim_names
    )
    config.setup(dist.get_rank(), dist.get_world_size(), torch.device("cpu"), mesh=mesh)
    return config
