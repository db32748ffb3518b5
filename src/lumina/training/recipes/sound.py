"""Recipes of what sound, music and speech are made with: an autoencoder, and a vocoder."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lumina.errors import LuminaError
from lumina.settings import setting
from lumina.training.recipes.recipe import Recipe

if TYPE_CHECKING:
    from lumina.training.trainer import Objective


@dataclass(frozen=True, kw_only=True)
class SoundRecipe(Recipe):
    """What training on generated sounds has besides."""

    clips: int = setting(2000, "sounds that are rendered before the run", ge=1)
    music: float = setting(0.4, "share of music among them", ge=0, le=1)
    speech: float = setting(0.0, "share of speech among them", ge=0, le=1)
    frames: int = setting(64, "length of the training parts in frames of 16 ms", ge=16)

    def check(self) -> None:
        """Refuse shares that are more than all."""
        if self.music + self.speech > 1:
            raise LuminaError(
                f"music is {self.music} of the sounds and speech {self.speech}, more than all",
                hint="lower one: what is left are other sounds",
            )


@dataclass(frozen=True, kw_only=True)
class MelAutoencoderRecipe(SoundRecipe):
    """Train a small autoencoder of mel spectrograms on generated sounds."""

    task = "mel_autoencoder"

    latent_channels: int = setting(16, "channels of the latents", ge=1)
    width: int = setting(64, "channels of the first level", ge=8)
    multipliers: tuple[int, ...] = setting((1, 2), "channels of each level, relative to the width")
    blocks: int = setting(1, "residual blocks of each level", ge=1)
    halved_levels: tuple[int, ...] = setting((0,), "levels after which frames are halved")
    groups: int = setting(8, "groups of each normalization", ge=1)
    latent_noise: float = setting(
        0.1, "noise on latents while decoding, relative to their spread", ge=0
    )
    spread_weight: float = setting(
        0.03, "how strongly latents are kept at zero mean, unit spread, uncorrelated", ge=0
    )

    def check(self) -> None:
        """Refuse channels that do not divide into the groups, and parts that do not halve."""
        super().check()
        for multiplier in self.multipliers:
            if self.width * multiplier % self.groups:
                raise LuminaError(
                    f"{self.width * multiplier} channels do not divide into {self.groups} groups",
                    hint="choose a width that is a multiple of groups",
                )
        if self.frames % 2 ** len(self.halved_levels):
            raise LuminaError(
                f"{self.frames} frames cannot be halved {len(self.halved_levels)} times",
                hint=f"choose a multiple of {2 ** len(self.halved_levels)}",
            )

    def make_objective(self) -> "Objective":
        """An autoencoder with its sounds."""
        from lumina.training.sound_autoencoder import MelAutoencoderObjective

        return MelAutoencoderObjective(self)


@dataclass(frozen=True, kw_only=True)
class VocoderRecipe(SoundRecipe):
    """Train a small vocoder on generated sounds, against a critic."""

    task = "vocoder"

    width: int = setting(256, "channels of every layer", ge=8)
    depth: int = setting(4, "blocks", ge=1)
    inner_width: int = setting(512, "channels inside each block", ge=8)
    autoencoder: str = setting(
        "", "folder of an autoencoder of spectrograms to put it beside, for sound and music"
    )
    critic_start: float = setting(0.3, "share of the run after which the critic is asked", ge=0)
    critic_weight: float = setting(0.1, "how much the critic counts", ge=0)

    def make_objective(self) -> "Objective":
        """A vocoder with its critic and its sounds."""
        from lumina.training.vocoder import VocoderObjective

        return VocoderObjective(self)
