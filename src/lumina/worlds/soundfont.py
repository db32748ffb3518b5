"""A General MIDI soundfont that plays notes: the source of all generated sounds and music.

It is TimGM6mb by Tim Brechbill (GPL-2.0), played by fluidsynth; neither is part of the package.
"""

import functools
import hashlib
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from lumina.errors import LuminaError

SAMPLE_RATE = 16_000
"""Samples of a waveform in a second."""

SOUNDFONTS = (
    Path("/usr/share/sounds/sf2/TimGM6mb.sf2"),
    Path("/usr/share/soundfonts/TimGM6mb.sf2"),
)

DRUMS = -1
"""In place of an instrument: the pitch then says which drum is struck."""


@dataclass(frozen=True)
class Note:
    """A key that is pressed and let go.

    Args:
        start: Seconds from the beginning.
        seconds: How long the key is down.
        pitch: MIDI number of the key, 0 to 127; 60 is the middle C, and 12 are an octave.
        program: Instrument of General MIDI, 0 to 127, or `DRUMS`.
        velocity: How hard it is struck, 1 to 127.
    """

    start: float
    seconds: float
    pitch: int
    program: int
    velocity: int = 100


def play(notes: Iterable[Note], seconds: float) -> Float[np.ndarray, " samples"]:
    """Waveform of notes in [-1, 1] at 16 kHz, the same for the same notes.

    There is one player in a process: threads wait for each other.

    Args:
        notes: In any order. At most 15 instruments besides drums.
        seconds: Length of the waveform. What sounds longer is cut.

    Raises:
        LuminaError: If fluidsynth, its Python package or the soundfont is not installed.
    """
    with _PLAYING:
        stereo = _play(list(notes), seconds)
    return downsample(stereo.mean(1), round(seconds * SAMPLE_RATE))


def downsample(
    waveform: Float[np.ndarray, " played"], samples: int
) -> Float[np.ndarray, " samples"]:
    """A waveform with fewer samples for the same time, keeping the frequencies that fit."""
    spectrum = np.fft.rfft(waveform)[: samples // 2 + 1]
    return np.fft.irfft(spectrum, samples).astype(np.float32) * (samples / len(waveform))


def find_soundfont() -> Path:
    """Path of the soundfont.

    Raises:
        LuminaError: If it is not installed.
    """
    for path in SOUNDFONTS:
        if path.exists():
            return path
    raise LuminaError(
        "the soundfont TimGM6mb is not installed",
        hint="on Debian: apt-get install timgm6mb-soundfont",
    )


# Played at three times the rate, since fluidsynth does not keep high partials from folding back.
_PLAYED_RATE = 3 * SAMPLE_RATE
_BLOCK = 64  # samples that are made at once; what is left of one would begin the next sound
_DITHER = 2  # steps of 16 bits, the noise that fluidsynth adds to silence
_LONGEST_FADE = 60  # of 67 ms each
_GAIN = 1.0  # loud enough for 16 bits, and without clipping for a few keys at once
_DRUM_CHANNEL = 9
_DRUM_BANK = 128
_PLAYING = threading.Lock()


def _play(notes: list[Note], seconds: float) -> Float[np.ndarray, "played 2"]:
    synth, font = _synth()
    _silence(synth)
    channels = _assign_channels(synth, font, notes)
    events = sorted(
        [(note.start, 1, note) for note in notes]
        + [(note.start + note.seconds, 0, note) for note in notes],
        key=lambda event: event[:2],
    )
    pieces, done, total = [], 0, round(seconds * _PLAYED_RATE)
    for time, is_start, note in events:
        until = min(round(time * _PLAYED_RATE), total)
        pieces.append(synth.get_samples(until - done))
        done = until
        if is_start:
            synth.noteon(channels[note.program], note.pitch, note.velocity)
        else:
            synth.noteoff(channels[note.program], note.pitch)
    pieces.append(synth.get_samples(total - done))
    synth.get_samples(-total % _BLOCK)
    return np.concatenate(pieces).reshape(-1, 2).astype(np.float32) / 32768


@functools.cache
def soundfont_digest() -> str:
    """What tells the soundfont from others.

    Raises:
        LuminaError: If it is not installed.
    """
    return hashlib.sha256(find_soundfont().read_bytes()).hexdigest()[:16]


@functools.cache
def _synth() -> tuple[Any, int]:
    """The player and the number of its soundfont."""
    try:
        import fluidsynth
    except ImportError as error:
        raise LuminaError(
            "sounds are played by fluidsynth, which is not installed",
            hint="pip install 'lumina-t2x[train]', and on Debian: apt-get install libfluidsynth3",
        ) from error
    # Echoes would carry over from one sound to the next.
    echoes = {"synth.reverb.active": 0, "synth.chorus.active": 0}
    synth = fluidsynth.Synth(gain=_GAIN, samplerate=_PLAYED_RATE, **echoes)
    return synth, synth.sfload(str(find_soundfont()))


def _silence(synth: Any) -> None:
    """Let what was played before fade, which takes a moment after a reset."""
    synth.system_reset()
    for _ in range(_LONGEST_FADE):
        if np.abs(synth.get_samples(50 * _BLOCK)).max() <= _DITHER:
            return


def _assign_channels(synth: Any, font: int, notes: list[Note]) -> dict[int, int]:
    """Channel of each instrument, which is set to it."""
    free = iter(channel for channel in range(16) if channel != _DRUM_CHANNEL)
    channels = {}
    for program in sorted({note.program for note in notes}):
        is_drums = program == DRUMS
        channels[program] = _DRUM_CHANNEL if is_drums else next(free)
        bank, preset = (_DRUM_BANK, 0) if is_drums else (0, program)
        synth.program_select(channels[program], font, bank, preset)
    return channels
