"""A block of any backbone: what it shares with the others of a pass, and attention with text."""

from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from lumina.backbones.packing import Row
from lumina.backbones.sharing import have_equal_weights, without_adapters
from lumina.nn.attention import Attention
from lumina.nn.layers import RMSNorm
from lumina.nn.rope import rotate
from lumina.types import Attend


class TextKeyValue:
    """Keys and values of a text for one block, which fills them in on its first call."""

    def __init__(self):
        self.key_value: tuple[Tensor, Tensor] | None = None


Attends = Attend | Sequence[Attend | None] | None
"""Attention itself: one for all blocks, or one for each. None: the kernel it is set to."""


class StepCache:
    """What a model need not compute again from one step of a sampler to the next.

    Make one for each batch of prompts, and pass it to every call of the model for that batch. It
    keeps the keys and values of the text, where gradients are off, and the rotations of each grid.
    """

    def __init__(self):
        self._blocks: list[TextKeyValue] = []
        self._ropes: dict[tuple, Tensor] = {}

    def blocks(self, count: int) -> list[TextKeyValue]:
        """The slots of a model of `count` blocks."""
        self._blocks.extend(TextKeyValue() for _ in range(count - len(self._blocks)))
        return self._blocks

    def rope(self, make: Callable[[], Tensor], *key: Hashable) -> Float[Tensor, "n half 2"]:
        """The rotations of a grid, made when they are first asked for."""
        if key not in self._ropes:
            self._ropes[key] = make()
        return self._ropes[key]


class BlockContext(NamedTuple):
    """What all blocks of a forward pass share beside the tokens.

    A tuple, since the hooks of accelerate, FSDP and checkpointing look for tensors in those.
    """

    condition: Float[Tensor, "b c"]
    time: Float[Tensor, "b c"]
    rope: Float[Tensor, "*b n half 2"]
    text: Float[Tensor, "b m e"] | None
    text_mask: Bool[Tensor, "b 1 1 m"] | None
    scale: float
    attend: Attends
    """Attention to tokens; of one block, where a block has it."""
    attend_text: Attends
    balance: list[Tensor] | None
    """Where mixtures of experts put how unevenly they are used."""
    row: Row | None = None
    """How the tokens of all samples lie in one row. None: they lie in a batch."""
    mask: Bool[Tensor, "b 1 1 n"] | None = None
    """Which tokens of a batch are no padding. None: all."""
    sharpness: Float[Tensor, "b 1 1 1"] | None = None
    """Factor on the scores of attention to tokens of each sample, beside `scale`. None: 1."""

    def spread(self, values: Float[Tensor, "b 1 *c"]) -> Float[Tensor, "rows #n *c"]:
        """Make values of each sample, or one for all of them, fit the tokens."""
        if self.row is None or len(values) == 1:
            return values
        return self.row.spread(values)

    @property
    def attends(self) -> Sequence[Attend | None]:
        """What was given as attention to tokens, for all blocks or for each."""
        return self.attend if isinstance(self.attend, Sequence) else [self.attend]

    def of_block(self, number: int) -> "BlockContext":
        """The context of one block, by its number from 0."""
        attend, text = (
            attend[number] if isinstance(attend, Sequence) else attend
            for attend in (self.attend, self.attend_text)
        )
        return self._replace(attend=attend, attend_text=text)


