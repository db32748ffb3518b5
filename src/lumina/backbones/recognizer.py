"""Next-DiT without time and text: what a picture of any size shows."""

from typing import NamedTuple

import torch
from diffusers.configuration_utils import register_to_config

# Pipelines of diffusers load a class if its module has the name of a base class they know.
from diffusers.models.modeling_utils import ModelMixin  # noqa: F401
from jaxtyping import Float
from torch import Tensor, nn

from lumina.backbones.blocks import Attends, BlockContext, check_heads
from lumina.backbones.next_dit import NextDiTBlock
from lumina.backbones.packing import Packed, pack, pack_each
from lumina.backbones.parallel import TokenSplit
from lumina.backbones.transformer import FlowTransformer
from lumina.nn.layers import PatchEmbed, RMSNorm, feed_forward_width
from lumina.nn.rope import channels_of_axes, grid_positions, rope_table

POSITIONS = ("rotary", "learned")
"""How tokens know where they are: turned by row and column, or by a table that is added."""

_TABLE_SPREAD = 0.02


class Recognition(NamedTuple):
    """What a network finds in each picture: how much speaks for each class, and of what."""

    logits: Float[Tensor, "b classes"]
    features: Float[Tensor, "b d"]


class NextDiTClassifier(FlowTransformer):
    """Tell classes of pictures of any sizes, whose tokens lie in one batch without mixing.

    A picture keeps its aspect ratio and is cut into as many patches as it has. The blocks are
    those of Next-DiT, and a learned constant stands where the time and the text would be.

    Args:
        num_classes: How many classes there are.
        sample_size: Height and width of a picture of the usual size. It is the size of the table
            of learned positions; rotary positions do without.
        patch_size: Height and width of a patch, in pixels.
        in_channels: Channels of a picture.
        hidden_size: Width of the tokens.
        num_layers: Number of blocks.
        num_attention_heads: Heads of the queries.
        num_kv_heads: Heads of the keys and values. None stands for `num_attention_heads`.
        multiple_of: What the inner width of the feed-forward networks is a multiple of.
        norm_eps: Added to mean squares before their root is taken.
        qk_norm: Whether queries and keys are normalised.
        condition_width: Numbers of the learned constant.
        positions: "rotary", or "learned": a table that is added to the tokens, and interpolated
            bicubically for other grids than its own, as vision transformers have it.
        rope_theta: How much slower the last frequency of an axis turns than the first.
        rope_reach: Side, in those of the usual size, up to which rotary positions are what they
            are. Larger pictures (by the mean of their sides) have theirs pressed together into it.

    Raises:
        ValueError: If heads or channels cannot be divided as asked, or positions are unknown.

    Source:
        Lumina-Next, arXiv:2406.18583, section 4; pressing positions together, arXiv:2306.15595.
        What is pooled is in no source: here the mean of the tokens that are no padding.
    """

    _no_split_modules = ["NextDiTBlock"]
    _repeated_blocks = ["NextDiTBlock"]

    @register_to_config
    def __init__(
        self,
        num_classes: int = 1000,
        sample_size: int = 224,
        patch_size: int = 16,
        in_channels: int = 3,
        hidden_size: int = 768,
        num_layers: int = 12,
        num_attention_heads: int = 12,
        num_kv_heads: int | None = None,
        multiple_of: int = 256,
        norm_eps: float = 1e-5,
        qk_norm: bool = True,
        condition_width: int = 8,
        positions: str = "rotary",
        rope_theta: float = 10000.0,
        rope_reach: float = 1.375,
    ):
        super().__init__()
        kv_heads = num_kv_heads or num_attention_heads
        check_heads(hidden_size, heads=num_attention_heads, kv_heads=kv_heads)
        if positions not in POSITIONS:
            known = ", ".join(map(repr, POSITIONS))
            raise ValueError(f"positions must be one of {known}, got {positions!r}")
        self.patch_size = patch_size
        self.head_dim = hidden_size // num_attention_heads
        self.rope_axes = channels_of_axes(None, head_width=self.head_dim)
        self.rope_theta = rope_theta
        self.rope_reach = rope_reach * sample_size / patch_size  # in patches
        self.gradient_checkpointing = False

        self.patch_embedder = PatchEmbed(
            patch_size=patch_size, channels=in_channels, width=hidden_size
        )
        self.condition = nn.Parameter(torch.ones(condition_width))
        self.position_embed = None
        if positions == "learned":
            side = sample_size // patch_size
            table = torch.randn(hidden_size, side, side) * _TABLE_SPREAD
            self.position_embed = nn.Parameter(table)
        self.layers = nn.ModuleList(
            NextDiTBlock(
                hidden_size,
                heads=num_attention_heads,
                kv_heads=kv_heads,
                inner_width=feed_forward_width(
                    hidden_size, multiple_of=multiple_of, multiplier=None
                ),
                condition_width=condition_width,
                text_width=None,
                eps=norm_eps,
                qk_norm=qk_norm,
            )
            for _ in range(num_layers)
        )
        self.token_split = TokenSplit()
        self.norm_out = RMSNorm(hidden_size, eps=norm_eps)
        self.head = nn.Linear(hidden_size, num_classes)
        self.start_at_identity()
        nn.init.zeros_(self.head.weight)

    def forward(
        self, pictures: Float[Tensor, "b c height width"] | list[Tensor], *, attend: Attends = None
    ) -> Recognition:
        """Return logits and features of each picture.

        Args:
            pictures: Values in [-1, 1]; a list if their sizes differ.
            attend: Attention, of all blocks or of each. None takes the kernel chosen by
                `set_attention_backend`.

        Raises:
            ValueError: If a picture does not fill whole patches.
        """
        samples = pictures if isinstance(pictures, list) else [pictures]
        grids = [self._grid(sample) for sample in samples]
        packed = pack_each(pictures, self.patch_embedder)
        if self.position_embed is not None:
            tables = [self._table(*grid) for grid in grids]
            tokens = packed.tokens + (tables[0] if packed.row is None else pack(tables).tokens)
            packed = packed._replace(tokens=tokens)
        context = self._context(packed, grids, attend)
        tokens = self.norm_out(self.run_blocks(packed.tokens, context, None))
        features = _mean(packed._replace(tokens=tokens))
        return Recognition(self.head(features.to(tokens.dtype)), features)

    def features(
        self, pictures: Float[Tensor, "b c height width"] | list[Tensor]
    ) -> Float[Tensor, "b d"]:
        """The mean token of each picture, which says what it shows. Pictures as in `forward`."""
        return self(pictures).features

    def logits(
        self, pictures: Float[Tensor, "b c height width"] | list[Tensor]
    ) -> Float[Tensor, "b classes"]:
        """How much speaks for each class. Pictures as in `forward`."""
        return self(pictures).logits

    def _context(
        self, packed: Packed, grids: list[tuple[int, int]], attend: Attends
    ) -> BlockContext:
        ropes = [self._rope(*grid, packed.tokens.device) for grid in grids]
        samples = len(packed.tokens) if packed.row is None else 1  # which all in the row share
        condition = nn.functional.silu(self.condition).expand(samples, -1)
        return BlockContext(
            condition=condition,
            time=condition,
            rope=ropes[0] if packed.row is None else pack(ropes).tokens,
            row=packed.row,
            text=None,
            text_mask=None,
            scale=self.head_dim**-0.5,
            attend=attend,
            attend_text=None,
            balance=None,
        )

    def _grid(self, picture: Float[Tensor, "*b c height width"]) -> tuple[int, int]:
        height, width = picture.shape[-2:]
        if height % self.patch_size or width % self.patch_size:
            raise ValueError(
                f"a picture of {height} x {width} does not divide into patches of "
                f"{self.patch_size} x {self.patch_size}"
            )
        return height // self.patch_size, width // self.patch_size

    def _rope(self, rows: int, cols: int, device: torch.device) -> Float[Tensor, "n half 2"]:
        """Rotations of each patch: none where positions are learned."""
        positions = grid_positions(rows=rows, cols=cols, device=device)
        if self.position_embed is not None:
            positions = torch.zeros_like(positions)
        positions = positions * min(1.0, self.rope_reach / (rows * cols) ** 0.5)
        return rope_table(positions, channels=self.rope_axes, theta=self.rope_theta)

    def _table(self, rows: int, cols: int) -> Float[Tensor, "n d"]:
        """What is added to each patch of a grid."""
        table: Tensor = self.position_embed  # type: ignore[assignment]  # asked for where it is
        if table.shape[1:] != (rows, cols):
            table = nn.functional.interpolate(
                table[None].float(), size=(rows, cols), mode="bicubic", align_corners=False
            )[0].to(table.dtype)
        return table.flatten(1).mT


def _mean(packed: Packed) -> Float[Tensor, "b d"]:
    """Mean of the tokens of each sample that are no padding, in float32."""
    tokens, mask = packed.tokens.float(), packed.mask
    if mask is None:
        return tokens.mean(1)
    weights = mask.unsqueeze(-1).to(tokens.dtype)
    return (tokens * weights).sum(1) / weights.sum(1)
