"""Voices of espeak-ng and flite that speak sentences: the source of all generated speech.

Both are programs that are installed apart from the package; neither is part of it.
"""

import functools
import io
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from lumina.errors import LuminaError
from lumina.worlds.soundfont import SAMPLE_RATE, downsample

LOUDNESS = 0.1
"""Root mean square of the samples of every sentence."""

LEAD, TAIL = 512, 1280
"""Samples that are kept before and after what is loud enough to be speech."""

QUIET = 0.02
"""Share of the peak below which there is silence at the ends."""


@dataclass(frozen=True)
class Speaker:
    """A voice of a program.

    Args:
        program: Its name, which is that of the Debian package too.
        name: What the program calls the voice.
        rate: Words a minute at the usual speed, for espeak-ng.
    """

    program: str
    name: str
    rate: float = 0.0


SPEAKERS = {
    "woman": Speaker("flite", "slt"),
    "man": Speaker("flite", "rms"),
    "robot": Speaker("espeak-ng", "en-us+f2", 140),
}
"""Who speaks as each of `lumina.spelling.VOICES`: those that a speech recognizer understands."""


def speak(sentence: str, voice: str, *, speed: float = 1.0) -> Float[np.ndarray, " samples"]:
    """A sentence at 16 kHz and one loudness, without silence at its ends.

    Args:
        sentence: Words in small letters.
        voice: A name in `SPEAKERS`.
        speed: How much faster than usual it is said.

    Raises:
        LuminaError: If the program of the voice is not installed.
    """
    import soundfile

    speaker = SPEAKERS[voice]
    check_program(speaker.program)
    file = _PROGRAMS[speaker.program](speaker, sentence, speed)
    waveform, rate = soundfile.read(io.BytesIO(file), dtype="float32")
    samples = round(len(waveform) * SAMPLE_RATE / rate)
    return _level(_trim(downsample(waveform, samples)))


def check_program(program: str) -> None:
    """Raise a `LuminaError` if a program is not installed."""
    if shutil.which(program) is None:
        raise LuminaError(
            f"speech is made by {program}, which is not installed",
            hint=f"on Debian: apt-get install {program}",
        )


@functools.cache
def version_of(program: str) -> str:
    """What a program says of itself."""
    check_program(program)
    return subprocess.run([program, "--version"], capture_output=True, text=True).stdout.strip()


def _run_espeak(speaker: Speaker, sentence: str, speed: float) -> bytes:
    words = ["-v", speaker.name, "-s", str(round(speaker.rate * speed)), "--stdout", sentence]
    return subprocess.run(["espeak-ng", *words], capture_output=True, check=True).stdout


def _run_flite(speaker: Speaker, sentence: str, speed: float) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "speech.wav"
        stretch = f"duration_stretch={1 / speed:.4f}"
        words = ["-voice", speaker.name, "--setf", stretch, "-t", sentence, "-o", str(path)]
        subprocess.run(["flite", *words], capture_output=True, check=True)
        return path.read_bytes()


_PROGRAMS: dict[str, Callable[[Speaker, str, float], bytes]] = {
    "espeak-ng": _run_espeak,
    "flite": _run_flite,
}


def _trim(waveform: Float[np.ndarray, " samples"]) -> Float[np.ndarray, " kept"]:
    loud = np.flatnonzero(np.abs(waveform) > QUIET * np.abs(waveform).max())
    return waveform[max(0, loud[0] - LEAD) : loud[-1] + TAIL]


def _level(waveform: Float[np.ndarray, " samples"]) -> Float[np.ndarray, " samples"]:
    leveled = waveform * (LOUDNESS / np.sqrt(np.mean(np.square(waveform))))
    return np.clip(leveled, -1, 1).astype(np.float32)
