"""The autoencoder of mel spectrograms, with bands as channels of convolutions over time.

Weights have the names that they have in the original release.
"""

from collections.abc import Sequence

from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput, DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils.accelerate_utils import apply_forward_hook
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from lumina.nn.attention import fused_attend


class MelAutoencoder(ModelMixin, ConfigMixin):
    """Turn mel spectrograms into fewer, Gaussian latents over time, and back.

    Args:
        in_channels: Bands of the spectrogram.
        latent_channels: Channels of the latents.
        width: Channels of the first level.
        multipliers: Channels of each level, relative to `width`.
        blocks: Residual blocks of each level; decoding has one more.
        kernel_size: Frames that the convolutions of the encoder see.
        halved_levels: Levels, from 0, after which there are half as many frames.
        groups: Groups of each normalization.
        has_attention: Whether the middle attends over all frames.
        scaling_factor: What latents are multiplied by before a backbone sees them.
        mel_mean: What is taken from spectrograms before they are encoded.
        mel_spread: What they are then divided by.

    Raises:
        ValueError: If a level's channels cannot be divided into the groups.

    Source:
        Lumina-Next, arXiv:2406.18583; `lumina_audio/models/autoencoder1d.py` of the original
        code, whose configuration is the default.
    """

    @register_to_config
    def __init__(
        self,
        in_channels: int = 80,
        latent_channels: int = 20,
        width: int = 384,
        multipliers: Sequence[int] = (1, 2, 4),
        blocks: int = 2,
        kernel_size: int = 5,
        halved_levels: Sequence[int] = (0,),
        groups: int = 32,
        has_attention: bool = True,
        scaling_factor: float = 1.0,
        mel_mean: float = 0.0,
        mel_spread: float = 1.0,
    ):
        super().__init__()
        widths = [width * multiplier for multiplier in multipliers]
        # The last level has no other to hand its frames to when decoding, but the original code
        # halves there too.
        self.encoder = Encoder(
            in_channels,
            2 * latent_channels,
            widths=widths,
            blocks=blocks,
            kernel_size=kernel_size,
            halved=halved_levels,
            groups=groups,
            has_attention=has_attention,
        )
        self.decoder = Decoder(
            latent_channels,
            in_channels,
            widths=widths,
            blocks=blocks + 1,
            kernel_size=kernel_size,
            doubled=[level + 1 for level in halved_levels],
            groups=groups,
            has_attention=has_attention,
        )
        self.quant_conv = nn.Conv1d(2 * latent_channels, 2 * latent_channels, 1)
        self.post_quant_conv = nn.Conv1d(latent_channels, latent_channels, 1)

    @apply_forward_hook
    def encode(self, mel: Float[Tensor, "b mels frames"]) -> AutoencoderKLOutput:
        """Distribution of the latents, in `latent_dist`, not scaled."""
        scaled = (mel - self.config["mel_mean"]) / self.config["mel_spread"]
        moments = self.quant_conv(self.encoder(scaled))
        return AutoencoderKLOutput(latent_dist=DiagonalGaussianDistribution(moments))

    @apply_forward_hook
    def decode(self, latents: Float[Tensor, "b c latent_frames"]) -> DecoderOutput:
        """The spectrogram of latents that are not scaled, in `sample`."""
        scaled = self.decoder(self.post_quant_conv(latents))
        return DecoderOutput(sample=scaled * self.config["mel_spread"] + self.config["mel_mean"])

    def forward(self, mel: Float[Tensor, "b mels frames"]) -> DecoderOutput:
        """The spectrogram after encoding and decoding."""
        return self.decode(self.encode(mel).latent_dist.mode())


