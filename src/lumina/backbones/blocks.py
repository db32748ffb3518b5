"""What all backbones share: attention with text, and the way through a stack of blocks."""

import copy
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, NamedTuple, cast

import torch
import torch.distributed as dist
from diffusers import ContextParallelConfig, ParallelConfig
from diffusers.configuration_utils import ConfigMixin
from diffusers.loaders import PeftAdapterMixin
from diffusers.models.cache_utils import CacheMixin
from diffusers.models.modeling_utils import ModelMixin
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from lumina.backbones.packing import Row
from lumina.backbones.parallel import (
    CONTEXT_PARALLEL_PLAN,
    check_context_parallel,
    check_shares,
    set_up_on_cpu,
)
from lumina.backbones.sharing import have_equal_weights, without_adapters
from lumina.errors import LuminaError
from lumina.nn.attention import Attention
from lumina.nn.layers import RMSNorm
from lumina.nn.rope import rotate
from lumina.types import Attend

_STARTS_AT_ZERO = ("norm1.linear", "norm_out", "caption_embedder")
"""Modulation, output and text: layers that have no effect before the first step of training."""


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

    def spread(self, values: Float[Tensor, "b 1 c"]) -> Float[Tensor, "rows #n c"]:
        """Make values of each sample fit the tokens."""
        return values if self.row is None else self.row.spread(values)

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

    def _attend_tokens(
        self,
        query: Float[Tensor, "rows n h k"],
        key: Float[Tensor, "rows n g k"],
        value: Float[Tensor, "rows n g k"],
        context: BlockContext,
    ) -> Float[Tensor, "rows n h k"]:
        attend = partial(self.attn1, scale=context.scale, attend=cast(Any, context.attend))
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


