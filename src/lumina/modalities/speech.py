"""Speech: mel spectrograms under letters that are laid out along time.

A network learns to speak by attention alone only after it has learned which part of a text is said
when, which takes most of the training of such models. Here it is told: each frame reads the letter
that is about said in it and those around, as channels beside the noisy spectrogram. Letters take
their usual share of the time (`lumina.spelling`), which is wrong by a letter or so; what is exact,
the network finds out by attention to its surroundings. How long a sentence is follows from its
letters and the voice. Who speaks is a class.

Spectrograms are made without an autoencoder, as those of speech in Lumina-T2X, arXiv:2405.05945:
what stands in its place is a vocoder, and encoding is the transform alone.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn import functional

from lumina.errors import LuminaError
from lumina.modalities import Latents, Modality, Scaling
from lumina.modalities.image import place_of
from lumina.modalities.sound.mel import MELS, SILENCE, waveform_to_mel
from lumina.modalities.sound.spectrogram import draw_spectrogram
from lumina.spelling import EDGES, LETTERS, letter_shares, read_letters

AROUND = 2
"""Letters before and after that each frame reads besides its own."""

HINTS = (2 * AROUND + 1) * len(LETTERS) + 1
"""Channels of the letters, and how far the frame is in its own, from 0 to 1."""

SCALING = Scaling(shift=-3.0, factor=1 / 1.5)
"""To about unit spread of the spectrograms of speech."""

HEARD = 0.2
"""What is above silence by more than this, in powers of ten, is speech."""


def lay_out(
    letters: str, frames: int, *, start: float, end: float
) -> Float[Tensor, "hints frames"]:
    """What each frame reads of letters that are said between two frames.

    Args:
        letters: What `read_letters` gave.
        frames: Of the whole spectrogram.
        start: Where the first letter begins.
        end: Where the last one ends.
    """
    shares = torch.tensor([0.0, *letter_shares(letters)], dtype=torch.float64)
    bounds = start + (end - start) * shares.cumsum(0) / shares.sum()
    middles = torch.arange(frames, dtype=torch.float64) + 0.5
    place = torch.searchsorted(bounds, middles, right=True)  # 0 before the first letter
    # Frames before and after read the letters that are near, as nothing but neighbors.
    margin = AROUND + 1
    numbers = torch.tensor([LETTERS.index(letter) for letter in letters])
    table = functional.one_hot(numbers, len(LETTERS)).float()
    table = functional.pad(table, (0, 0, margin, margin))
    near = [table[place + offset] for offset in range(margin - AROUND - 1, margin + AROUND)]
    inside = (place > 0) & (place <= len(letters))
    own = place.clamp(1, len(letters))
    progress = (middles - bounds[own - 1]) / (bounds[own] - bounds[own - 1])
    return torch.cat([*near, (progress * inside).float().unsqueeze(1)], dim=1).mT


def spoken_frames(mel: Float[Tensor, "c frames"]) -> int:
    """Frames up to the last that is not silence, of a spectrogram as a flow has it."""
    silence = (SILENCE - SCALING.shift) * SCALING.factor
    loud = (mel.amax(0) > silence + HEARD * SCALING.factor).nonzero()
    return int(loud[-1]) + 1 if len(loud) else mel.shape[-1]


def tell(text: str, total: int, *, spoken: int | None = None) -> Float[Tensor, "hints frames"]:
    """Hints of a text; of none, nothing but zeros.

    Args:
        text: What is said, or "".
        total: Frames of the spectrogram.
        spoken: Those before the silence at the end. None: all.

    Raises:
        LuminaError: If the text cannot be said.
    """
    if not text:
        return torch.zeros(HINTS, total)
    before, after = EDGES
    end = max(before + 1, (total if spoken is None else spoken) - after)
    return lay_out(read_letters(text), total, start=before, end=end)


class SpeechCodec:
    """Waveforms at 16 kHz and their spectrograms.

    Args:
        vocoder: Turns spectrograms into waveforms. None: nothing is decoded.
    """

    def __init__(self, vocoder: Any = None):
        self.vocoder = vocoder

    def encode(self, media: Sequence[Float[np.ndarray, " samples"]]) -> Latents:
        """Spectrograms of sounds of one length; there is no spread."""
        mel = waveform_to_mel(torch.from_numpy(np.stack(media)))
        return Latents(mel, torch.zeros_like(mel))

    @torch.no_grad()
    def decode(self, latents: Float[Tensor, "b c frames"]) -> list[Float[np.ndarray, " samples"]]:
        """Sounds from spectrograms.

        Raises:
            LuminaError: If there is no vocoder.
        """
        if self.vocoder is None:
            raise LuminaError("speech is not decoded without a vocoder", hint="give a vocoder")
        mel = latents.clamp(min=SILENCE).to(place_of(self.vocoder), self.vocoder.dtype)
        waveforms = self.vocoder(mel)
        return list(waveforms.float().clamp(-1, 1).cpu().numpy())


class SpeechModality(Modality):
    """Speech of any length, counted in frames of 16 ms. A network reads letters beside noise."""

    needs_autoencoder = True  # the vocoder is what a recipe names

    def open(self, autoencoder: Path, device: torch.device) -> SpeechCodec:
        """There is nothing to load."""
        return SpeechCodec()

    def scaling(self, autoencoder: Path) -> Scaling:
        """The same for all."""
        return SCALING

    def network(self, autoencoder: Path, size: Sequence[int]) -> dict[str, Any]:
        """One token a frame, in one sequence."""
        return {
            "patch_size": 1,
            "in_channels": MELS + HINTS,
            "out_channels": MELS,
            "learn_sigma": False,
            "has_line_token": False,
        }

    def grid(self, autoencoder: Path, size: Sequence[int]) -> tuple[int, ...]:
        """Frames."""
        return (size[0],)

    def draw_hints(
        self, latents: Float[Tensor, "c n"], generator: torch.Generator, caption: str = ""
    ) -> Float[Tensor, "hints n"]:
        """Letters along what is spoken."""
        return tell(caption, latents.shape[-1], spoken=spoken_frames(latents))

    def enter(
        self,
        x: Float[Tensor, "b c n"],
        times: Float[Tensor, " b"],
        hints: Float[Tensor, "b hints n"] | None,
    ) -> Float[Tensor, "b channels n"]:
        """Spectrograms, then letters."""
        if hints is None:
            hints = x.new_zeros(len(x), HINTS, x.shape[-1])
        return torch.cat([x, hints.to(x)], dim=1)

    def positions(self, network: Any, x: Tensor) -> dict[str, Any]:
        """As they are."""
        return {}

    def show(self, medium: Float[np.ndarray, " samples"], *, small: bool = True) -> Image.Image:
        """A spectrogram."""
        return (
            draw_spectrogram(medium, width=240, height=128) if small else draw_spectrogram(medium)
        )


MODALITY = SpeechModality()