class Encoder(nn.Module):
    """Levels of residual blocks, from the spectrogram to moments of its latents."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        widths: Sequence[int],
        blocks: int,
        kernel_size: int,
        halved: Sequence[int],
        groups: int,
        has_attention: bool,
    ):
        super().__init__()
        self.conv_in = _conv(in_channels, widths[0], kernel_size)
        self.down = nn.ModuleList()
        before = widths[0]
        for level, width in enumerate(widths):
            inputs = [before] + [width] * (blocks - 1)
            resample = Halve(width) if level in halved else None
            parts = [ResidualBlock(one, width, kernel_size, groups) for one in inputs]
            self.down.append(_level(parts, downsample=resample))
            before = width
        self.mid = Middle(before, kernel_size, groups, has_attention=has_attention)
        self.norm_out = _norm(before, groups)
        self.conv_out = _conv(before, out_channels, kernel_size)

    def forward(self, mel: Float[Tensor, "b mels frames"]) -> Float[Tensor, "b c latent_frames"]:
        """Return what the moments are made of."""
        x = self.conv_in(mel)
        for level in self.down:
            for part in level.children():
                x = part(x)
        return self.conv_out(functional.silu(self.norm_out(self.mid(x))))


class Decoder(nn.Module):
    """The levels in the opposite order, from latents to the spectrogram."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        widths: Sequence[int],
        blocks: int,
        kernel_size: int,
        doubled: Sequence[int],
        groups: int,
        has_attention: bool,
    ):
        super().__init__()
        before = widths[-1]
        self.conv_in = _conv(in_channels, before, kernel_size)
        self.mid = Middle(before, _DECODER_KERNEL, groups, has_attention=has_attention)
        levels = []
        for level, width in reversed(list(enumerate(widths))):
            inputs = [before] + [width] * (blocks - 1)
            resample = Double(width) if level in doubled else None
            parts = [ResidualBlock(one, width, _DECODER_KERNEL, groups) for one in inputs]
            levels.append(_level(parts, upsample=resample))
            before = width
        self.up = nn.ModuleList(reversed(levels))
        self.norm_out = _norm(before, groups)
        self.conv_out = _conv(before, out_channels, kernel_size)

    def forward(
        self, latents: Float[Tensor, "b c latent_frames"]
    ) -> Float[Tensor, "b mels frames"]:
        """Return the spectrogram."""
        x = self.mid(self.conv_in(latents))
        for level in reversed(list(self.up)):
            for part in level.children():
                x = part(x)
        return self.conv_out(functional.silu(self.norm_out(x)))


class ResidualBlock(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, groups: int):
        super().__init__()
        self.norm1 = _norm(in_channels, groups)
        self.conv1 = _conv(in_channels, out_channels, kernel_size)
        self.norm2 = _norm(out_channels, groups)
        self.conv2 = _conv(out_channels, out_channels, kernel_size)
        is_same = in_channels == out_channels
        self.nin_shortcut = nn.Identity() if is_same else nn.Conv1d(in_channels, out_channels, 1)

    def forward(self, x: Float[Tensor, "b c frames"]) -> Float[Tensor, "b out frames"]:
        """Return the sum of both."""
        change = self.conv1(functional.silu(self.norm1(x)))
        change = self.conv2(functional.silu(self.norm2(change)))
        return self.nin_shortcut(x) + change


class Attention(nn.Module):
    """Attention of every frame to all, with one head, beside a shortcut."""

    def __init__(self, channels: int, groups: int):
        super().__init__()
        self.norm = _norm(channels, groups)
        self.q, self.k, self.v, self.proj_out = (nn.Conv1d(channels, channels, 1) for _ in range(4))

    def forward(self, x: Float[Tensor, "b c frames"]) -> Float[Tensor, "b c frames"]:
        """Return the frames with what they attend to added."""
        normed = self.norm(x)
        query, key, value = (
            project(normed).transpose(1, 2).unsqueeze(2) for project in (self.q, self.k, self.v)
        )  # (b, frames, 1, c)
        values = fused_attend(query, key, value)
        return x + self.proj_out(values.squeeze(2).transpose(1, 2))


class Middle(nn.Module):
    """Two residual blocks with attention between them."""

    def __init__(self, channels: int, kernel_size: int, groups: int, *, has_attention: bool):
        super().__init__()
        self.block_1 = ResidualBlock(channels, channels, kernel_size, groups)
        self.attn_1 = Attention(channels, groups) if has_attention else nn.Identity()
        self.block_2 = ResidualBlock(channels, channels, kernel_size, groups)

    def forward(self, x: Float[Tensor, "b c frames"]) -> Float[Tensor, "b c frames"]:
        """Return the frames after all three."""
        return self.block_2(self.attn_1(self.block_1(x)))


class Halve(nn.Module):
    """Every second frame of a convolution."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv1d(channels, channels, 3, stride=2)

    def forward(self, x: Float[Tensor, "b c frames"]) -> Float[Tensor, "b c half"]:
        """Return half as many frames, rounded down."""
        return self.conv(functional.pad(x, (0, 1)))


class Double(nn.Module):
    """Each frame twice, then a convolution."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = _conv(channels, channels, 3)

    def forward(self, x: Float[Tensor, "b c frames"]) -> Float[Tensor, "b c double"]:
        """Return twice as many frames."""
        return self.conv(x.repeat_interleave(2, dim=-1))


_DECODER_KERNEL = 3  # of residual blocks when decoding, whatever `kernel_size` is


def _level(blocks: list[ResidualBlock], **resample: nn.Module | None) -> nn.Module:
    """Blocks, then a change of the number of frames if there is one."""
    level = nn.Module()
    level.add_module("block", nn.Sequential(*blocks))
    for name, part in resample.items():
        if part is not None:
            level.add_module(name, part)
    return level


def _conv(in_channels: int, out_channels: int, kernel_size: int) -> nn.Conv1d:
    return nn.Conv1d(in_channels, out_channels, kernel_size, padding=kernel_size // 2)


def _norm(channels: int, groups: int) -> nn.GroupNorm:
    return nn.GroupNorm(groups, channels, eps=1e-6)
