"""Flag-DiT, the transformer of Lumina-T2X: any data as one sequence of tokens."""

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
from lumina.backbones.packing import Grid, embed_frames, pack_each, restore_frames, unpack_each
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
from lumina.nn.rope import rope_table


class FlagDiTBlock(AttentionBlock):
    """Attention, then a feed-forward network, each shifted, scaled and gated by the condition."""

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
    ):
        super().__init__(
            width, heads=heads, kv_heads=kv_heads, text_width=text_width, eps=eps, qk_norm=qk_norm
        )
        self.feed_forward = FeedForward(width, inner_width=inner_width)
        self.norm1 = ModulatedRMSNorm(width, condition_width=condition_width, eps=eps, parts=6)
        self.ffn_norm1 = RMSNorm(width, eps=eps)

    def forward(
        self,
        hidden_states: Float[Tensor, "b n d"],
        context: BlockContext,
        cached_text: TextKeyValue | None = None,
    ) -> Float[Tensor, "b n d"]:
        """Return the tokens after this block; `cached_text` is filled in if it is empty."""
        modulation = (context.spread(part) for part in self.norm1.modulation(context.condition))
        shift, scale, gate, forward_shift, forward_scale, forward_gate = modulation
        normed = self.norm1.norm(hidden_states, 1 + scale) + shift
        hidden_states = hidden_states + gate * self.attention(normed, context, cached_text)
        normed = self.ffn_norm1(hidden_states, 1 + forward_scale) + forward_shift
        return hidden_states + forward_gate * self.feed_forward(normed)


