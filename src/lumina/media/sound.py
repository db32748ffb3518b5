"""Files of sound: WAV and FLAC with the request that made them stored inside."""

import io
import json
import math
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import Float

from lumina.errors import LuminaError, UnknownNameError, refuse_missing_library
from lumina.media.files import parse_record, write_whole

SAMPLE_RATE = 16_000
"""Samples in a second of the sounds of this library."""

FORMATS = {".wav": "WAV", ".flac": "FLAC"}
"""Formats of sound by the endings of their names."""

LONGEST_SECONDS = 600.0
"""Longer sounds are refused, since they would fill the memory."""

COMMENT = "lumina:"
"""How the comment of a file begins that holds the record."""


def write_sound(
    path: Path,
    waveform: Float[np.ndarray, " samples"],
    record: dict[str, Any],
    *,
    sample_rate: int = SAMPLE_RATE,
    force: bool = False,
) -> None:
    """Write a sound of 16 bits so that its name appears only when the file is complete.

    Args:
        path: A file in a folder that exists; its ending says the format.
        waveform: Samples in [-1, 1]; those beyond are cut.
        record: How it was made; anything that JSON can hold.
        sample_rate: Samples in a second.
        force: Replace a file of that name.

    Raises:
        LuminaError: If the format is unknown, the file exists and is not to be replaced, or cannot
            be written, or soundfile is not installed.
    """
    soundfile = _library()
    if path.suffix.lower() not in FORMATS:
        raise UnknownNameError.among(FORMATS, path.suffix, kind="format of sound")
    buffer = io.BytesIO()
    buffer.name = f"sound{path.suffix.lower()}"
    # ASCII, since comments of WAV files have no encoding.
    comment = f"{COMMENT}{json.dumps(record)}"
    format = FORMATS[path.suffix.lower()]
    with soundfile.SoundFile(buffer, "w", sample_rate, 1, "PCM_16", format=format) as file:
        file.comment = comment
        file.write(np.clip(waveform, -1, 1))
    write_whole(path, buffer.getbuffer(), force=force)


def read_sound(path: Path) -> Float[np.ndarray, " samples"]:
    """Waveform of a file in [-1, 1] at 16 kHz; channels are mixed, other rates are changed.

    Raises:
        LuminaError: If there is no such file, it is no sound, is empty or too long, or soundfile
            is not installed.
    """
    with _opened(path) as file:
        channels = file.read(dtype="float32", always_2d=True)
        rate = file.samplerate
    return resample(channels.mean(1), rate)


def check_sound(path: Path) -> None:
    """Refuse what `read_sound` would refuse, as far as the header tells. Errors as above."""
    with _opened(path):
        pass


def read_sound_record(path: Path) -> dict[str, Any]:
    """How a sound was made, out of its file.

    Raises:
        LuminaError: If there is no such file, or it was not made by lumina.
    """
    soundfile = _library()
    try:
        with soundfile.SoundFile(path) as file:
            comment = file.comment or (_wav_comment(path) if file.format == "WAV" else "")
    except soundfile.LibsndfileError as error:
        raise _unreadable(path) from error
    text = comment.removeprefix(COMMENT) if comment.startswith(COMMENT) else None
    return parse_record(path, text, hint=_FROM_LUMINA)


def resample(waveform: Float[np.ndarray, " samples"], rate: int) -> Float[np.ndarray, " resampled"]:
    """A waveform of another rate at 16 kHz, keeping all frequencies that both can hold."""
    if rate == SAMPLE_RATE:
        return waveform
    samples = math.ceil(len(waveform) * SAMPLE_RATE / rate)
    # Both lengths stand for exactly the same time.
    padded = round(samples * rate / SAMPLE_RATE)
    spectrum = np.fft.rfft(waveform, padded)
    kept = np.zeros(samples // 2 + 1, spectrum.dtype)
    common = min(len(kept), len(spectrum))
    kept[:common] = spectrum[:common]
    return (np.fft.irfft(kept, samples) * (samples / padded)).astype(np.float32)


def _wav_comment(path: Path) -> str:
    """Comment of a WAV file of any length: libsndfile 1.2.2 reads none above 2,048 bytes.

    Source:
        Resource Interchange File Format, of which the list INFO has the comment ICMT.
    """
    with path.open("rb") as file:
        file.seek(12)  # the name and size of the file, and what it is
        info = io.BytesIO(_find_chunk(file, b"LIST"))
    info.seek(4)  # the name of the list
    return _find_chunk(info, b"ICMT").rstrip(b"\0").decode("ascii", errors="replace")


def _find_chunk(file: BinaryIO, wanted: bytes) -> bytes:
    """The next chunk of a name, and nothing if there is none."""
    while len(head := file.read(8)) == 8:
        name, size = struct.unpack("<4sI", head)
        if name == wanted:
            return file.read(size)
        file.seek(size + size % 2, io.SEEK_CUR)
    return b""


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A sound that is open and has a length that can be read."""
    soundfile = _library()
    try:
        with soundfile.SoundFile(path) as file:
            seconds = file.frames / file.samplerate
            if not 0 < seconds <= LONGEST_SECONDS:
                raise LuminaError(
                    f"{path} is {seconds:.0f} seconds long",
                    hint=f"allowed: above 0, up to {LONGEST_SECONDS:.0f} seconds",
                )
            yield file
    except soundfile.LibsndfileError as error:
        raise _unreadable(path) from error


def _library() -> Any:
    refuse_missing_library("soundfile", extra="sound")
    import soundfile

    return soundfile


def _unreadable(path: Path) -> LuminaError:
    if not path.exists():
        return LuminaError(f"there is no file {path}", hint="give a WAV or FLAC file")
    return LuminaError(f"{path} is not a sound", hint="give a WAV or FLAC file")


_FROM_LUMINA = "give a sound that `lumina generate` wrote"
