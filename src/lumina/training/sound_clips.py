"""Generated sounds and music that autoencoders and vocoders of sound are trained on."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int16
from torch import Tensor

from lumina.worlds.music import draw_tune, render_tune
from lumina.worlds.soundfont import SAMPLE_RATE
from lumina.worlds.sounds import SECONDS, draw_brief, render
from lumina.worlds.speaking import speak
from lumina.worlds.speech_world import SpeechWorld


class Waveforms(NamedTuple):
    """Samples in [-1, 1] at 16 kHz."""

    samples: Float[Tensor, "b samples"]


class Shares(NamedTuple):
    """How many of the sounds are what, as shares of all; the others are effects and notes."""

    music: float = 0.0
    speech: float = 0.0


class SoundClips:
    """Rendered sounds in memory, of which random parts are taken.

    Rendering takes longer than a training step, so each is used many times.

    Args:
        count: How many sounds there are.
        shares: Of music and of speech among them.
        seed: What they are drawn with.
    """

    def __init__(self, count: int, shares: Shares, *, seed: int):
        self.clips = [
            _render(np.random.default_rng((seed, 8, number)), shares) for number in range(count)
        ]

    def crops(
        self, rng: np.random.Generator, count: int, *, samples: int
    ) -> Float[Tensor, "b samples"]:
        """Parts of random sounds, at random loudness; what is too short is filled with silence."""
        crops = np.zeros((count, samples), np.float32)
        for crop in crops:
            clip = self.clips[rng.integers(len(self.clips))]
            start = int(rng.integers(max(1, len(clip) - samples)))
            part = clip[start : start + samples]
            crop[: len(part)] = part * (10 ** rng.uniform(-0.5, 0) / _LOUDEST)
        return torch.from_numpy(crops)


def _render(rng: np.random.Generator, shares: Shares) -> Int16[np.ndarray, " samples"]:
    seconds = float(rng.uniform(*SECONDS))
    kind = float(rng.random())
    if kind < shares.music:
        waveform = render_tune(draw_tune(rng), rng, seconds=seconds)
    elif kind < shares.music + shares.speech:
        brief = SpeechWorld().draw(rng)
        waveform = speak(brief.sentence, brief.voice, speed=brief.speed)
    else:
        waveform = render(draw_brief(rng), rng, seconds=seconds)
    return (waveform[: round(seconds * SAMPLE_RATE)] * _LOUDEST).astype(np.int16)


_LOUDEST = 32767
