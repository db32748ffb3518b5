"""Training of the small vocoder on generated sounds."""

import shutil
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from lumina.checkpoints.folder import read_config
from lumina.errors import LuminaError
from lumina.modalities.sound.autoencoder import MelAutoencoder
from lumina.modalities.sound.mel import HOP, stft_magnitude, waveform_to_mel
from lumina.modalities.sound.spectral import SpectralVocoder
from lumina.training.recipes import VocoderRecipe
from lumina.training.sharding import ALONE, Share
from lumina.training.sound_clips import Shares, SoundClips, Waveforms
from lumina.training.sound_critic import SpectrumCritic, critic_loss, vocoder_loss

RESOLUTIONS = ((256, 64), (512, 128), (1024, 256), (2048, 512))
"""Windows and hops in which spectra are compared.

A wrong phase at one of them is a wrong magnitude at another, so that phases are learned as well.
"""

QUIETEST = 1e-4  # magnitudes below this are not told apart


class VocoderObjective:
    """Make waveforms whose spectra are those of the real ones, and that a critic takes for real.

    Vocoder and critic are trained side by side by one optimizer: each has a part of the loss from
    which the other's weights are kept out.
    """

    def __init__(self, recipe: VocoderRecipe):
        self.recipe = recipe
        if recipe.autoencoder:
            _check_autoencoder(Path(recipe.autoencoder))
        vocoder = SpectralVocoder(
            width=recipe.width, depth=recipe.depth, inner_width=recipe.inner_width
        )
        self.module = nn.ModuleDict({"vocoder": vocoder, "critic": SpectrumCritic()})
        shares = Shares(music=recipe.music, speech=recipe.speech)
        self.clips = SoundClips(recipe.clips, shares, seed=recipe.seed)
        self.unseen = SoundClips(16, shares, seed=recipe.seed + 1)

    @property
    def vocoder(self) -> SpectralVocoder:
        """What is trained and exported."""
        return cast(SpectralVocoder, self.module["vocoder"])

    def batch(self, number: int, share: Share = ALONE) -> Waveforms:
        """Random parts of sounds."""
        rng = np.random.default_rng((self.recipe.seed, 1, number))
        samples = self.recipe.frames * HOP
        return share.take(Waveforms(self.clips.crops(rng, self.recipe.batch_size, samples=samples)))

    def loss(self, batch: Waveforms, step: int) -> tuple[Tensor, dict[str, float]]:
        """Errors of spectra, and what the critic has to say once it is asked."""
        real = batch.samples
        made = self.vocoder(waveform_to_mel(real)).float()
        with torch.autocast(real.device.type, enabled=False):
            error, figures = spectrum_error(made, real)
        if step < self.recipe.critic_start * self.recipe.steps:
            return error, figures
        critic = cast(SpectrumCritic, self.module["critic"])
        scores, differences = vocoder_loss(critic, real, made)
        learned = critic_loss(critic, real, made)
        figures |= {"critic": learned.item(), "seen": differences.item()}
        weight = self.recipe.critic_weight
        return error + weight * (scores + 2 * differences) + learned, figures

    def to(self, device: torch.device) -> None:
        """Move the weights."""
        self.module.to(device)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Mean absolute difference of mel spectrograms of unseen sounds."""
        return {"unseen_error": self._unseen_error(self._unseen())}

    @torch.no_grad()
    def preview(self, folder: Path, step: int) -> None:
        """Unseen sounds, each followed by what comes back, as one WAV file."""
        import soundfile

        real = self._unseen()
        made = self.vocoder(waveform_to_mel(real))
        both = torch.cat([real, made], 1).flatten().clamp(-1, 1).cpu().numpy()
        name = f"step-{step:06d}-{self._unseen_error(real):.3f}.wav"
        soundfile.write(folder / name, both, 16_000)

    @torch.no_grad()
    def export(self, folder: Path) -> None:
        """Write the vocoder in half precision, beside the autoencoder if there is one."""
        exported = cast(Any, self.vocoder)
        own = folder
        if self.recipe.autoencoder:
            shutil.copytree(self.recipe.autoencoder, folder / "vae", dirs_exist_ok=True)
            own = folder / "vocoder"
        exported.to(torch.float16).save_pretrained(own)
        exported.to(torch.float32)

    def _unseen(self) -> Float[Tensor, "b samples"]:
        samples = self.unseen.crops(np.random.default_rng(0), 16, samples=125 * HOP)
        return samples.to(next(self.module.parameters()).device)

    def _unseen_error(self, real: Float[Tensor, "b samples"]) -> float:
        mel = waveform_to_mel(real)
        return (waveform_to_mel(self.vocoder(mel)) - mel).abs().mean().item()


def _check_autoencoder(folder: Path) -> None:
    if read_config(folder).get("_class_name") != MelAutoencoder.__name__:
        raise LuminaError(
            f"{folder} has no autoencoder of spectrograms",
            hint="name the folder `last` of a run of recipes/lumina_mini_mel.toml",
        )


def spectrum_error(
    made: Float[Tensor, "b samples"], real: Float[Tensor, "b samples"]
) -> tuple[Tensor, dict[str, float]]:
    """Differences of magnitudes in several resolutions, absolute and as logarithms, and of mels.

    Source:
        Parallel WaveGAN, arXiv:1910.11480, section 2.2, with absolute differences throughout.
    """
    losses = []
    for fft, hop in RESOLUTIONS:
        found, right = (stft_magnitude(one, fft=fft, hop=hop) for one in (made, real))
        size = right.mean().clamp(min=QUIETEST)
        losses.append((found - right).abs().mean() / size)
        ratio = found.clamp(min=QUIETEST) / right.clamp(min=QUIETEST)
        losses.append(ratio.log().abs().mean())
    mel = (waveform_to_mel(made) - waveform_to_mel(real)).abs().mean()
    spectra = torch.stack(losses).mean()
    return spectra + 2 * mel, {"spectra": spectra.item(), "mel": mel.item()}
