"""A critic of waveforms: it learns to tell real sounds from those of a vocoder."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

RESOLUTIONS = ((512, 128), (1024, 256), (2048, 512))
"""Samples of the windows that are looked at, and of the hops between them."""


class SpectrumCritic(nn.Module):
    """Small stacks of convolutions over complex spectra, one for each resolution.

    Source:
        The multi-resolution discriminator of UnivNet, arXiv:2106.07889, as used by Vocos with
        complex spectra; a twentieth of its weights, for training on a CPU.
    """

    def __init__(self, channels: Sequence[int] = (8, 16, 32)):
        super().__init__()
        self.stacks = nn.ModuleList(_stack(channels) for _ in RESOLUTIONS)

    def forward(self, waveform: Float[Tensor, "b samples"]) -> list[list[Tensor]]:
        """Return what each layer of each stack sees; the last of a stack are the scores."""
        seen = []
        for stack, (fft, hop) in zip(self.stacks, RESOLUTIONS, strict=True):
            x = _compressed_spectrum(waveform, fft=fft, hop=hop)
            layers = []
            for layer in stack.children():
                x = layer(x)
                layers.append(x)
            seen.append(layers)
        return seen


def critic_loss(
    critic: SpectrumCritic, real: Float[Tensor, "b samples"], made: Float[Tensor, "b samples"]
) -> Float[Tensor, ""]:
    """What the critic learns from: scores of real sounds above 1, of made ones below -1."""
    losses = [
        functional.relu(1 - on_real[-1]).mean() + functional.relu(1 + on_made[-1]).mean()
        for on_real, on_made in zip(critic(real), critic(made.detach()), strict=True)
    ]
    return torch.stack(losses).mean()


def vocoder_loss(
    critic: SpectrumCritic, real: Float[Tensor, "b samples"], made: Float[Tensor, "b samples"]
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """What a vocoder learns from the critic, which learns nothing from it.

    Returns:
        How far its scores are below 1, and how much layers see other things than in real sounds.
    """
    frozen = {name: weight.detach() for name, weight in critic.named_parameters()}
    with torch.no_grad():
        on_real = critic(real)
    on_made = functional_call(critic, frozen, (made,))
    scores = [functional.relu(1 - layers[-1]).mean() for layers in on_made]
    differences = [
        (a - b).abs().mean() / a.abs().mean().clamp(min=1e-3)
        for reals, mades in zip(on_real, on_made, strict=True)
        for a, b in zip(reals[:-1], mades[:-1], strict=True)
    ]
    return torch.stack(scores).mean(), torch.stack(differences).mean()


def _stack(channels: Sequence[int]) -> nn.Sequential:
    """Layers that get narrower over frequencies; the first takes the most away."""
    strides = [(4, 1), *[(2, 2)] * (len(channels) - 1)]
    layers: list[nn.Module] = []
    for before, after, stride in zip((2, *channels), channels, strides, strict=False):
        size = (2 * stride[0] + 1, 3)
        convolution = nn.Conv2d(before, after, size, stride, (size[0] // 2, 1))
        layers.append(nn.Sequential(convolution, nn.LeakyReLU(0.1)))
    layers.append(nn.Conv2d(channels[-1], 1, 3, padding=1))
    return nn.Sequential(*layers)


def _compressed_spectrum(
    waveform: Float[Tensor, "b samples"], *, fft: int, hop: int
) -> Float[Tensor, "b 2 bins frames"]:
    """Real and imaginary parts, with magnitudes brought closer to each other."""
    window = torch.hann_window(fft, device=waveform.device)
    spectrum = torch.stft(waveform, fft, hop, window=window, return_complex=True)
    parts = torch.stack([spectrum.real, spectrum.imag], dim=1)
    size = (parts.square().sum(1, keepdim=True) + 1e-6).sqrt()
    return parts * size**-0.6
