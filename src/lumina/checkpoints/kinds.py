"""Networks of the family, by the names that configurations give them."""

from diffusers import ModelMixin

from lumina.backbones.flag_dit import FlagDiT
from lumina.backbones.next_dit import NextDiT
from lumina.backbones.recognizer import NextDiTClassifier
from lumina.backbones.transformer import FlowTransformer
from lumina.modalities.sound.autoencoder import MelAutoencoder
from lumina.modalities.sound.spectral import SpectralVocoder
from lumina.modalities.sound.vocoder import BigVGAN

SOUND_PARTS: dict[str, type[ModelMixin]] = {
    "BigVGAN": BigVGAN,
    "MelAutoencoder": MelAutoencoder,
    "SpectralVocoder": SpectralVocoder,
}
"""Parts of pipelines of sound that diffusers does not have."""

KINDS: dict[str, type[FlowTransformer]] = {
    "FlagDiT": FlagDiT,
    "NextDiT": NextDiT,
    "LuminaNextDiT2DModel": NextDiT,
    "NextDiTClassifier": NextDiTClassifier,
}
