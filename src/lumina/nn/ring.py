"""Attention to tokens that processes share, by passing keys and values round a ring."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import once_differentiable

QUERIES_AT_ONCE = 1024
"""How many queries have their scores in memory at a time."""


@dataclass(frozen=True)
class RingAttend:
    """An `Attend` for a model whose tokens are split evenly among processes.

    Each process has the queries, keys and values of its own tokens. Keys and values travel from
    process to process, and the values that each block of them gives are merged by the sums of
    their exponentials, which is attention to all tokens at once. In the backward pass they travel
    again, and the gradients of each block with them, until these are home. Neither pass ever has
    the scores of more than some queries in memory.

    Keys that are not as many as the queries are text, which every process has whole, and stay
    where they are. (Text of just as many tokens travels too, and nothing changes: a softmax over
    copies of the same keys is that over one.) Each process then has the gradient of the text by
    its own queries, as it has that of all weights: what all processes have is to be added up.

    Masks cover the tokens of all processes in order, or the text.

    Args:
        group: The processes, in the order of their tokens. None: all.

    Source:
        Ring attention, arXiv:2310.01889; the gradient by blocks is that of FlashAttention,
        arXiv:2205.14135, appendix B.2.
    """

    group: dist.ProcessGroup | None = None

    def __call__(
        self,
        query: Float[Tensor, "b n h k"],
        key: Float[Tensor, "b m g k"],
        value: Float[Tensor, "b m g k"],
        *,
        mask: Bool[Tensor, "b 1 #n all"] | None = None,
        scale: float | None = None,
    ) -> Float[Tensor, "b n h k"]:
        """Attend to the tokens of all processes."""
        factor = query.shape[-1] ** -0.5 if scale is None else scale
        travels = key.shape[1] == query.shape[1]
        processes = dist.get_world_size(self.group) if travels else 1
        masks = _blocks_of(mask, key.shape[1], processes)
        values = _Ring.apply(query, key, value, masks, factor, self.group)
        return values.transpose(1, 2).to(query.dtype)


class _Ring(torch.autograd.Function):
    """Attention to as many blocks as there are masks, in float32 at least."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Float[Tensor, "b n h k"],
        key: Float[Tensor, "b m g k"],
        value: Float[Tensor, "b m g k"],
        masks: list[Tensor] | list[None],
        scale: float,
        group: dist.ProcessGroup | None,
    ) -> Float[Tensor, "b h n k"]:
        ctx.masks, ctx.scale, ctx.group = masks, scale, group
        values: Any = None
        sums: Any = None
        with torch.autocast(query.device.type, enabled=False):
            for owner, block in _travel(torch.stack([key, value]), len(masks), group):
                keys, its_values = block.unbind()
                more = _attend_to_block(query, keys, its_values, masks[owner], scale)
                values, sums = more if values is None else _merge(values, sums, *more)
        ctx.save_for_backward(query, key, value, values, sums)
        return values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Float[Tensor, "b h n k"]) -> tuple[Tensor | None, ...]:
        query, key, value, values, sums = ctx.saved_tensors
        means = (grad * values).sum(-1, keepdim=True)
        query_grad = torch.zeros_like(values)
        block_grads, arriving, works = None, None, []
        with torch.autocast(query.device.type, enabled=False):
            for owner, block in _travel(torch.stack([key, value]), len(ctx.masks), ctx.group):
                answer = _Answer(grad, sums, means)
                mask = ctx.masks[owner]
                own, block_grads = _block_gradients(query, block, mask, ctx.scale, answer)
                query_grad += own
                for work in works:
                    work.wait()
                if arriving is not None:
                    block_grads += arriving
                if len(ctx.masks) > 1:
                    arriving, works = _pass_on(block_grads, ctx.group)
        for work in works:
            work.wait()
        home: Any = block_grads if arriving is None else arriving
        key_grad, value_grad = home.to(key.dtype).unbind()
        query_grad = query_grad.transpose(1, 2).to(query.dtype)
        return query_grad, key_grad, value_grad, None, None, None