class FlagDiT(FlowTransformer):
    """Predict the velocity of pictures, video or sound as one sequence of tokens.

    Pictures are read row by row, with a learned token after each row ([nextline]); video frame by
    frame, with another after each frame ([nextframe]). A sequence has neither.

    Args:
        sample_size: Height and width of the latents of a picture of the usual size.
        patch_size: Height and width of a patch; 1 for sequences.
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
        num_classes: Makes a model of classes instead of text, as that of ImageNet.
        has_line_token: Whether a token ends each row. Models of classes and sound have none.
        has_frame_token: Whether a token ends each frame of a video.
        rope_theta: How much slower the last pair of channels turns than the first.
        out_channels: As in `NextDiT`.

    Raises:
        ValueError: If heads or channels cannot be divided as asked.

    Source:
        Lumina-T2X, arXiv:2405.05945; `lumina_t2i/models/model.py`,
        `Flag-DiT-ImageNet/models/model.py` and
        `lumina_audio/models/diffusion/flag_large_dit.py` of the original code. [nextframe] was
        never released: here it ends a frame as [nextline] ends a row.
    """

    _no_split_modules = ["FlagDiTBlock"]
    _repeated_blocks = ["FlagDiTBlock"]

    @register_to_config
    def __init__(
        self,
        sample_size: int = 128,
        patch_size: int = 2,
        in_channels: int = 4,
        hidden_size: int = 3072,
        num_layers: int = 32,
        num_attention_heads: int = 32,
        num_kv_heads: int | None = None,
        multiple_of: int = 256,
        ffn_dim_multiplier: float | None = None,
        norm_eps: float = 1e-5,
        learn_sigma: bool = True,
        qk_norm: bool = True,
        cross_attention_dim: int = 4096,
        num_classes: int | None = None,
        has_line_token: bool = True,
        has_frame_token: bool = False,
        rope_theta: float = 10000.0,
        out_channels: int | None = None,
    ):
        super().__init__()
        kv_heads = num_kv_heads or num_attention_heads
        check_heads(hidden_size, heads=num_attention_heads, kv_heads=kv_heads)
        self.patch_size = patch_size
        self.out_channels = out_channels or (in_channels * 2 if learn_sigma else in_channels)
        self.head_dim = hidden_size // num_attention_heads
        self.rope_theta = rope_theta
        self.gradient_checkpointing = False
        condition_width = min(hidden_size, 1024)
        has_text = num_classes is None

        self.patch_embedder = PatchEmbed(
            patch_size=patch_size, channels=in_channels, width=hidden_size
        )
        if has_text:
            self.time_caption_embed = TimeTextEmbed(condition_width, text_width=cross_attention_dim)
        else:
            self.time_class_embed = TimeClassEmbed(condition_width, classes=num_classes)
        self.line_token = nn.Parameter(torch.randn(hidden_size) * 0.02) if has_line_token else None
        self.frame_token = (
            nn.Parameter(torch.randn(hidden_size) * 0.02) if has_frame_token else None
        )
        # The original code pads samples of different sizes with it. It is never seen, but
        # checkpoints of pictures have it.
        self.pad_token = (
            nn.Parameter(torch.zeros(hidden_size), requires_grad=False) if has_line_token else None
        )
        self.layers = nn.ModuleList(
            FlagDiTBlock(
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
            )
            for _ in range(num_layers)
        )
        self.token_split = TokenSplit()
        self.norm_out = ModulatedOutput(
            hidden_size,
            condition_width=condition_width,
            out_width=patch_size * patch_size * self.out_channels,
            has_shift=True,
        )
        self.start_at_identity()
        self.share_queries_after_loading()

    def forward(
        self,
        hidden_states: Float[Tensor, "b c *grid"] | list[Tensor],
        timestep: Shaped[Tensor, " b"],
        encoder_hidden_states: Float[Tensor, "b m e"] | None = None,
        encoder_mask: Shaped[Tensor, "b m"] | None = None,
        cross_attention_kwargs: dict[str, Any] | None = None,
        return_dict: bool = True,
        *,
        class_labels: Int[Tensor, " b"] | None = None,
        rope: RopeScaling = UNSCALED,
        cache: StepCache | None = None,
        attend: Attends = None,
        attend_text: Attends = None,
    ) -> Transformer2DModelOutput | tuple[Float[Tensor, "b out *grid"] | list[Tensor]]:
        """Return the velocity of noisy latents, in `sample`.

        Args:
            hidden_states: Noisy latents with one axis (sequences), two (pictures) or three
                (frames of a video); a list if their sizes differ, and so is the result.
            timestep: Times in [0, 1], where 0 is noise; thousandths, 0 to 999, in the released
                models of sound.
            encoder_hidden_states: Features of each text token.
            encoder_mask: As in `NextDiT`.
            cross_attention_kwargs: May hold `base_sequence_length`, as in `NextDiT`.
            return_dict: Whether to return an object rather than a tuple.
            class_labels: Classes, for models of classes; their number itself stands for none.
            rope: How positions are read in a longer sequence than those of training.
            cache: Keeps what does not change from one call to the next.
            attend: Attention to tokens, as in `NextDiT`.
            attend_text: Attention to the text, as in `NextDiT`.

        Raises:
            ValueError: If the latents do not fill whole patches, `base_sequence_length` is not
                above 1, or text or classes are missing.
        """
        packed = pack_each(hidden_states, self._tokens)
        tokens = packed.tokens
        context = self.make_context(
            packed,
            self._rope(tokens.shape[1], rope, tokens.device, cache),
            rope,
            timestep=timestep,
            text=encoder_hidden_states,
            text_weights=encoder_mask,
            labels=class_labels,
            cross_attention_kwargs=cross_attention_kwargs,
            attend=attend,
            attend_text=attend_text,
        )
        values = self.norm_out(self.run_blocks(tokens, context, cache), context.condition)
        sample = unpack_each(packed._replace(tokens=values), hidden_states, self._data)
        return Transformer2DModelOutput(sample=sample) if return_dict else (sample,)

    def _tokens(self, data: Float[Tensor, "b c *grid"]) -> Float[Tensor, "b n d"]:
        """Patches in reading order, with what ends each row and each frame."""
        _, rows, cols = self._grid(data)
        tokens = embed_frames(data, self.patch_embedder).unflatten(2, (rows, cols))
        if self.line_token is not None:
            tokens = torch.cat([tokens, self.line_token.expand_as(tokens[..., :1, :])], dim=-2)
        tokens = tokens.flatten(2, 3)
        if self.frame_token is not None:
            tokens = torch.cat([tokens, self.frame_token.expand_as(tokens[..., :1, :])], dim=-2)
        return tokens.flatten(1, 2)

    def _data(
        self, values: Float[Tensor, "b n values"], like: Float[Tensor, "b c *grid"]
    ) -> Float[Tensor, "b out *grid"]:
        """Values of patches, put back where `_tokens` took them from."""
        frames, rows, cols = self._grid(like)
        values = values.unflatten(1, (frames, -1))
        if self.frame_token is not None:
            values = values[:, :, :-1]
        values = values.unflatten(2, (rows, -1))[..., :cols, :].flatten(2, 3)
        return restore_frames(values, like, self.patch_size)

    def _grid(self, data: Float[Tensor, "b c *grid"]) -> Grid:
        return Grid.of(data, axes=data.ndim - 2, patch_size=self.patch_size)

    def _rope(
        self, tokens: int, scaling: RopeScaling, device: torch.device, cache: StepCache | None
    ) -> Float[Tensor, "n half 2"]:
        make = partial(self._make_rope, tokens, scaling, device)
        return make() if cache is None else cache.rope(make, tokens, scaling)

    def _make_rope(
        self, tokens: int, scaling: RopeScaling, device: torch.device
    ) -> Float[Tensor, "n half 2"]:
        positions = torch.arange(tokens, device=device).float().unsqueeze(-1)
        return rope_table(
            positions, channels=(self.head_dim,), theta=self.rope_theta, scaling=scaling
        )
