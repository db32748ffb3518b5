"""Clips: MP4 by PyAV and GIF by Pillow, with the request that made them inside."""

import io
import json
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

from lumina.errors import LuminaError
from lumina.media.files import parse_record, write_whole

Clip = UInt8[np.ndarray, "frames height width 3"]

MOST_PIXELS = 1 << 29
"""Pixels of all frames of a clip that is read, at most."""

MOST_SECONDS = 600
"""Of a clip that is read, since all of it is decoded on the way to its last frames."""

_COMMENT = "comment"
_FROM_LUMINA = "give a clip that `lumina generate` wrote"
_ANY_VIDEO = "give a video, such as an MP4 file"


def write_mp4(
    path: Path, clip: Clip, record: dict[str, Any], *, force: bool = False, frame_rate: float
) -> None:
    """Write a clip as H.264 that all players read; its sides have to be even.

    Args:
        path: A file in a folder that exists.
        clip: The frames.
        record: How it was made; anything that JSON can hold.
        force: Replace a file of that name.
        frame_rate: Frames a second.

    Raises:
        LuminaError: If the file exists and is not to be replaced, or cannot be written.
    """
    import av

    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        container.metadata[_COMMENT] = json.dumps(record, ensure_ascii=False)
        rate = Fraction(frame_rate).limit_denominator(1000)
        stream: Any = container.add_stream("libx264", rate=rate, options={"crf": "12"})
        stream.height, stream.width = clip.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1  # or the same clip may become another file
        for frame in clip:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    write_whole(path, buffer.getbuffer(), force=force)


def write_gif(
    path: Path, clip: Clip, record: dict[str, Any], *, force: bool = False, frame_rate: float
) -> None:
    """Write a clip as a GIF that repeats, in at most 256 colours a frame. Arguments as above."""
    frames = [Image.fromarray(frame) for frame in clip]
    buffer = io.BytesIO()
    frames[0].save(
        buffer,
        format="GIF",
        save_all=True,
        append_images=frames[1:],
        duration=round(1000 / frame_rate),
        loop=0,
        comment=json.dumps(record).encode(),
    )
    write_whole(path, buffer.getbuffer(), force=force)


def read_mp4_record(path: Path) -> dict[str, Any]:
    """How a clip was made, out of its file.

    Raises:
        LuminaError: If there is no such clip, or it was not made by lumina.
    """
    with _opened(path, hint=_FROM_LUMINA) as container:
        return parse_record(path, container.metadata.get(_COMMENT), hint=_FROM_LUMINA)


def read_gif_record(path: Path) -> dict[str, Any]:
    """The same for a GIF."""
    try:
        with Image.open(path, formats=["GIF"]) as image:
            comment = image.info.get("comment")
    except (UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise LuminaError(f"{path} is no GIF", hint=_FROM_LUMINA) from error
    except OSError as error:
        raise LuminaError(
            f"cannot read {path}: {error.strerror or error}", hint=_FROM_LUMINA
        ) from error
    text = comment.decode(errors="replace") if comment else None
    return parse_record(path, text, hint=_FROM_LUMINA)


def read_clip(path: Path, *, last: int | None = None) -> tuple[Clip, float]:
    """The frames of a video of any format that PyAV reads, and how many there are a second.

    Args:
        path: The file.
        last: How many frames are kept, from the end. None keeps all.

    Returns:
        Upright frames, and their rate.

    Raises:
        LuminaError: If it cannot be read, is longer than ten minutes, or what is kept has more than
            537 million pixels.
    """
    frames: deque[UInt8[np.ndarray, "height width 3"]] = deque(maxlen=last)
    with _opened(path, hint=_ANY_VIDEO) as container:
        if not container.streams.video:
            raise LuminaError(f"{path} has no pictures", hint=_ANY_VIDEO)
        rate = container.streams.video[0].average_rate or 1
        seconds = (container.duration or 0) / 1e6
        if seconds > MOST_SECONDS:
            raise LuminaError(
                f"{path} is {seconds:.0f} seconds long, and {MOST_SECONDS} are read at most",
                hint="cut it",
            )
        for frame in container.decode(video=0):
            quarters = round(frame.rotation / 90)  # counterclockwise
            frames.append(np.rot90(frame.to_ndarray(format="rgb24"), quarters))
            if len(frames) * frame.width * frame.height > MOST_PIXELS:
                raise LuminaError(
                    f"{path} has more than {MOST_PIXELS / 1e6:.0f} million pixels in all",
                    hint="cut it, or make it smaller",
                )
    if not frames:
        raise LuminaError(f"{path} has no frames", hint=_ANY_VIDEO)
    return np.stack(frames), float(rate)


@contextmanager
def _opened(path: Path, *, hint: str) -> Iterator[Any]:
    """A video that is open; what is damaged may be found out only while it is decoded."""
    import av

    try:
        # Tags that are not UTF-8 are of other programs.
        with av.open(str(path), metadata_errors="replace") as container:
            yield container
    except (av.FFmpegError, OSError) as error:
        raise LuminaError(f"cannot read {path}: {error.strerror or error}", hint=hint) from error