class AttentionBlock(nn.Module):
    """Attention to all tokens and, through a gate for each head, to the text."""

    def __init__(
        self,
        width: int,
        *,
        heads: int,
        kv_heads: int,
        text_width: int | None,
        eps: float,
        qk_norm: bool,
    ):
        super().__init__()
        shape = {"heads": heads, "kv_heads": kv_heads, "qk_norm": qk_norm}
        self.has_text = text_width is not None
        if text_width is None:
            self.attn1 = Attention(width, **shape)
            return
        self.gate = nn.Parameter(torch.zeros(heads))
        self.attn1 = Attention(width, **shape, has_output=False)
        self.attn2 = Attention(width, **shape, source_width=text_width)
        self.norm1_context = RMSNorm(text_width, eps=eps)
        self._hold_same_query()

    def attention(
        self,
        normed: Float[Tensor, "b n d"],
        context: BlockContext,
        cached_text: TextKeyValue | None,
    ) -> Float[Tensor, "b n d"]:
        """What tokens take from each other and from the text; `cached_text` is filled in."""
        query = rotate(self.attn1.query(normed), context.rope)
        key, value = self.attn1.key_value(normed)
        key = rotate(key, context.rope)
        tokens = self._attend_tokens(query, key, value, context)
        if context.text is None:
            return self.attn1.to_out[0](tokens.flatten(2))
        if not self.shares_query:
            query = rotate(self.attn2.query(normed), context.rope)
        key, value = self._text_key_value(context.text, cached_text)
        text = self._attend_text(query, key, value, context)
        gate = self.gate.tanh().to(text.dtype).unsqueeze(-1)
        return self.attn2.to_out[0](torch.addcmul(tokens, gate, text).flatten(2))

    def read_text(
        self,
        query: Float[Tensor, "b n h k"],
        text: Float[Tensor, "b m e"],
        mask: Bool[Tensor, "b 1 1 m"] | None,
    ) -> Float[Tensor, "b n d"]:
        """What tokens take from the text, apart from what they take from each other.

        Args:
            query: As `attend_text` gets it.
            text: Features of each text token.
            mask: Which of these are seen.
        """
        values = self.attn2(query, *self._text_key_value(text, None), mask=mask)
        gate = self.gate.tanh().to(values.dtype).unsqueeze(-1)
        return self.attn2.to_out[0]((gate * values).flatten(2))

    def _attend_tokens(
        self,
        query: Float[Tensor, "rows n h k"],
        key: Float[Tensor, "rows n g k"],
        value: Float[Tensor, "rows n g k"],
        context: BlockContext,
    ) -> Float[Tensor, "rows n h k"]:
        attend = partial(self.attn1, scale=context.scale, attend=cast(Any, context.attend))
        if context.sharpness is not None:
            query = (query * context.spread(context.sharpness)).to(query.dtype)
        if context.row is None:
            return attend(query, key, value, mask=context.mask)
        parts = map(context.row.split, (query, key, value))
        # Each sample attends alone, and so nothing is spent on padding.
        return torch.cat([attend(*sample) for sample in zip(*parts, strict=True)], dim=1)

    def _attend_text(
        self,
        query: Float[Tensor, "rows n h k"],
        key: Float[Tensor, "b m g k"],
        value: Float[Tensor, "b m g k"],
        context: BlockContext,
    ) -> Float[Tensor, "rows n h k"]:
        attend = partial(self.attn2, attend=cast(Any, context.attend_text))
        mask = context.text_mask
        if context.row is None:
            return attend(query, key, value, mask=mask)
        queries = context.row.split(query)
        masks = [None] * len(queries) if mask is None else mask.split(1)
        samples = zip(queries, key.split(1), value.split(1), masks, strict=True)
        return torch.cat([attend(q, k, v, mask=m) for q, k, v, m in samples], dim=1)

    @property
    def shares_query(self) -> bool:
        """Whether one query serves both attentions, since they hold the very same weights."""
        own, other = self.attn1.to_q, self.attn2.to_q
        # An adapter puts another class in place of the linear layer, and may differ in each.
        return type(own) is type(other) is nn.Linear and own.weight is other.weight

    def share_query(self) -> None:
        """Make both attentions hold the same query weights, if these are equal."""
        if self.has_text and all(have_equal_weights(*pair) for pair in self._query_layers()):
            self._hold_same_query()

    def separate_query(self) -> None:
        """Give the attention to text its own copy of query weights that are shared."""
        if not self.has_text:
            return
        for own, other in self._query_layers():
            for name, weight in dict(other.named_parameters()).items():
                if weight is own.get_parameter(name):
                    values = weight.detach().clone()
                    setattr(other, name, nn.Parameter(values, requires_grad=weight.requires_grad))

    def _hold_same_query(self) -> None:
        for own, other in self._query_layers():
            for name, weight in own.named_parameters():
                setattr(other, name, weight)

    def _query_layers(self) -> list[tuple[nn.Module, nn.Module]]:
        queries = without_adapters(self.attn1.to_q), without_adapters(self.attn2.to_q)
        return [queries, (self.attn1.norm_q, self.attn2.norm_q)]

    def _text_key_value(
        self, text: Float[Tensor, "b m e"], cached_text: TextKeyValue | None
    ) -> tuple[Float[Tensor, "b m g k"], Float[Tensor, "b m g k"]]:
        if cached_text is None:
            return self.attn2.key_value(self.norm1_context(text))
        if cached_text.key_value is None:
            cached_text.key_value = self.attn2.key_value(self.norm1_context(text))
        return cached_text.key_value


def check_attends(context: BlockContext, blocks: int) -> None:
    """Refuse attention for another number of blocks.

    Raises:
        ValueError: If it is.
    """
    for attend in (context.attend, context.attend_text):
        if isinstance(attend, Sequence) and len(attend) != blocks:
            raise ValueError(
                f"attention for {len(attend)} blocks was given, and there are {blocks}"
            )


def check_heads(width: int, *, heads: int, kv_heads: int) -> None:
    """Refuse heads that do not share a width evenly.

    Raises:
        ValueError: If they do not.
    """
    if width % heads:
        raise ValueError(f"hidden_size {width} does not divide into {heads} heads")
    if heads % kv_heads:
        raise ValueError(f"{heads} heads cannot share {kv_heads} num_kv_heads equally")
