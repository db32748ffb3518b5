"""Next-DiT, the transformer of Lumina-Next, with the weights and call of diffusers' port."""

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, cast

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from diffusers.models.modeling_utils import ModelMixin
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn

from lumina.nn.attention import Attention, fused_attend, proportional_scale
from lumina.nn.layers import (
    FeedForward,
    ModulatedOutput,
    ModulatedRMSNorm,
    PatchEmbed,
    RMSNorm,
    TimeTextEmbed,
    feed_forward_width,
    unpatchify,
)
from lumina.nn.rope import crop_rope_table, grid_positions, rope_table, rotate
from lumina.types import Attend


class TextKeyValue:
    """Keys and values of a text for one block, which fills them in on its first call."""

    def __init__(self):
        self.key_value: tuple[Tensor, Tensor] | None = None


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

    def rope(self, make: Callable[[], Tensor], *key: float) -> Float[Tensor, "n half 2"]:
        """The rotations of a grid, made when they are first asked for."""
        if key not in self._ropes:
            self._ropes[key] = make()
        return self._ropes[key]


class BlockContext(NamedTuple):
    """What all blocks of a forward pass share beside the tokens.

    A tuple, since the hooks of accelerate, FSDP and checkpointing look for tensors in those.
    """

    condition: Float[Tensor, "b c"]
    rope: Float[Tensor, "n half 2"]
    text: Float[Tensor, "b m e"]
    text_mask: Bool[Tensor, "b 1 1 m"] | None
    scale: float
    attend: Attend


class NextDiTBlock(nn.Module):
    """Attention to all tokens and, through a gate for each head, to the text; then feed-forward."""

    def __init__(
        self,
        width: int,
        *,
        heads: int,
        kv_heads: int,
        inner_width: int,
        condition_width: int,
        text_width: int,
        eps: float,
        qk_norm: bool,
    ):
        super().__init__()
        self.gate = nn.Parameter(torch.zeros(heads))
        self.attn1 = Attention(
            width, heads=heads, kv_heads=kv_heads, qk_norm=qk_norm, has_output=False
        )
        self.attn2 = Attention(
            width, heads=heads, kv_heads=kv_heads, qk_norm=qk_norm, source_width=text_width
        )
        self.feed_forward = FeedForward(width, inner_width=inner_width)
        self.norm1 = ModulatedRMSNorm(width, condition_width=condition_width, eps=eps)
        self.ffn_norm1 = RMSNorm(width, eps=eps)
        self.norm2 = RMSNorm(width, eps=eps)
        self.ffn_norm2 = RMSNorm(width, eps=eps)
        self.norm1_context = RMSNorm(text_width, eps=eps)
        self._hold_same_query()

    def forward(
        self,
        hidden_states: Float[Tensor, "b n d"],
        context: BlockContext,
        cached_text: TextKeyValue | None = None,
    ) -> Float[Tensor, "b n d"]:
        """Return the tokens after this block; `cached_text` is filled in if it is empty."""
        normed, attention_gate, forward_scale, forward_gate = self.norm1(
            hidden_states, context.condition
        )
        attended = self.attn2.to_out[0](self._attend(normed, context, cached_text))
        hidden_states = hidden_states + self.norm2(attended, attention_gate)
        forwarded = self.feed_forward(self.ffn_norm1(hidden_states, forward_scale))
        return hidden_states + self.ffn_norm2(forwarded, forward_gate)

    @property
    def shares_query(self) -> bool:
        """Whether one query serves both attentions, since they hold the very same weights."""
        own, other = self.attn1.to_q, self.attn2.to_q
        # An adapter puts another class in place of the linear layer, and may differ in each.
        return type(own) is type(other) is nn.Linear and own.weight is other.weight

    def share_query(self) -> None:
        """Make both attentions hold the same query weights, if these are equal."""
        if all(_have_equal_weights(own, other) for own, other in self._query_layers()):
            self._hold_same_query()

    def separate_query(self) -> None:
        """Give the attention to text its own copy of query weights that are shared."""
        if not self.shares_query:
            return
        for _, other in self._query_layers():
            for name, weight in dict(other.named_parameters()).items():
                copy = nn.Parameter(weight.detach().clone(), requires_grad=weight.requires_grad)
                setattr(other, name, copy)

    def _hold_same_query(self) -> None:
        for own, other in self._query_layers():
            for name, weight in own.named_parameters():
                setattr(other, name, weight)

    def _query_layers(self) -> list[tuple[nn.Module, nn.Module]]:
        return [(self.attn1.to_q, self.attn2.to_q), (self.attn1.norm_q, self.attn2.norm_q)]

    def _attend(
        self,
        normed: Float[Tensor, "b n d"],
        context: BlockContext,
        cached_text: TextKeyValue | None,
    ) -> Float[Tensor, "b n d"]:
        query = rotate(self.attn1.query(normed), context.rope)
        key, value = self.attn1.key_value(normed)
        tokens = context.attend(query, rotate(key, context.rope), value, scale=context.scale)
        if not self.shares_query:
            query = rotate(self.attn2.query(normed), context.rope)
        key, value = self._text_key_value(context.text, cached_text)
        text = context.attend(query, key, value, mask=context.text_mask)
        gate = self.gate.tanh().to(text.dtype).unsqueeze(-1)
        return torch.addcmul(tokens, gate, text).flatten(2)

    def _text_key_value(
        self, text: Float[Tensor, "b m e"], cached_text: TextKeyValue | None
    ) -> tuple[Float[Tensor, "b m g k"], Float[Tensor, "b m g k"]]:
        if cached_text is None:
            return self.attn2.key_value(self.norm1_context(text))
        if cached_text.key_value is None:
            cached_text.key_value = self.attn2.key_value(self.norm1_context(text))
        return cached_text.key_value


