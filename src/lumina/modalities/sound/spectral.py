"""A small vocoder that predicts spectra, which an inverse transform makes a waveform of."""

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from jaxtyping import Complex, Float
from torch import Tensor, nn
from torch.nn import functional


class SpectralVocoder(ModelMixin, ConfigMixin):
    """Turn mel spectrograms into waveforms by the magnitude and phase of each frame.

    All layers work at the rate of the frames, 256 times lower than that of the samples, so that it
    takes a small part of the time of a vocoder of waveforms.

    Args:
        num_mels: Bands of the spectrogram.
        width: Channels of every layer.
        depth: Blocks.
        inner_width: Channels inside each block.
        kernel_size: Frames that each block sees.
        fft: Samples of each frame.
        hop: Samples from one frame to the next.
        mel_mean: What is taken from spectrograms.
        mel_spread: What they are then divided by.

    Source:
        The design of Vocos, arXiv:2306.00814.
    """

    @register_to_config
    def __init__(
        self,
        num_mels: int = 80,
        width: int = 256,
        depth: int = 4,
        inner_width: int = 512,
        kernel_size: int = 7,
        fft: int = 1024,
        hop: int = 256,
        mel_mean: float = -3.0,
        mel_spread: float = 1.5,
    ):
        super().__init__()
        self.conv_in = nn.Conv1d(num_mels, width, kernel_size, padding=kernel_size // 2)
        self.norm_in = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(
            SpectralBlock(width, inner_width=inner_width, kernel_size=kernel_size, share=1 / depth)
            for _ in range(depth)
        )
        self.norm_out = nn.LayerNorm(width)
        self.head = nn.Linear(width, 2 * (fft // 2 + 1))

    def forward(self, mel: Float[Tensor, "b mels frames"]) -> Float[Tensor, "b samples"]:
        """Return the waveforms, in [-1, 1] or a little beyond."""
        scaled = (mel - self.config["mel_mean"]) / self.config["mel_spread"]
        x = self.norm_in(self.conv_in(scaled).transpose(1, 2))  # (b, frames, width)
        for block in self.blocks:
            x = block(x)
        size, phase = self.head(self.norm_out(x)).float().transpose(1, 2).chunk(2, dim=1)
        # Without a limit, one wild frame would drown the loss.
        spectrum = torch.polar(size.clamp(max=_LARGEST).exp(), phase)
        return inverse_stft(spectrum, hop=self.config["hop"])


class SpectralBlock(nn.Module):
    """Each channel over time, then all channels of each frame, beside a shortcut (ConvNeXt)."""

    def __init__(self, width: int, *, inner_width: int, kernel_size: int, share: float):
        super().__init__()
        self.over_time = nn.Conv1d(
            width, width, kernel_size, padding=kernel_size // 2, groups=width
        )
        self.norm = nn.LayerNorm(width)
        self.widen = nn.Linear(width, inner_width)
        self.narrow = nn.Linear(inner_width, width)
        self.gate = nn.Parameter(torch.full((width,), share))

    def forward(self, x: Float[Tensor, "b frames d"]) -> Float[Tensor, "b frames d"]:
        """Return the frames after the block."""
        mixed = self.norm(self.over_time(x.transpose(1, 2)).transpose(1, 2))
        return x + self.gate * self.narrow(functional.gelu(self.widen(mixed)))


def inverse_stft(
    spectrum: Complex[Tensor, "b bins frames"], *, hop: int
) -> Float[Tensor, "b samples"]:
    """Waveform of complex spectra of Hann windows, one hop for each frame.

    It undoes the transform of `mel.stft_magnitude`, whose frames are centred on their hops.
    """
    fft = 2 * (spectrum.shape[1] - 1)
    window = torch.hann_window(fft, device=spectrum.device)
    frames = torch.fft.irfft(spectrum, dim=1) * window[:, None]
    weights = window.square()[None, :, None].expand(1, fft, spectrum.shape[-1])
    margin = (fft - hop) // 2
    total, weight = (_overlap(part, hop)[:, margin:-margin] for part in (frames, weights))
    return total / weight


def _overlap(frames: Float[Tensor, "b fft frames"], hop: int) -> Float[Tensor, "b samples"]:
    """The sum of frames that each begin one hop after the one before."""
    fft, count = frames.shape[1:]
    samples = fft + hop * (count - 1)
    folded = functional.fold(frames, (1, samples), kernel_size=(1, fft), stride=(1, hop))
    return folded[:, 0, 0]


_LARGEST = 6.0  # logarithm of a magnitude; 1,024 samples of 1 have about that
