"""BigVGAN, the vocoder of the original release: mel spectrograms to waveforms.

Weights have the names that they have in the original release, with weight norms multiplied out.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


class BigVGAN(ModelMixin, ConfigMixin):
    """Turn mel spectrograms into waveforms by convolutions that make them ever longer.

    Args:
        num_mels: Bands of the spectrogram.
        upsample_initial_channel: Channels of the first convolution, halved by each upsampling.
        upsample_rates: How much longer each upsampling makes the signal. Their product is the
            number of samples of a frame.
        upsample_kernel_sizes: Samples that each of them sees.
        resblock_kernel_sizes: Samples that the residual blocks after each of them see.
        resblock_dilation_sizes: Distances between these samples, for each residual block.
        snake_logscale: Whether the frequencies of the activations are stored as logarithms.

    Source:
        BigVGAN, arXiv:2206.04658; `lumina_audio/models/vocoder/bigvgan/models.py` of the original
        code. The defaults are those of the 16 kHz vocoder of Make-An-Audio 2.
    """

    @register_to_config
    def __init__(
        self,
        num_mels: int = 80,
        upsample_initial_channel: int = 1536,
        upsample_rates: Sequence[int] = (4, 4, 2, 2, 2, 2),
        upsample_kernel_sizes: Sequence[int] = (8, 8, 4, 4, 4, 4),
        resblock_kernel_sizes: Sequence[int] = (3, 7, 11),
        resblock_dilation_sizes: Sequence[Sequence[int]] = ((1, 3, 5), (1, 3, 5), (1, 3, 5)),
        snake_logscale: bool = True,
    ):
        super().__init__()
        channels = upsample_initial_channel
        self.conv_pre = _same(num_mels, channels, 7)
        self.ups = nn.ModuleList()
        self.resblocks = nn.ModuleList()
        for rate, kernel in zip(upsample_rates, upsample_kernel_sizes, strict=True):
            padding = (kernel - rate) // 2
            longer = nn.ConvTranspose1d(channels, channels // 2, kernel, rate, padding)
            self.ups.append(nn.ModuleList([longer]))
            channels //= 2
            self.resblocks.extend(
                SnakeBlock(channels, size, dilations, log_scale=snake_logscale)
                for size, dilations in zip(
                    resblock_kernel_sizes, resblock_dilation_sizes, strict=True
                )
            )
        self.activation_post = SmoothSnake(channels, log_scale=snake_logscale)
        self.conv_post = _same(channels, 1, 7)

    def forward(self, mel: Float[Tensor, "b mels frames"]) -> Float[Tensor, "b samples"]:
        """Return the waveforms, in [-1, 1]."""
        x = self.conv_pre(mel)
        kinds = len(self.resblocks) // len(self.ups)
        for level, up in enumerate(self.ups):
            x = up.get_submodule("0")(x)
            blocks = self.resblocks[level * kinds : (level + 1) * kinds]
            x = torch.stack([block(x) for block in blocks]).mean(0)
        return self.conv_post(self.activation_post(x)).tanh().squeeze(1)


class SnakeBlock(nn.Module):
    """Dilated and plain convolutions in pairs, each pair beside a shortcut."""

    def __init__(
        self, channels: int, kernel_size: int, dilations: Sequence[int], *, log_scale: bool
    ):
        super().__init__()
        self.convs1 = nn.ModuleList(_same(channels, channels, kernel_size, d) for d in dilations)
        self.convs2 = nn.ModuleList(_same(channels, channels, kernel_size) for _ in dilations)
        self.activations = nn.ModuleList(
            SmoothSnake(channels, log_scale=log_scale) for _ in range(2 * len(dilations))
        )

    def forward(self, x: Float[Tensor, "b c samples"]) -> Float[Tensor, "b c samples"]:
        """Return the signal after all pairs."""
        firsts, seconds = self.activations[::2], self.activations[1::2]
        for first, dilated, second, plain in zip(
            firsts, self.convs1, seconds, self.convs2, strict=True
        ):
            x = x + plain(second(dilated(first(x))))
        return x


class SmoothSnake(nn.Module):
    """A periodic activation at twice the sampling rate, so that it adds no false frequencies."""

    def __init__(self, channels: int, *, log_scale: bool):
        super().__init__()
        self.act = Snake(channels, log_scale=log_scale)
        self.register_buffer("lowpass", lowpass_filter(_TAPS), persistent=False)

    def forward(self, x: Float[Tensor, "b c samples"]) -> Float[Tensor, "b c samples"]:
        """Return the signal after the activation."""
        return self._halve(self.act(self._double(x)))

    def _double(self, x: Float[Tensor, "b c samples"]) -> Float[Tensor, "b c double"]:
        margin = _TAPS // 2 - 1
        padded = functional.pad(x, (margin, margin), mode="replicate")
        # The factor makes up for the zeros between samples.
        double = 2 * functional.conv_transpose1d(
            padded, self._filter(x), stride=2, groups=x.shape[1]
        )
        cut = 2 * margin + _TAPS // 2 - 1
        return double[..., cut:-cut]

    def _halve(self, x: Float[Tensor, "b c double"]) -> Float[Tensor, "b c samples"]:
        padded = functional.pad(x, (_TAPS // 2 - 1, _TAPS // 2), mode="replicate")
        return functional.conv1d(padded, self._filter(x), stride=2, groups=x.shape[1])

    def _filter(self, x: Float[Tensor, "b c samples"]) -> Float[Tensor, "c 1 taps"]:
        return self.get_buffer("lowpass").to(x.dtype).expand(x.shape[1], 1, -1)


class Snake(nn.Module):
    """Add the square of a sine whose frequency and size are learned for each channel.

    Source:
        arXiv:2006.08195, with the size apart from the frequency as in BigVGAN.
    """

    def __init__(self, channels: int, *, log_scale: bool):
        super().__init__()
        start = torch.zeros(channels) if log_scale else torch.ones(channels)
        self.log_scale = log_scale
        self.alpha = nn.Parameter(start.clone())
        self.beta = nn.Parameter(start.clone())

    def forward(self, x: Float[Tensor, "b c samples"]) -> Float[Tensor, "b c samples"]:
        """Return the signal after the activation."""
        frequency, size = self.alpha[:, None], self.beta[:, None]
        if self.log_scale:
            frequency, size = frequency.exp(), size.exp()
        return x + (x * frequency).sin().square() / (size + _TINY)


def lowpass_filter(taps: int) -> Float[Tensor, " taps"]:
    """A filter of a quarter of the sampling rate, by a sinc in a Kaiser window; its sum is 1.

    Args:
        taps: How many samples it sees, an even number.

    Source:
        The design formulas of J. F. Kaiser (1974), with a transition 0.6 times the sampling rate
        wide, as in BigVGAN.
    """
    cutoff, transition = 0.25, 0.6
    attenuation = 2.285 * (taps // 2 - 1) * math.pi * 2 * transition + 7.95
    if attenuation > 50:
        beta = 0.1102 * (attenuation - 8.7)
    else:
        beta = 0.5842 * max(attenuation - 21, 0) ** 0.4 + 0.07886 * max(attenuation - 21, 0)
    window = torch.kaiser_window(taps, periodic=False, beta=beta)
    times = torch.arange(taps) - taps / 2 + 0.5
    weights = window * torch.sinc(2 * cutoff * times)
    return weights / weights.sum()


def without_weight_norm(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a checkpoint of BigVGAN as ours have them.

    Args:
        weights: With weight norms (`weight_g` and `weight_v`) or without; filters are left out.
    """
    plain = {}
    for name, weight in weights.items():
        if name.endswith(("weight_g", ".filter")):
            continue
        if name.endswith("weight_v"):
            name = name.removesuffix("_v")
            length = weight.flatten(1).norm(dim=1).view(-1, 1, 1)
            weight = weight * weights[f"{name}_g"] / length
        plain[name] = weight
    return plain


_TAPS = 12
_TINY = 1e-9


def _same(in_channels: int, out_channels: int, kernel_size: int, dilation: int = 1) -> nn.Conv1d:
    padding = (kernel_size - 1) * dilation // 2
    return nn.Conv1d(in_channels, out_channels, kernel_size, padding=padding, dilation=dilation)
