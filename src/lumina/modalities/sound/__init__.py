"""Sound: waveforms, their mel spectrograms, and the latents of these."""
