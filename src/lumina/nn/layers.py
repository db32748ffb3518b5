"""The layers of a flow transformer that are not attention."""

import math
from typing import Any

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class RMSNorm(nn.Module):
    """Scale each token to a root mean square of 1, then by a learned weight."""

    def __init__(self, width: int, *, eps: float = 1e-5, has_weight: bool = True):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width)) if has_weight else None

    def forward(
        self, x: Float[Tensor, "b n d"], factor: Float[Tensor, "b #n d"] | None = None
    ) -> Float[Tensor, "b n d"]:
        """Normalise in float32 at least; `factor` multiplies the learned weight."""
        dtype = torch.promote_types(x.dtype, torch.float32)
        weights = [part.to(dtype) for part in (self.weight, factor) if part is not None]
        scale = math.prod(weights[1:], start=weights[0]) if weights else x.new_ones((), dtype=dtype)
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            return _Normalize.apply(x, scale, self.eps)
        return _normalize(x, scale, self.eps)[0]


def _normalize(x: Tensor, scale: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """What is scaled, what it was before that, and the inverse of the root mean square."""
    wide = x.to(scale.dtype)
    squares = torch.linalg.vecdot(wide, wide).unsqueeze(-1)
    inverse = torch.rsqrt(squares / x.shape[-1] + eps)
    normed = wide * inverse
    return (normed * scale).to(x.dtype), normed, inverse


class _Normalize(torch.autograd.Function):
    """`_normalize` with a backward pass in fewer rounds over memory than automatic gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, eps: float) -> Tensor:
        scaled, normed, inverse = _normalize(x, scale, eps)
        ctx.save_for_backward(normed, inverse, scale)
        return scaled

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        normed, inverse, scale = ctx.saved_tensors
        wide = gradient.to(scale.dtype)
        along = wide * normed
        of_scale = along.sum_to_size(scale.shape)
        along = torch.linalg.vecdot(along, scale.expand_as(along)).unsqueeze(-1)
        of_x = (wide * scale).addcmul_(normed, along, value=-1 / wide.shape[-1]).mul_(inverse)
        return of_x.to(gradient.dtype), of_scale, None


class ModulatedRMSNorm(nn.Module):
    """Normalise the tokens of a block, and read the block's modulation from a condition."""

    def __init__(
        self,
        width: int,
        *,
        condition_width: int,
        eps: float,
        parts: int = 4,
        has_weight: bool = True,
    ):
        super().__init__()
        self.parts = parts
        self.linear = nn.Linear(condition_width, parts * width)
        self.norm = RMSNorm(width, eps=eps, has_weight=has_weight)

    def modulation(self, condition: Float[Tensor, "b c"]) -> tuple[Float[Tensor, "b 1 d"], ...]:
        """The shifts, scales and gates of the block, in the order of the checkpoint."""
        return self.linear(condition).unsqueeze(1).chunk(self.parts, dim=-1)


class FeedForward(nn.Module):
    """Gated feed-forward network (SwiGLU)."""

    tokens_at_once = 2048

    def __init__(self, width: int, *, inner_width: int):
        super().__init__()
        self.linear_1 = nn.Linear(width, inner_width, bias=False)
        self.linear_2 = nn.Linear(inner_width, width, bias=False)
        self.linear_3 = nn.Linear(width, inner_width, bias=False)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """Transform each token alone."""
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            return self.linear_2(nn.functional.silu(self.linear_1(x)) * self.linear_3(x))
        # Here are the widest tensors of a network, and so the peak of its memory: two of them at
        # once rather than three, and not for all tokens together.
        parts = [self._forward_in_place(part) for part in x.split(self.tokens_at_once, dim=1)]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def _forward_in_place(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        inner = nn.functional.silu(self.linear_1(x), inplace=True)
        return self.linear_2(inner.mul_(self.linear_3(x)))


def feed_forward_width(width: int, *, multiple_of: int, multiplier: float | None) -> int:
    """Inner width that gives a gated network the weights of a plain one four times as wide.

    Args:
        width: Width of the tokens.
        multiple_of: What to round the result up to a multiple of.
        multiplier: Factor on the result before rounding. None stands for 1.
    """
    inner_width = int(4 * 2 * width / 3)
    if multiplier is not None:
        inner_width = int(multiplier * inner_width)
    return multiple_of * math.ceil(inner_width / multiple_of)


class PatchEmbed(nn.Module):
    """Turn square patches of a picture into tokens, row by row."""

    def __init__(self, *, patch_size: int, channels: int, width: int):
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Linear(patch_size * patch_size * channels, width)

    def forward(self, x: Float[Tensor, "b c height width"]) -> Float[Tensor, "b n d"]:
        """Embed each patch, its values ordered by channel, row and column."""
        size = self.patch_size
        patches = x.unflatten(3, (-1, size)).unflatten(2, (-1, size))  # (b, c, rows, p, cols, p)
        return self.proj(patches.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2))


class ModulatedOutput(nn.Module):
    """Normalise, scale by a condition, and project tokens to the values of their patches.

    Args:
        width: Width of the tokens.
        condition_width: Width of the condition.
        out_width: Values of each token.
        has_shift: Also shift by the condition, which then holds the shift first.
    """

    def __init__(
        self, width: int, *, condition_width: int, out_width: int, has_shift: bool = False
    ):
        super().__init__()
        self.has_shift = has_shift
        self.linear_1 = nn.Linear(condition_width, (1 + has_shift) * width)
        self.linear_2 = nn.Linear(width, out_width)

    def forward(
        self, x: Float[Tensor, "b n d"], condition: Float[Tensor, "b c"]
    ) -> Float[Tensor, "b n out"]:
        """Return the values of each token's patch."""
        normed = nn.functional.layer_norm(x, x.shape[-1:], eps=1e-6)
        modulation = self.linear_1(condition).unsqueeze(1)
        if not self.has_shift:
            return self.linear_2(normed * (1 + modulation))
        shift, scale = modulation.chunk(2, dim=-1)
        return self.linear_2(normed * (1 + scale) + shift)


def unpatchify(
    tokens: Float[Tensor, "b n values"], *, patch_size: int, rows: int, cols: int
) -> Float[Tensor, "b c height width"]:
    """Put patches back in place, their values ordered by row, column and channel."""
    patches = tokens.unflatten(2, (patch_size, patch_size, -1)).unflatten(1, (rows, cols))
    return patches.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)


