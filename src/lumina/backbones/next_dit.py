"""Next-DiT, the transformer of Lumina-Next, with the weights and call of diffusers' port."""

import json
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from diffusers.configuration_utils import register_to_config
from diffusers.models.modeling_outputs import Transformer2DModelOutput

# Pipelines of diffusers load a class if its module has the name of a base class they know.
from diffusers.models.modeling_utils import ModelMixin  # noqa: F401
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from lumina.backbones.blocks import (
    Attends,
    AttentionBlock,
    BlockContext,
    StepCache,
    TextKeyValue,
    check_heads,
)
from lumina.backbones.packing import (
    Grid,
    embed_frames,
    pack,
    pack_each,
    restore_frames,
    unpack_each,
)
from lumina.backbones.parallel import TokenSplit
from lumina.backbones.transformer import FlowTransformer
from lumina.nn.extrapolation import UNSCALED, RopeScaling
from lumina.nn.layers import (
    FeedForward,
    ModulatedOutput,
    ModulatedRMSNorm,
    PatchEmbed,
    RMSNorm,
    TimeClassEmbed,
    TimeTextEmbed,
    feed_forward_width,
)
from lumina.nn.moe import MixtureOfExperts
from lumina.nn.rope import (
    channels_of_axes,
    check_lent,
    crop_rope_table,
    grid_positions,
    rope_table,
)

ROUTINGS = {None: (None,), "time": ("time",), "space": ("space",), "both": ("time", "space")}
"""What the router of each feed-forward network of a block reads, if there is a router."""


class NextDiTBlock(AttentionBlock):
    """Attention, then one feed-forward network or two, each between two norms and gated."""

    def __init__(
        self,
        width: int,
        *,
        heads: int,
        kv_heads: int,
        inner_width: int,
        condition_width: int,
        text_width: int | None,
        eps: float,
        qk_norm: bool,
        has_pre_weights: bool = True,
        routing: str | None = None,
        experts: int = 8,
        chosen: int = 2,
    ):
        super().__init__(
            width, heads=heads, kv_heads=kv_heads, text_width=text_width, eps=eps, qk_norm=qk_norm
        )
        self.routing = ROUTINGS[routing]

        def make_network(reads: str | None) -> nn.Module:
            if reads is None:
                return FeedForward(width, inner_width=inner_width)
            return MixtureOfExperts(
                width,
                inner_width=inner_width,
                experts=experts,
                chosen=chosen,
                router_width=condition_width if reads == "time" else width,
            )

        self.feed_forward = make_network(self.routing[0])
        self.norm1 = ModulatedRMSNorm(
            width,
            condition_width=condition_width,
            eps=eps,
            parts=2 + 2 * len(self.routing),
            has_weight=has_pre_weights,
        )
        self.ffn_norm1 = RMSNorm(width, eps=eps, has_weight=has_pre_weights)
        self.norm2 = RMSNorm(width, eps=eps)
        self.ffn_norm2 = RMSNorm(width, eps=eps)
        if len(self.routing) > 1:
            self.second_forward = make_network(self.routing[1])
            self.second_norm1 = RMSNorm(width, eps=eps, has_weight=has_pre_weights)
            self.second_norm2 = RMSNorm(width, eps=eps)

    def forward(
        self,
        hidden_states: Float[Tensor, "b n d"],
        context: BlockContext,
        cached_text: TextKeyValue | None = None,
    ) -> Float[Tensor, "b n d"]:
        """Return the tokens after this block; `cached_text` is filled in if it is empty."""
        modulation = self.norm1.modulation(context.condition)
        scale, gate, *others = (context.spread(part) for part in modulation)
        normed = self.norm1.norm(hidden_states, 1 + scale)
        attended = self.attention(normed, context, cached_text)
        hidden_states = hidden_states + self.norm2(attended, gate.tanh())
        for network, (scale, gate) in zip(self._networks(), _pairs(others), strict=True):
            feed, norm1, norm2, reads = network
            normed = norm1(hidden_states, 1 + scale)
            forwarded = _feed(feed, normed, context, reads)
            hidden_states = hidden_states + norm2(forwarded, gate.tanh())
        return hidden_states

    def _networks(self) -> Sequence[tuple[nn.Module, nn.Module, nn.Module, str | None]]:
        networks: list[Any] = [(self.feed_forward, self.ffn_norm1, self.ffn_norm2, self.routing[0])]
        if len(self.routing) > 1:
            second = (self.second_forward, self.second_norm1, self.second_norm2, self.routing[1])
            networks.append(second)
        return networks