class FlowTransformer(ModelMixin, ConfigMixin, PeftAdapterMixin, CacheMixin):
    """A stack of `AttentionBlock`s in `layers`, at home in diffusers."""

    _supports_gradient_checkpointing = True
    _cp_plan = CONTEXT_PARALLEL_PLAN
    _skip_layerwise_casting_patterns = ["patch_embedder", "norm", "ffn_norm"]
    skip_quantization = [
        "patch_embedder",
        "time_caption_embed",
        "time_class_embed",
        "norm_out",
        "feed_forward.gate",
        "second_forward.gate",
    ]
    """What a quantization config that names no modules to skip leaves as it is: what makes tokens
    and conditions, the output, and the routers of mixtures of experts. They are small."""

    _gradient_checkpointing_func: Any  # None until `enable_gradient_checkpointing` sets it

    layers: nn.ModuleList
    token_split: nn.Module
    gradient_checkpointing: bool

    _cached_samples: int | None = None
    """How many samples the calls had at the latest step that a step cache was told of."""

    def run_blocks(
        self, tokens: Float[Tensor, "b n d"], context: BlockContext, cache: StepCache | None
    ) -> Float[Tensor, "b n d"]:
        """Send tokens through all blocks.

        Raises:
            LuminaError: If processes are to share the tokens, and these do not divide among them.
        """
        check_shares(tokens.shape[1], self._parallel_config)
        row = context.row
        if row is None or self._parallel_config is not None:
            # Processes take even parts of a batch, whose padding falls to some of them.
            mask = None if row is None else row.mask(tokens)[:, None, None]
            tokens, rope = self.token_split(tokens, context.rope)
            context = context._replace(rope=rope, mask=mask, row=None)
            return self._run_blocks(tokens, context, cache)
        rope = row.join(context.rope.expand(*tokens.shape[:2], -1, -1))
        context = context._replace(rope=rope)
        return row.part(self._run_blocks(row.join(tokens), context, cache))

    def _run_blocks(
        self, tokens: Float[Tensor, "b n d"], context: BlockContext, cache: StepCache | None
    ) -> Float[Tensor, "b n d"]:
        count = len(self.layers)
        learning = torch.is_grad_enabled()
        cached_texts = [None] * count if cache is None or learning else cache.blocks(count)
        check_attends(context, count)
        for number, (block, cached_text) in enumerate(zip(self.layers, cached_texts, strict=True)):
            own = context.of_block(number)
            if learning and self.gradient_checkpointing:
                tokens = self._checkpoint(block, tokens, own)
            else:
                tokens = block(tokens, own, cached_text)
        return tokens

    def _checkpoint(
        self, block: nn.Module, tokens: Float[Tensor, "b n d"], context: BlockContext
    ) -> Float[Tensor, "b n d"]:
        """Run a block that the backward pass runs again, with a list of its own for `balance`."""
        if context.balance is None:
            return self._gradient_checkpointing_func(block, tokens, context)
        found: list[Tensor] = []
        own = context._replace(balance=found)
        tokens = self._gradient_checkpointing_func(block, tokens, own)
        context.balance.extend(found)
        found.clear()  # the graph keeps this list, and would keep itself by what is in it
        return tokens

    def enable_cache(self, config: Any) -> None:
        """Leave out some of the work of later steps, as diffusers' step caches do.

        What a cache remembers is kept on the model: draw one batch at a time.

        Raises:
            LuminaError: If the cache cannot work on this model.
            ValueError: If another cache is enabled, or `config` is none of diffusers'.
        """
        from lumina.backbones.caching import fit_cache

        is_parallel = self._parallel_config is not None
        super().enable_cache(fit_cache(config, self.layers, is_parallel=is_parallel))

    def step_context(
        self, step: int, *, steps: int, time: Float[Tensor, ""], samples: int | None = None
    ) -> AbstractContextManager[None]:
        """Tell a step cache, if one is enabled, at which step the calls inside are.

        The first step of a sample forgets the sample before, however that ended.

        Args:
            step: The number of the step, from 0.
            steps: How many there are.
            time: The time of the step, in [0, 1].
            samples: How many the calls compute at once, needed where that may change, as it does
                when guidance ends: then the cache forgets the steps before.
        """
        if not self.is_cache_enabled:
            return nullcontext()
        if step == 0 or samples != self._cached_samples:
            self._reset_stateful_cache()
        self._cached_samples = samples
        return self.cache_context(
            "velocity", step_index=step, num_inference_steps=steps, sigma=1 - time.item()
        )

    def enable_parallelism(self, *, config: Any, cp_plan: Any = None) -> None:
        """Share the tokens of each sample among processes, as diffusers does, or round a ring.

        Raises:
            LuminaError: If the model cannot be shared in this way.
        """
        context = getattr(config, "context_parallel_config", config)
        if isinstance(context, ContextParallelConfig):
            heads = self.config["num_attention_heads"]
            check_context_parallel(context, heads=heads, cache=self._cache_config)
        super().enable_parallelism(config=config, cp_plan=cp_plan)

    def _resolve_parallel_config(self, config: Any) -> ParallelConfig:
        if torch.accelerator.device_count() or not dist.is_initialized():
            return super()._resolve_parallel_config(config)
        self._parallel_config = set_up_on_cpu(config)
        return self._parallel_config

    def share_queries(self) -> None:
        """In each block, make both attentions hold the same query weights, if these are equal."""
        for block in self._blocks():
            block.share_query()

    def separate_queries(self) -> None:
        """In each block, give each attention its own query weights, so that they can differ."""
        for block in self._blocks():
            block.separate_query()

    def start_at_identity(self) -> None:
        """Draw new weights: each block passes tokens through, and the output is zero.

        Source:
            `initialize_weights` in lumina_next_t2i/models/model.py of the original code.
        """
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                if any(part in name for part in _STARTS_AT_ZERO):
                    nn.init.zeros_(module.weight)
                elif "timestep_embedder" in name:
                    nn.init.normal_(module.weight, std=0.02)
                else:
                    nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)

    def embed_condition(
        self,
        times: Shaped[Tensor, " b"],
        text: Float[Tensor, "b m e"] | None,
        weights: Shaped[Tensor, "b m"] | None,
        labels: Int[Tensor, " b"] | None,
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """Embeddings of the time and of all conditions, the text that attention reads, its mask.

        Raises:
            ValueError: If the model's condition is missing.
        """
        if self.config["num_classes"] is not None:
            if labels is None:
                raise ValueError("a model of classes needs `class_labels`")
            return *self.time_class_embed(times, labels), None, None
        if text is None:
            raise ValueError("a model of text needs `encoder_hidden_states`")
        text, mask = _readable_text(text.to(dtype), weights)
        return *self.time_caption_embed(times, text, weights), text, mask

    @classmethod
    def from_pretrained(cls, *args, **kwargs):
        """Load as every diffusers model loads, and share queries wherever the weights allow."""
        if kwargs.get("quantization_config") is not None:
            config = kwargs["quantization_config"]
            kwargs["quantization_config"] = _with_skipped(config, cls.skip_quantization)
        loaded = super().from_pretrained(*args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        model.share_queries()
        return loaded

    def save_pretrained(self, *args, **kwargs) -> None:
        """Save as every diffusers model saves, both query weights of each block included.

        Raises:
            LuminaError: If there are adapters, with which no model could be loaded.
        """
        if getattr(self, "peft_config", None):
            raise LuminaError(
                f"{type(self).__name__} has the adapters {', '.join(self.peft_config)}",
                hint="save those with `save_lora_weights`, or call `fuse_lora` to keep what they"
                " do; then `unload_lora_weights`, and save the model",
            )
        self.separate_queries()  # safetensors refuses weights that share memory
        try:
            super().save_pretrained(*args, **kwargs)
        finally:
            self.share_queries()

    def fuse_lora(self, *args, **kwargs) -> None:
        """Fuse as every diffusers model does, where two queries that are shared would differ."""
        self.separate_queries()
        super().fuse_lora(*args, **kwargs)

    def unload_lora(self) -> None:
        """Take all adapters out, and share queries wherever the weights allow."""
        super().unload_lora()
        self.share_queries()

    def delete_adapters(self, adapter_names: list[str] | str) -> None:
        """Delete adapters, and with the last one the layers that wrap the model's own."""
        super().delete_adapters(adapter_names)
        if not getattr(self, "peft_config", None):
            self.unload_lora()

    def _blocks(self) -> Iterator[AttentionBlock]:
        return cast(Iterator[AttentionBlock], iter(self.layers))

    def share_queries_after_loading(self) -> None:
        """Keep `load_state_dict` from writing two different queries into one weight."""
        self.register_load_state_dict_pre_hook(_separate_queries_before_load)
        self.register_load_state_dict_post_hook(_share_queries_after_load)


def _readable_text(
    text: Float[Tensor, "b m e"], mask: Shaped[Tensor, "b m"] | None
) -> tuple[Float[Tensor, "b m e"], Bool[Tensor, "b 1 1 m"] | None]:
    """Zero the text of samples whose mask is empty, and let attention see it: its values are 0."""
    if mask is None:
        return text, None
    seen = mask != 0
    has_text = seen.any(1, keepdim=True)
    text = text.where(has_text.unsqueeze(-1), 0)
    return text, (seen | ~has_text)[:, None, None]


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


def _separate_queries_before_load(model: FlowTransformer, *_) -> None:
    model.separate_queries()


def _share_queries_after_load(model: FlowTransformer, *_) -> None:
    model.share_queries()


def _with_skipped(config: Any, modules: list[str]) -> Any:
    """A quantization config that leaves modules as they are, if it names none itself."""
    config = copy.copy(config)
    for name in ("modules_to_not_convert", "llm_int8_skip_modules"):
        if getattr(config, name, ()) is None:
            setattr(config, name, list(modules))
    return config
