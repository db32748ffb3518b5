"""What all backbones are: a stack of blocks, at home in diffusers."""

import copy
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
import torch.distributed as dist
from diffusers import ContextParallelConfig, ParallelConfig
from diffusers.configuration_utils import ConfigMixin
from diffusers.loaders import PeftAdapterMixin
from diffusers.models.cache_utils import CacheMixin
from diffusers.models.modeling_utils import ModelMixin
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from lumina.backbones.blocks import (
    Attends,
    AttentionBlock,
    BlockContext,
    StepCache,
    check_attends,
)
from lumina.backbones.packing import Packed
from lumina.backbones.parallel import (
    CONTEXT_PARALLEL_PLAN,
    check_attends_share,
    check_context_parallel,
    check_shares,
    set_up_on_cpu,
)
from lumina.errors import LuminaError
from lumina.nn.attention import proportional_scale
from lumina.nn.extrapolation import RopeScaling

_STARTS_AT_ZERO = ("norm1.linear", "norm_out", "caption_embedder")
"""Modulation, output and text: layers that have no effect before the first step of training."""


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
    head_dim: int
    token_split: nn.Module
    gradient_checkpointing: bool

    _cached_samples: int | None = None
    """How many samples the calls had at the latest step that a step cache was told of."""

    def make_context(
        self,
        packed: Packed,
        rope: Float[Tensor, "*b n half 2"],
        scaling: RopeScaling | list[RopeScaling],
        *,
        timestep: Shaped[Tensor, " b"],
        text: Float[Tensor, "b m e"] | None,
        text_weights: Shaped[Tensor, "b m"] | None,
        labels: Int[Tensor, " b"] | None,
        cross_attention_kwargs: dict[str, Any] | None,
        attend: Attends,
        attend_text: Attends,
        balance: list[Tensor] | None = None,
    ) -> BlockContext:
        """What all blocks share, from the arguments of `forward` and the tokens' rotations."""
        tokens = packed.tokens
        time, condition, text, text_mask = self._embed_condition(
            timestep, text, text_weights, labels, tokens.dtype
        )
        base = (cross_attention_kwargs or {}).get("base_sequence_length")
        scale = proportional_scale(self.head_dim, tokens=tokens.shape[1], base=base)
        sharpness = None
        if isinstance(scaling, list):
            factors = torch.tensor([one.attention for one in scaling], device=tokens.device)
            sharpness = factors[:, None, None, None]
        else:
            scale *= scaling.attention
        return BlockContext(
            condition=nn.functional.silu(condition),
            time=time,
            rope=rope,
            row=packed.row,
            text=text,
            text_mask=text_mask,
            scale=scale,
            attend=attend,
            attend_text=attend_text,
            balance=balance,
            sharpness=sharpness,
        )

    def run_blocks(
        self, tokens: Float[Tensor, "b n d"], context: BlockContext, cache: StepCache | None
    ) -> Float[Tensor, "b n d"]:
        """Send tokens through all blocks.

        Raises:
            LuminaError: If processes are to share the tokens, and these do not divide among them,
                or the attention that was given is for all of them.
        """
        check_shares(tokens.shape[1], self._parallel_config)
        check_attends_share(context.attends, self._parallel_config)
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

    def _embed_condition(
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