class NextDiT(ModelMixin, ConfigMixin):
    """Predict the velocity of latent pictures, as diffusers' `LuminaNextDiT2DModel` does.

    Its state dict has the keys and shapes of that class, so either loads what the other saves.

    Args:
        sample_size: Height and width of the latents of a picture of the usual size.
        patch_size: Height and width of a patch, in latent pixels.
        in_channels: Channels of the latents.
        hidden_size: Width of the tokens.
        num_layers: Number of blocks.
        num_attention_heads: Heads of the queries.
        num_kv_heads: Heads of the keys and values. None stands for `num_attention_heads`.
        multiple_of: What the inner width of the feed-forward networks is a multiple of.
        ffn_dim_multiplier: Factor on that inner width.
        norm_eps: Added to mean squares before their root is taken.
        learn_sigma: Whether the output has a second half of channels, which sampling ignores.
        qk_norm: Whether queries and keys are normalised.
        cross_attention_dim: Width of the text features.
        scaling_factor: Kept for diffusers' configurations; has no effect.
        rope_axes: Channels of a head that are turned by frame, row and column. None stands for
            rows and columns in equal parts.
        rope_theta: How much slower the last frequency of an axis turns than the first.

    Raises:
        ValueError: If heads or channels cannot be divided as asked.

    Source:
        Lumina-Next, arXiv:2406.18583; `lumina_next_t2i/models/model.py` of the original code.
    """

    _supports_gradient_checkpointing = True
    _no_split_modules = ["NextDiTBlock"]
    _repeated_blocks = ["NextDiTBlock"]
    _skip_layerwise_casting_patterns = ["patch_embedder", "norm", "ffn_norm"]
    _gradient_checkpointing_func: Any  # None until `enable_gradient_checkpointing` sets it

    @register_to_config
    def __init__(
        self,
        sample_size: int = 128,
        patch_size: int = 2,
        in_channels: int = 4,
        hidden_size: int = 2304,
        num_layers: int = 32,
        num_attention_heads: int = 32,
        num_kv_heads: int | None = None,
        multiple_of: int = 256,
        ffn_dim_multiplier: float | None = None,
        norm_eps: float = 1e-5,
        learn_sigma: bool = True,
        qk_norm: bool = True,
        cross_attention_dim: int = 2048,
        scaling_factor: float = 1.0,
        rope_axes: Sequence[int] | None = None,  # a list, when read from a file
        rope_theta: float = 10000.0,
    ):
        super().__init__()
        kv_heads = num_kv_heads or num_attention_heads
        _check_heads(hidden_size, heads=num_attention_heads, kv_heads=kv_heads)
        self.patch_size = patch_size
        self.out_channels = in_channels * 2 if learn_sigma else in_channels
        self.head_dim = hidden_size // num_attention_heads
        self.rope_axes = _check_axes(rope_axes, head_width=self.head_dim)
        self.rope_theta = rope_theta
        self.gradient_checkpointing = False
        condition_width = min(hidden_size, 1024)

        self.patch_embedder = PatchEmbed(
            patch_size=patch_size, channels=in_channels, width=hidden_size
        )
        # Pads samples of different sizes in the original code, so checkpoints have it.
        self.pad_token = nn.Parameter(torch.zeros(hidden_size), requires_grad=False)
        self.time_caption_embed = TimeTextEmbed(condition_width, text_width=cross_attention_dim)
        self.layers = nn.ModuleList(
            NextDiTBlock(
                hidden_size,
                heads=num_attention_heads,
                kv_heads=kv_heads,
                inner_width=feed_forward_width(
                    hidden_size, multiple_of=multiple_of, multiplier=ffn_dim_multiplier
                ),
                condition_width=condition_width,
                text_width=cross_attention_dim,
                eps=norm_eps,
                qk_norm=qk_norm,
            )
            for _ in range(num_layers)
        )
        self.norm_out = ModulatedOutput(
            hidden_size,
            condition_width=condition_width,
            out_width=patch_size * patch_size * self.out_channels,
        )
        self.register_load_state_dict_pre_hook(_separate_queries_before_load)
        self.register_load_state_dict_post_hook(_share_queries_after_load)

    def forward(
        self,
        hidden_states: Float[Tensor, "b c height width"],
        timestep: Float[Tensor, " b"],
        encoder_hidden_states: Float[Tensor, "b m e"],
        encoder_mask: Shaped[Tensor, "b m"] | None = None,
        image_rotary_emb: Shaped[Tensor, "table_rows table_cols half"] | None = None,
        cross_attention_kwargs: dict[str, Any] | None = None,
        return_dict: bool = True,
        *,
        rope_linear: float = 1.0,
        rope_ntk: float = 1.0,
        cache: StepCache | None = None,
        attend: Attend | None = None,
    ) -> Transformer2DModelOutput | tuple[Float[Tensor, "b out height width"]]:
        """Return the velocity of noisy latents, in `sample`.

        Args:
            hidden_states: Noisy latents.
            timestep: Times in [0, 1], where 0 is noise.
            encoder_hidden_states: Features of each text token.
            encoder_mask: How much each text token counts in the mean of the text. Attention sees
                those that are not 0. A sample of zeros alone takes nothing from its text. None
                counts all tokens alike.
            image_rotary_emb: Rotation of each patch, as complex numbers or as real parts alone,
                for a grid at least as large as that of the latents. None makes the model's own.
            cross_attention_kwargs: May hold `base_sequence_length`, the number of tokens that
                the scores of attention to tokens are scaled for.
            return_dict: Whether to return an object rather than a tuple.
            rope_linear: Divides positions in the model's own rotations.
            rope_ntk: Multiplies `rope_theta` in the model's own rotations.
            cache: Keeps what does not change from one call to the next.
            attend: Attention itself. None takes the kernel chosen by `set_attention_backend`.

        Raises:
            ValueError: If the latents do not fill whole patches, `image_rotary_emb` is too
                small, or `base_sequence_length` is not above 1.
        """
        height, width = hidden_states.shape[-2:]
        if height % self.patch_size or width % self.patch_size:
            raise ValueError(
                f"latents of {height} x {width} do not divide into patches of "
                f"{self.patch_size} x {self.patch_size}"
            )
        rows, cols = height // self.patch_size, width // self.patch_size
        base = (cross_attention_kwargs or {}).get("base_sequence_length")
        text, mask = _readable_text(encoder_hidden_states.to(hidden_states.dtype), encoder_mask)
        condition = self.time_caption_embed(timestep, text, encoder_mask)
        context = BlockContext(
            condition=nn.functional.silu(condition),
            rope=self._rope(
                image_rotary_emb,
                rows=rows,
                cols=cols,
                linear=rope_linear,
                ntk=rope_ntk,
                device=hidden_states.device,
                cache=cache,
            ),
            text=text,
            text_mask=mask,
            scale=proportional_scale(self.head_dim, tokens=rows * cols, base=base),
            attend=attend or fused_attend,
        )
        tokens = self._run_blocks(self.patch_embedder(hidden_states), context, cache)
        values = self.norm_out(tokens, context.condition)
        sample = unpatchify(values, patch_size=self.patch_size, rows=rows, cols=cols)
        return Transformer2DModelOutput(sample=sample) if return_dict else (sample,)

    def share_queries(self) -> None:
        """In each block, make both attentions hold the same query weights, if these are equal."""
        for block in self._blocks():
            block.share_query()

    def separate_queries(self) -> None:
        """In each block, give each attention its own query weights, so that they can differ."""
        for block in self._blocks():
            block.separate_query()

    @classmethod
    def from_pretrained(cls, *args, **kwargs):
        """Load as every diffusers model loads, and share queries wherever the weights allow."""
        loaded = super().from_pretrained(*args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        model.share_queries()
        return loaded

    def save_pretrained(self, *args, **kwargs) -> None:
        """Save as every diffusers model saves, both query weights of each block included."""
        self.separate_queries()  # safetensors refuses weights that share memory
        try:
            super().save_pretrained(*args, **kwargs)
        finally:
            self.share_queries()

    @property
    def fits_diffusers(self) -> bool:
        """Whether diffusers' class computes the same: it has one way to make rotations."""
        return self.config["rope_axes"] is None and self.config["rope_theta"] == 10000

    def to_json_string(self) -> str:
        """The configuration as JSON, which is diffusers' own where that class can do the same."""
        config = json.loads(super().to_json_string())
        if self.fits_diffusers:
            del config["rope_axes"], config["rope_theta"]
            config["_class_name"] = "LuminaNextDiT2DModel"
            config["num_kv_heads"] = config["num_kv_heads"] or config["num_attention_heads"]
        return json.dumps(config, indent=2, sort_keys=True) + "\n"

    def _blocks(self) -> Iterator[NextDiTBlock]:
        return cast(Iterator[NextDiTBlock], iter(self.layers))

    def _rope(
        self,
        table: Shaped[Tensor, "table_rows table_cols half"] | None,
        *,
        rows: int,
        cols: int,
        linear: float,
        ntk: float,
        device: torch.device,
        cache: StepCache | None,
    ) -> Float[Tensor, "n half 2"]:
        if table is not None:
            return crop_rope_table(table, rows=rows, cols=cols).to(device)

        def make() -> Float[Tensor, "n half 2"]:
            positions = grid_positions(rows=rows, cols=cols, device=device)
            return rope_table(
                positions, channels=self.rope_axes, theta=self.rope_theta, linear=linear, ntk=ntk
            )

        return make() if cache is None else cache.rope(make, rows, cols, linear, ntk)

    def _run_blocks(
        self, tokens: Float[Tensor, "b n d"], context: BlockContext, cache: StepCache | None
    ) -> Float[Tensor, "b n d"]:
        count = len(self.layers)
        learning = torch.is_grad_enabled()
        cached_texts = [None] * count if cache is None or learning else cache.blocks(count)
        for block, cached_text in zip(self.layers, cached_texts, strict=True):
            arguments = (tokens, context, cached_text)
            if learning and self.gradient_checkpointing:
                tokens = self._gradient_checkpointing_func(block, *arguments)
            else:
                tokens = block(*arguments)
        return tokens


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


def _check_heads(width: int, *, heads: int, kv_heads: int) -> None:
    if width % heads:
        raise ValueError(f"hidden_size {width} does not divide into {heads} heads")
    if heads % kv_heads:
        raise ValueError(f"{heads} heads cannot share {kv_heads} num_kv_heads equally")


def _check_axes(axes: Sequence[int] | None, *, head_width: int) -> tuple[int, ...]:
    if axes is None and head_width % 4 == 0:
        return (0, head_width // 2, head_width // 2)
    if axes is None:
        raise ValueError(f"rows and columns need a head width divisible by 4, got {head_width}")
    if len(axes) != 3 or sum(axes) != head_width or any(count % 2 for count in axes):
        raise ValueError(
            f"rope_axes must be 3 even numbers that add up to the head width {head_width}, "
            f"got {tuple(axes)}"
        )
    return tuple(axes)


def _have_equal_weights(own: nn.Module, other: nn.Module) -> bool:
    pairs = zip(own.parameters(), other.parameters(), strict=True)
    return all(_is_plain(a) and _is_plain(b) and torch.equal(a, b) for a, b in pairs)


def _is_plain(weight: nn.Parameter) -> bool:
    """Whether a weight is neither quantized, nor sharded, nor without values."""
    return type(weight) is nn.Parameter and type(weight.data) is Tensor and not weight.is_meta


def _separate_queries_before_load(model: NextDiT, *_) -> None:
    model.separate_queries()


def _share_queries_after_load(model: NextDiT, *_) -> None:
    model.share_queries()
