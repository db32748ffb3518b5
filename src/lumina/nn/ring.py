"""Attention to tokens that processes share, by passing keys and values round a ring."""

import torch
import torch.distributed as dist
from jaxtyping import Bool, Float
from torch import Tensor

from lumina.types import Attend

QUERIES_AT_ONCE = 1024
"""How many queries have their scores in memory at a time."""


def ring_attend(group: dist.ProcessGroup | None = None) -> Attend:
    """Make an `Attend` for a model whose tokens are split evenly among processes.

    Each process has the queries, keys and values of its own tokens. Keys and values travel from
    process to process, and the values that each block of them gives are merged by the sums of
    their exponentials, which is attention to all tokens at once.

    Keys that are not as many as the queries are text, which every process has whole, and stay
    where they are. (Text of just as many tokens travels too, and nothing changes: a softmax over
    copies of the same keys is that over one.)

    Masks cover the tokens of all processes in order, or the text. There is no backward pass.

    Args:
        group: The processes, in the order of their tokens. None: all.

    Source:
        Ring attention, arXiv:2310.01889.
    """

    def attend(
        query: Float[Tensor, "b n h k"],
        key: Float[Tensor, "b m g k"],
        value: Float[Tensor, "b m g k"],
        *,
        mask: Bool[Tensor, "b 1 #n all"] | None = None,
        scale: float | None = None,
    ) -> Float[Tensor, "b n h k"]:
        if torch.is_grad_enabled() and query.requires_grad:
            raise ValueError("ring attention has no backward pass; call it under torch.no_grad()")
        factor = query.shape[-1] ** -0.5 if scale is None else scale
        travels = key.shape[1] == query.shape[1]
        processes = dist.get_world_size(group) if travels else 1
        rank = dist.get_rank(group) if travels else 0
        masks = _blocks_of(mask, key.shape[1], processes)

        block = torch.stack([key, value])
        arriving, works = _pass_on(block, group) if processes > 1 else (block, [])
        values, sums = _attend_to_block(query, key, value, masks[rank], factor)
        for step in range(1, processes):
            for work in works:
                work.wait()
            block = arriving
            arriving, works = _pass_on(block, group) if step < processes - 1 else (block, [])
            key, value = block.unbind()
            owner = (rank - step) % processes
            more = _attend_to_block(query, key, value, masks[owner], factor)
            values, sums = _merge(values, sums, *more)
        return values.transpose(1, 2).to(query.dtype)

    return attend


def _blocks_of(
    mask: Bool[Tensor, "b 1 #n all"] | None, keys: int, processes: int
) -> list[Tensor] | list[None]:
    """The part of a mask for the keys of each process."""
    if mask is None:
        return [None] * processes
    if mask.shape[-1] == keys:
        return [mask] * processes
    return list(mask.split(keys, dim=-1))


def _pass_on(block: Tensor, group: dist.ProcessGroup | None) -> tuple[Tensor, list[dist.Work]]:
    """Begin to send a block to the next process, and to receive that of the one before."""
    processes, rank = dist.get_world_size(group), dist.get_rank(group)
    arriving = torch.empty_like(block)
    works = dist.batch_isend_irecv(
        [
            dist.P2POp(dist.isend, block, group=group, group_peer=(rank + 1) % processes),
            dist.P2POp(dist.irecv, arriving, group=group, group_peer=(rank - 1) % processes),
        ]
    )
    return arriving, works


def _attend_to_block(
    query: Float[Tensor, "b n h k"],
    key: Float[Tensor, "b m g k"],
    value: Float[Tensor, "b m g k"],
    mask: Bool[Tensor, "b 1 #n m"] | None,
    scale: float,
) -> tuple[Float[Tensor, "b h n k"], Float[Tensor, "b h n 1"]]:
    """Values in float32, and the logarithm of the sum of exponentials of each query's scores."""
    repeats = query.shape[2] // key.shape[2]
    key, value = (x.repeat_interleave(repeats, dim=2).transpose(1, 2).float() for x in (key, value))
    queries = query.transpose(1, 2).float().split(QUERIES_AT_ONCE, dim=2)
    rows = [None] * len(queries)
    if mask is not None:
        rows = mask.expand(-1, -1, query.shape[1], -1).split(QUERIES_AT_ONCE, dim=2)
    parts = []
    for part, seen in zip(queries, rows, strict=True):
        scores = part @ key.mT * scale
        if seen is not None:
            scores = scores.masked_fill(~seen, float("-inf"))
        sums = scores.logsumexp(-1, keepdim=True)
        parts.append(((scores - _finite(sums)).exp() @ value, sums))
    values, sums = zip(*parts, strict=True)
    return torch.cat(values, dim=2), torch.cat(sums, dim=2)


def _merge(
    values: Float[Tensor, "b h n k"],
    sums: Float[Tensor, "b h n 1"],
    more_values: Float[Tensor, "b h n k"],
    more_sums: Float[Tensor, "b h n 1"],
) -> tuple[Float[Tensor, "b h n k"], Float[Tensor, "b h n 1"]]:
    """Values of attention to two blocks together."""
    total = torch.logaddexp(sums, more_sums)
    share, more_share = ((part - _finite(total)).exp() for part in (sums, more_sums))
    return values * share + more_values * more_share, total


def _finite(sums: Float[Tensor, "b h n 1"]) -> Float[Tensor, "b h n 1"]:
    """A block may have no key that a query sees, and then a sum of 0."""
    return sums.clamp(min=torch.finfo(sums.dtype).min)
