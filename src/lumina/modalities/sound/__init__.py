"""Sound: waveforms, their mel spectrograms, and the latents of these."""

from lumina.modalities.sound.modality import MODALITY as MODALITY