class NextDiT(FlowTransformer):
    """Predict the velocity of latent pictures, as diffusers' `LuminaNextDiT2DModel` does.

    Its state dict has the keys and shapes of that class, so either loads what the other saves.
    The class-conditional models and mixtures of experts of the original release are settings; so
    are sequences, points and frames of pictures, of which the latents have one axis or three.

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
        cross_attention_dim: Width of the text features. Has no effect where there are classes.
        scaling_factor: Kept for diffusers' configurations; has no effect.
        rope_axes: Channels of a head that are turned by frame, row and column. None stands for
            rows and columns in equal parts. Sequences have columns alone, and data without an order
            have none: (0, 0, 0).
        rope_theta: How much slower the last frequency of an axis turns than the first.
        rope_lent: Channels that rows and columns lend to frames, in equal parts: those of their
            slowest frequencies. So a network of pictures becomes one of frames, and keeps the rest.
        rope_frame_theta: The same as `rope_theta`, for borrowed channels.
        out_channels: Channels of the velocity, where the input has others besides the noisy
            latents. None stands for `in_channels`, or twice as many with `learn_sigma`.
        num_classes: Makes a model of classes instead of text, as those of ImageNet: norms before
            attention and feed-forward have no weights, and the output is shifted too.
        moe_routing: Makes feed-forward networks mixtures of experts: chosen by "time", by the
            tokens in "space", or "both", one after the other.
        num_experts: Experts of each mixture.
        experts_per_token: How many of them are used.

    Raises:
        ValueError: If heads or channels cannot be divided as asked.

    Source:
        Lumina-Next, arXiv:2406.18583; `lumina_next_t2i/models/model.py`,
        `Next-DiT-ImageNet/models/models.py` and `Next-DiT-MoE/models` of the original code.
    """

    _no_split_modules = ["NextDiTBlock"]
    _repeated_blocks = ["NextDiTBlock"]

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
        num_classes: int | None = None,
        moe_routing: str | None = None,
        num_experts: int = 8,
        experts_per_token: int = 2,
        rope_lent: int = 0,
        rope_frame_theta: float = 100.0,
        out_channels: int | None = None,
    ):
        super().__init__()
        kv_heads = num_kv_heads or num_attention_heads
        check_heads(hidden_size, heads=num_attention_heads, kv_heads=kv_heads)
        if moe_routing not in ROUTINGS:
            known = ", ".join(map(repr, ROUTINGS))
            raise ValueError(f"moe_routing must be one of {known}, got {moe_routing!r}")
        self.patch_size = patch_size
        self.out_channels = out_channels or (in_channels * 2 if learn_sigma else in_channels)
        self.head_dim = hidden_size // num_attention_heads
        self.rope_axes = channels_of_axes(rope_axes, head_width=self.head_dim)
        check_lent(rope_lent, self.rope_axes)
        self.rope_theta = rope_theta
        self.gradient_checkpointing = False
        condition_width = min(hidden_size, 1024)
        has_text = num_classes is None

        self.patch_embedder = PatchEmbed(
            patch_size=patch_size, channels=in_channels, width=hidden_size
        )
        if has_text:
            # The original code pads samples of different sizes with it. It is never seen, but
            # checkpoints have it.
            self.pad_token = nn.Parameter(torch.zeros(hidden_size), requires_grad=False)
            self.time_caption_embed = TimeTextEmbed(condition_width, text_width=cross_attention_dim)
        else:
            self.time_class_embed = TimeClassEmbed(condition_width, classes=num_classes)
        self.layers = nn.ModuleList(
            NextDiTBlock(
                hidden_size,
                heads=num_attention_heads,
                kv_heads=kv_heads,
                inner_width=feed_forward_width(
                    hidden_size, multiple_of=multiple_of, multiplier=ffn_dim_multiplier
                ),
                condition_width=condition_width,
                text_width=cross_attention_dim if has_text else None,
                eps=norm_eps,
                qk_norm=qk_norm,
                has_pre_weights=has_text,
                routing=moe_routing,
                experts=num_experts,
                chosen=experts_per_token,
            )
            for _ in range(num_layers)
        )
        self.token_split = TokenSplit()
        self.norm_out = ModulatedOutput(
            hidden_size,
            condition_width=condition_width,
            out_width=patch_size * patch_size * self.out_channels,
            has_shift=not has_text,
        )
        self.start_at_identity()
        self.share_queries_after_loading()

    def forward(
        self,
        hidden_states: Float[Tensor, "b c *grid"] | list[Tensor],
        timestep: Float[Tensor, " b"],
        encoder_hidden_states: Float[Tensor, "b m e"] | None = None,
        encoder_mask: Shaped[Tensor, "b m"] | None = None,
        image_rotary_emb: Shaped[Tensor, "table_rows table_cols half"] | None = None,
        cross_attention_kwargs: dict[str, Any] | None = None,
        return_dict: bool = True,
        *,
        class_labels: Int[Tensor, " b"] | None = None,
        rope: RopeScaling | list[RopeScaling] = UNSCALED,
        cache: StepCache | None = None,
        attend: Attends = None,
        attend_text: Attends = None,
        balance: list[Tensor] | None = None,
    ) -> Transformer2DModelOutput | tuple[Float[Tensor, "b out *grid"] | list[Tensor]]:
        """Return the velocity of noisy latents, in `sample`.

        Args:
            hidden_states: Noisy latents with two axes (pictures), three (frames of pictures) or one
                (sequences and points); a list if their sizes differ, and so is the result.
            timestep: Times in [0, 1], where 0 is noise.
            encoder_hidden_states: Features of each text token.
            encoder_mask: How much each text token counts in the mean of the text. Attention sees
                those that are not 0. A sample of zeros alone takes nothing from its text. None
                counts all tokens alike.
            image_rotary_emb: Rotation of each patch, as complex numbers or as real parts alone,
                for a grid at least as large as that of the latents. None makes the model's own.
            cross_attention_kwargs: May hold `base_sequence_length`, the number of tokens that
                the scores of attention to tokens are scaled for; in a list from the longest
                sample, as the original code does it.
            return_dict: Whether to return an object rather than a tuple.
            class_labels: Classes, for models of classes; their number itself stands for none.
            rope: How positions are read on a larger grid than that of training, in the model's
                own rotations. `lumina.nn.extrapolation` makes it. For a list of samples it may be
                a list, with one for each.
            cache: Keeps what does not change from one call to the next.
            attend: Attention to tokens, of all blocks or of each. None takes the kernel chosen by
                `set_attention_backend`.
            attend_text: Attention to the text, in the same way.
            balance: Gets the balance loss of each mixture of experts.

        Raises:
            ValueError: If the latents do not fill whole patches, `image_rotary_emb` is too
                small, `base_sequence_length` is not above 1, text or classes are missing, or
                there is a list of `rope` for another number of samples.
        """
        if isinstance(hidden_states, list):
            grids = [self._grid(sample[None]) for sample in hidden_states]
        else:
            grids = [self._grid(hidden_states)]
        packed = pack_each(hidden_states, self._tokens)
        device = packed.tokens.device
        scalings = rope if isinstance(rope, list) else [rope] * len(grids)
        ropes = [
            self._rope(image_rotary_emb, grid, scaling, device, cache)
            for grid, scaling in zip(grids, scalings, strict=True)
        ]
        context = self.make_context(
            packed,
            ropes[0] if packed.row is None else pack(ropes).tokens,
            rope,
            timestep=timestep,
            text=encoder_hidden_states,
            text_weights=encoder_mask,
            labels=class_labels,
            cross_attention_kwargs=cross_attention_kwargs,
            attend=attend,
            attend_text=attend_text,
            balance=balance,
        )
        values = self.norm_out(self.run_blocks(packed.tokens, context, cache), context.condition)
        sample = unpack_each(packed._replace(tokens=values), hidden_states, self._data)
        return Transformer2DModelOutput(sample=sample) if return_dict else (sample,)

    @property
    def fits_diffusers(self) -> bool:
        """Whether diffusers' class computes the same: text, one network, one way to rotate."""
        return all(self.config[name] == default for name, default in _ONLY_OURS.items())

    def to_json_string(self) -> str:
        """The configuration as JSON, which is diffusers' own where that class can do the same."""
        config = json.loads(super().to_json_string())
        if self.fits_diffusers:
            for name in _ONLY_OURS:
                del config[name]
            del config["num_experts"], config["experts_per_token"], config["rope_frame_theta"]
            config["_class_name"] = "LuminaNextDiT2DModel"
            config["num_kv_heads"] = config["num_kv_heads"] or config["num_attention_heads"]
        return json.dumps(config, indent=2, sort_keys=True) + "\n"

    def _grid(self, data: Float[Tensor, "b c *grid"]) -> Grid:
        return Grid.of(data, axes=data.ndim - 2, patch_size=self.patch_size)

    def _tokens(self, data: Float[Tensor, "b c *grid"]) -> Float[Tensor, "b n d"]:
        return embed_frames(data, self.patch_embedder).flatten(1, 2)

    def _data(
        self, values: Float[Tensor, "b n values"], like: Float[Tensor, "b c *grid"]
    ) -> Float[Tensor, "b out *grid"]:
        frames = self._grid(like).frames
        return restore_frames(values.unflatten(1, (frames, -1)), like, self.patch_size)

    def make_rope(
        self,
        rows: int,
        cols: int,
        scaling: RopeScaling = UNSCALED,
        *,
        frames: int = 1,
        device: torch.device | str | None = None,
    ) -> Float[Tensor, "n half 2"]:
        """Rotations of each patch of a grid, as `rope_table` has them."""
        positions = grid_positions(frames=frames, rows=rows, cols=cols, device=device)
        return self.rope_at(positions, scaling)

    def rope_at(
        self, positions: Float[Tensor, "n 3"], scaling: RopeScaling = UNSCALED
    ) -> Float[Tensor, "n half 2"]:
        """Rotations at any frames, rows and columns, which need not be whole numbers."""
        return rope_table(
            positions,
            channels=self.rope_axes,
            theta=self.rope_theta,
            scaling=scaling,
            lent=self.config["rope_lent"],
            lent_theta=self.config["rope_frame_theta"],
        )

    def _rope(
        self,
        table: Shaped[Tensor, "table_rows table_cols half"] | None,
        grid: Grid,
        scaling: RopeScaling,
        device: torch.device,
        cache: StepCache | None,
    ) -> Float[Tensor, "n half 2"]:
        frames, rows, cols = grid
        if table is not None:
            return crop_rope_table(table, rows=rows, cols=cols).to(device)
        make = partial(self.make_rope, rows, cols, scaling, frames=frames, device=device)
        return make() if cache is None else cache.rope(make, grid, scaling)


_ONLY_OURS = {
    "rope_axes": None,
    "rope_theta": 10000,
    "num_classes": None,
    "moe_routing": None,
    "rope_lent": 0,
    "out_channels": None,
}
"""Settings that diffusers' class lacks, and the values at which it computes the same."""


def _pairs(values: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    return list(zip(values[::2], values[1::2], strict=True))


def _feed(
    network: nn.Module, normed: Float[Tensor, "b n d"], context: BlockContext, reads: str | None
) -> Float[Tensor, "b n d"]:
    if reads is None:
        return network(normed)
    route = normed if reads == "space" else context.spread(context.time.unsqueeze(1))
    return network(normed, route, context.balance)
