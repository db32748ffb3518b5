"""Training of the small autoencoder of mel spectrograms on generated sounds."""

from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from lumina.modalities.sound.autoencoder import MelAutoencoder
from lumina.modalities.sound.mel import HOP, SILENCE, waveform_to_mel
from lumina.training.autoencoder import fold_main_axes, spread_error
from lumina.training.recipes import MelAutoencoderRecipe
from lumina.training.sharding import ALONE, Share
from lumina.training.sound_clips import Shares, SoundClips, Waveforms

MEL_MEAN, MEL_SPREAD = -3.0, 1.5
"""About the mean and the spread of spectrograms of the generated sounds."""

DETAIL_WEIGHT = 0.5  # of the squared error, beside the absolute error


class MelAutoencoderObjective:
    """Reconstruct spectrograms from noisy, evenly spread latents."""

    def __init__(self, recipe: MelAutoencoderRecipe):
        self.recipe = recipe
        self.module = MelAutoencoder(
            latent_channels=recipe.latent_channels,
            width=recipe.width,
            multipliers=recipe.multipliers,
            blocks=recipe.blocks,
            halved_levels=recipe.halved_levels,
            groups=recipe.groups,
            has_attention=False,  # so that sounds of any length are as good as those of training
            mel_mean=MEL_MEAN,
            mel_spread=MEL_SPREAD,
        )
        for name, weight in self.module.named_parameters():
            if name.endswith("conv2.weight"):
                nn.init.zeros_(weight)  # every residual block starts as its shortcut
        shares = Shares(music=recipe.music, speech=recipe.speech)
        self.clips = SoundClips(recipe.clips, shares, seed=recipe.seed)
        self.unseen = SoundClips(16, shares, seed=recipe.seed + 1)

    def batch(self, number: int, share: Share = ALONE) -> Waveforms:
        """Random parts of sounds."""
        rng = np.random.default_rng((self.recipe.seed, 1, number))
        samples = self.recipe.frames * HOP
        return share.take(Waveforms(self.clips.crops(rng, self.recipe.batch_size, samples=samples)))

    def loss(self, batch: Waveforms, step: int) -> tuple[Tensor, dict[str, float]]:
        """Error of the reconstruction, with the latents kept spread."""
        recipe = self.recipe
        mel = waveform_to_mel(batch.samples)
        latents = self.module.encode(mel).latent_dist.mean
        generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
        noise = torch.randn(latents.shape, generator=generator).to(latents)
        noisy = latents + recipe.latent_noise * latents.std().detach() * noise
        output = self.module.decode(noisy).sample
        spread = spread_error(latents)
        loss = mel_error(output, mel) + recipe.spread_weight * spread
        return loss, {"error": (output - mel).abs().mean().item(), "spread": spread.item()}

    def to(self, device: torch.device) -> None:
        """Move the weights."""
        cast(Any, self.module).to(device)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Mean absolute error on unseen sounds, as decadic logarithm of the magnitude."""
        mel = self._unseen_mel()
        return {"unseen_error": (self.module(mel).sample - mel).abs().mean().item()}

    @torch.no_grad()
    def preview(self, folder: Path, step: int) -> None:
        """Unseen spectrograms above what comes back, with the error in the file name."""
        mel = self._unseen_mel()
        output = self.module(mel).sample
        rows = [
            torch.cat([half.flip(0) for half in pair]) for pair in zip(mel, output, strict=True)
        ]
        levels = ((torch.cat(rows[:8], -1) - SILENCE) / (1 - SILENCE)).clamp(0, 1)
        picture = Image.fromarray((levels * 255).byte().cpu().numpy())
        error = (output - mel).abs().mean().item()
        picture.save(folder / f"step-{step:06d}-{error:.3f}.png")

    @torch.no_grad()
    def export(self, folder: Path) -> None:
        """Write the autoencoder in half precision, with its latents on their main axes."""
        exported = cast(Any, self.module)
        fold_main_axes(exported, self._some_mel())
        exported.to(torch.float16).save_pretrained(folder)
        exported.to(torch.float32)

    def _unseen_mel(self) -> Float[Tensor, "b 80 frames"]:
        rng = np.random.default_rng(0)
        waveforms = self.unseen.crops(rng, 16, samples=self.recipe.frames * HOP)
        return waveform_to_mel(waveforms.to(next(self.module.parameters()).device))

    def _some_mel(self) -> Float[Tensor, "b 80 frames"]:
        batches = -(-128 // self.recipe.batch_size)
        fresh = range(self.recipe.steps, self.recipe.steps + batches)
        mel = torch.cat([waveform_to_mel(self.batch(number).samples) for number in fresh])
        return mel.to(next(self.module.parameters()).device)


def mel_error(
    output: Float[Tensor, "b mels frames"], mel: Float[Tensor, "b mels frames"]
) -> Tensor:
    """Absolute error, and a part of the squared one, which keeps outliers away."""
    difference = output - mel
    return difference.abs().mean() + DETAIL_WEIGHT * difference.square().mean()