class TimeEmbed(nn.Module):
    """Embed times in [0, 1]."""

    frequencies = 256

    def __init__(self, width: int):
        super().__init__()
        self.linear_1 = nn.Linear(self.frequencies, width)
        self.linear_2 = nn.Linear(width, width)

    def forward(self, times: Shaped[Tensor, " b"], dtype: torch.dtype) -> Float[Tensor, "b c"]:
        """Return one vector of type `dtype` for each time."""
        half = self.frequencies // 2
        exponents = torch.arange(half, dtype=torch.float32, device=times.device) / half
        angles = times.float().unsqueeze(-1) * torch.exp(-math.log(10000) * exponents)
        waves = torch.cat([angles.cos(), angles.sin()], dim=-1)
        return self.linear_2(nn.functional.silu(self.linear_1(waves.to(dtype))))


class TimeTextEmbed(nn.Module):
    """Embed a time, and the sum of it and of a text's weighted mean."""

    def __init__(self, width: int, *, text_width: int):
        super().__init__()
        self.timestep_embedder = TimeEmbed(width)
        self.caption_embedder = nn.Sequential(
            nn.LayerNorm(text_width), nn.Linear(text_width, width)
        )

    def forward(
        self,
        times: Shaped[Tensor, " b"],
        text: Float[Tensor, "b m e"],
        weights: Shaped[Tensor, "b m"] | None = None,
    ) -> tuple[Float[Tensor, "b c"], Float[Tensor, "b c"]]:
        """Return two vectors for each sample: of the time alone, and of both.

        Args:
            times: Times, in [0, 1] in all models but those of sound.
            text: Features of each text token.
            weights: How much each token counts. If all are 0, the mean is 0. None counts all alike.
        """
        if weights is None:
            weights = torch.ones_like(text[..., 0])
        weights = weights.float().unsqueeze(-1)
        total = weights.sum(1)
        total = total.where((weights != 0).any(1), 1)
        pooled = (text * weights).sum(1) / total
        time = self.timestep_embedder(times, text.dtype)
        return time, time + self.caption_embedder(pooled.to(text.dtype))


class TimeClassEmbed(nn.Module):
    """Embed a time, and the sum of it and of a class."""

    def __init__(self, width: int, *, classes: int):
        super().__init__()
        self.timestep_embedder = TimeEmbed(width)
        self.label_embedder = nn.Embedding(classes + 1, width)

    def forward(
        self, times: Float[Tensor, " b"], labels: Int[Tensor, " b"]
    ) -> tuple[Float[Tensor, "b c"], Float[Tensor, "b c"]]:
        """Return two vectors for each sample: of the time alone, and of both.

        Args:
            times: Times in [0, 1].
            labels: Classes; their number itself stands for none.
        """
        label = self.label_embedder(labels)
        time = self.timestep_embedder(times, label.dtype)
        return time, time + label
