"""Sounds as a modality: mel spectrograms through an autoencoder, and back through a vocoder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from lumina.checkpoints.folder import read_config
from lumina.errors import LuminaError
from lumina.media.sound import FORMATS, check_sound, read_sound
from lumina.modalities import Latents, Modality, Scaling
from lumina.modalities.sound.autoencoder import MelAutoencoder
from lumina.modalities.sound.mel import HOP, waveform_to_mel
from lumina.modalities.sound.spectrogram import draw_spectrogram


class SoundCodec:
    """Waveforms at 16 kHz and their latents.

    Args:
        autoencoder: A `MelAutoencoder`.
        vocoder: Turns spectrograms into waveforms. None: nothing is decoded.
    """

    def __init__(self, autoencoder: Any, vocoder: Any = None):
        self.autoencoder, self.vocoder = autoencoder, vocoder

    @torch.no_grad()
    def encode(self, media: Sequence[Float[np.ndarray, " samples"]]) -> Latents:
        """Latents of sounds of one length."""
        device, dtype = self.autoencoder.device, self.autoencoder.dtype
        mel = waveform_to_mel(torch.from_numpy(np.stack(media)).to(device))
        found = self.autoencoder.encode(mel.to(dtype)).latent_dist
        return Latents(found.mean.float(), found.std.float())

    @torch.no_grad()
    def decode(self, latents: Float[Tensor, "b c n"]) -> list[Float[np.ndarray, " samples"]]:
        """Sounds from latents, one after the other, so that long ones take no more memory.

        Raises:
            LuminaError: If there is no vocoder.
        """
        if self.vocoder is None:
            raise LuminaError("sounds are not decoded without a vocoder", hint="give a vocoder")
        sounds = []
        for one in latents.to(self.autoencoder.dtype).split(1):
            mel = self.autoencoder.decode(one).sample
            waveform = self.vocoder(mel.to(self.vocoder.dtype))
            sounds.append(waveform[0].float().clamp(-1, 1).cpu().numpy())
        return sounds


class SoundModality(Modality):
    """Sounds of any length, whose size is that of their spectrogram, in frames of 16 ms."""

    needs_autoencoder = True
    axes = ("frames of 16 ms",)
    endings = tuple(FORMATS)

    def read(self, path: Path, size: Sequence[int]) -> Float[np.ndarray, " samples"]:
        """The beginning of a sound, followed by silence if it is shorter."""
        samples = size[0] * HOP
        waveform = read_sound(path)[:samples]
        return np.pad(waveform, (0, samples - len(waveform)))

    def check(self, path: Path, size: Sequence[int]) -> None:
        """Refuse what is no sound, is empty or too long."""
        check_sound(path)

    def open(self, autoencoder: Path, device: torch.device) -> SoundCodec:
        """Load the autoencoder, which is all that encoding needs."""
        vae: Any = MelAutoencoder.from_pretrained(autoencoder, torch_dtype=torch.float32)
        return SoundCodec(vae.eval().to(device))

    def scaling(self, autoencoder: Path) -> Scaling:
        """What the autoencoder's settings say."""
        return Scaling(factor=read_config(autoencoder)["scaling_factor"])

    def network(self, autoencoder: Path, size: Sequence[int]) -> dict[str, Any]:
        """One token a latent, in one sequence."""
        return {
            "patch_size": 1,
            "in_channels": read_config(autoencoder)["latent_channels"],
            "learn_sigma": False,
            "has_line_token": False,
        }

    def grid(self, autoencoder: Path, size: Sequence[int]) -> tuple[int, ...]:
        """Latents."""
        return (size[0] // 2 ** len(read_config(autoencoder)["halved_levels"]),)

    def enter(
        self, x: Float[Tensor, "b c n"], times: Float[Tensor, " b"], hints: None = None
    ) -> Float[Tensor, "b c n"]:
        """The latents alone."""
        return x

    def positions(self, network: Any, x: Tensor) -> dict[str, Any]:
        """As they are."""
        return {}

    def show(self, medium: Float[np.ndarray, " samples"], *, small: bool = True) -> Image.Image:
        """A spectrogram."""
        return (
            draw_spectrogram(medium, width=240, height=128) if small else draw_spectrogram(medium)
        )


MODALITY = SoundModality()


def latents_of(frames: int, config: Any) -> int:
    """Latents that hold at least so many frames, by the settings of an autoencoder."""
    return -(-frames // 2 ** len(config["halved_levels"]))