@dataclass(frozen=True)
class _Answer:
    """What became of all queries, which the gradient of each block needs."""

    grad: Float[Tensor, "b h n k"]
    """Of the values."""
    sums: Float[Tensor, "b h n 1"]
    """Logarithms of the sums of the exponentials of the scores."""
    means: Float[Tensor, "b h n 1"]
    """Means of the gradients of the weights, which softmax subtracts."""


def _travel(
    block: Float[Tensor, "2 b m g k"], processes: int, group: dist.ProcessGroup | None
) -> Iterator[tuple[int, Float[Tensor, "2 b m g k"]]]:
    """The blocks of all processes, own first, each with the number of its owner.

    The next block arrives while one is worked on.
    """
    rank = dist.get_rank(group) if processes > 1 else 0
    for step in range(processes):
        arriving, works = _pass_on(block, group) if step < processes - 1 else (block, [])
        yield (rank - step) % processes, block
        for work in works:
            work.wait()
        block = arriving


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
    """Values, and the logarithm of the sum of exponentials of each query's scores."""
    key, value = (_for_heads(x, query.shape[2]) for x in (key, value))
    parts = []
    for part, seen in zip(_queries(query), _rows(mask, query.shape[1]), strict=True):
        scores = _scores(part, key, seen, scale)
        sums = scores.logsumexp(-1, keepdim=True)
        parts.append(((scores - _finite(sums)).exp() @ value, sums))
    values, sums = zip(*parts, strict=True)
    return torch.cat(values, dim=2), torch.cat(sums, dim=2)


def _block_gradients(
    query: Float[Tensor, "b n h k"],
    block: Float[Tensor, "2 b m g k"],
    mask: Bool[Tensor, "b 1 #n m"] | None,
    scale: float,
    answer: _Answer,
) -> tuple[Float[Tensor, "b h n k"], Float[Tensor, "2 b m g k"]]:
    """Gradients of the queries by a block, and of its keys and values."""
    key, value = (_for_heads(x, query.shape[2]) for x in block.unbind())
    key_grad, value_grad = torch.zeros_like(key), torch.zeros_like(value)
    query_grads = []
    of_answer = (answer.grad, answer.sums, answer.means)
    columns = [part.split(QUERIES_AT_ONCE, dim=2) for part in of_answer]
    parts = zip(_queries(query), _rows(mask, query.shape[1]), *columns, strict=True)
    for part, seen, grad, sums, means in parts:
        weights = (_scores(part, key, seen, scale) - _finite(sums)).exp()
        value_grad += weights.mT @ grad
        score_grad = weights * (grad @ value.mT - means) * scale
        key_grad += score_grad.mT @ part
        query_grads.append(score_grad @ key)
    shared = [x.transpose(1, 2).unflatten(2, (block.shape[3], -1)) for x in (key_grad, value_grad)]
    return torch.cat(query_grads, dim=2), torch.stack(shared).sum(4)


def _scores(
    query: Float[Tensor, "b h n k"],
    key: Float[Tensor, "b h m k"],
    seen: Bool[Tensor, "b 1 #n m"] | None,
    scale: float,
) -> Float[Tensor, "b h n m"]:
    scores = query @ key.mT * scale
    return scores if seen is None else scores.masked_fill(~seen, float("-inf"))


def _for_heads(x: Float[Tensor, "b m g k"], heads: int) -> Float[Tensor, "b h m k"]:
    """Keys or values, once for each head, in float32 at least."""
    return _widen(x.repeat_interleave(heads // x.shape[2], dim=2).transpose(1, 2))


def _queries(query: Float[Tensor, "b n h k"]) -> tuple[Float[Tensor, "b h _ k"], ...]:
    """Some queries at a time, in float32 at least."""
    return _widen(query.transpose(1, 2)).split(QUERIES_AT_ONCE, dim=2)


def _rows(
    mask: Bool[Tensor, "b 1 #n m"] | None, queries: int
) -> tuple[Bool[Tensor, "b 1 _ m"], ...] | list[None]:
    """The mask of some queries at a time."""
    if mask is None:
        return [None] * -(-queries // QUERIES_AT_ONCE)
    return mask.expand(-1, -1, queries, -1).split(QUERIES_AT_ONCE, dim=2)


def _widen(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


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
