"""Clips: MP4 by PyAV and GIF by Pillow, with the request that made them inside."""

import io
import json
from bisect import bisect_left
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

from lumina.errors import LuminaError
from lumina.media.files import parse_record, write_whole

Clip = UInt8[np.ndarray, "frames height width 3"]

MOST_PIXELS = 1 << 29
"""Pixels of all frames of a clip that is read, at most."""

MOST_SECONDS = 600
"""Of a clip whose last frames are read, since all of it is decoded on the way to them."""

MOST_DECODED_PIXELS = 1 << 37
"""Pixels of all frames on the way: ten minutes of 1920x1080 at 110 frames a second."""

_ROUNDING = 0.012
"""Seconds that times of frames are off by: those of GIFs are rounded to hundredths."""

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
    """Write a clip as a GIF that repeats, in at most 256 colours a frame. Arguments as above.

    Frames that are equal become one that lasts as long as they do.
    """
    frames = [Image.fromarray(frame) for frame in clip]
    # Times are hundredths of seconds. Each is cut to that by itself, since what is cut off from
    # how long frames last would add up.
    ends = [10 * int(100 * number / frame_rate) for number in range(len(clip) + 1)]
    buffer = io.BytesIO()
    frames[0].save(
        buffer,
        format="GIF",
        save_all=True,
        append_images=frames[1:],
        duration=[end - begin for begin, end in pairwise(ends)],
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


def read_first_frames(path: Path, most: int, *, rate: float) -> Clip:
    """The first frames of a video of any format that PyAV reads, as it is played.

    Args:
        path: The file.
        most: How many are read. There are fewer if it is shorter.
        rate: Frames a second, whatever those of the file are.

    Returns:
        Upright frames.

    Raises:
        LuminaError: If it cannot be read, or they have more than 537 million pixels.
    """
    return _pick(path, [number / rate for number in range(most)])


def read_last_frames(path: Path, most: int, *, rate: float) -> Clip:
    """The last frames, of which the last of all is one. Arguments as above.

    Raises:
        LuminaError: As above, and if it is longer than ten minutes.
    """
    with _opened(path, hint=_ANY_VIDEO) as container:
        _refuse_long(path, (container.duration or 0) / 1e6)
    (last,) = deque(_spans(path), maxlen=1)
    end = max(last.begin, last.end - 1 / rate)
    times = [end - number / rate for number in reversed(range(most))]
    return _pick(path, [time for time in times if time > -_ROUNDING])


def check_clip(path: Path) -> None:
    """Raise a `LuminaError` if a file is no video, as far as its header tells."""
    with _opened(path, hint=_ANY_VIDEO):
        pass


class _Span(NamedTuple):
    """A frame, and the seconds in which it is seen."""

    frame: Any
    begin: float
    end: float


def _pick(path: Path, times: Sequence[float]) -> Clip:
    """Frames that are seen at increasing times, as far as the clip goes."""
    picked: list[UInt8[np.ndarray, "height width 3"]] = []
    for frame, _, end in _spans(path):
        count = bisect_left(times, end) - len(picked)
        if count > 0:
            picked += [_upright(frame)] * count
        if len(picked) * frame.width * frame.height > MOST_PIXELS:
            raise _too_many_pixels(path, MOST_PIXELS)
        if len(picked) == len(times):
            break
    return np.stack(picked)


def _spans(path: Path) -> Iterator[_Span]:
    """All frames, each once the next one is known, or that there is none."""
    with _opened(path, hint=_ANY_VIDEO) as container:
        usual = float(1 / (container.streams.video[0].average_rate or 1))
        start, shown, pixels = None, None, 0
        for frame in container.decode(video=0):
            start = frame.time if start is None else start
            begin = 0.0 if shown is None else shown.end
            if frame.time is not None and start is not None:
                begin = frame.time - start
            if shown is not None:
                yield shown._replace(end=begin - _ROUNDING)
            lasts = float(frame.duration * frame.time_base) if frame.duration else usual
            shown = _Span(frame, begin, begin + lasts)
            pixels += frame.width * frame.height
            _refuse_long(path, shown.end)
            if pixels > MOST_DECODED_PIXELS:
                raise _too_many_pixels(path, MOST_DECODED_PIXELS)
        if shown is None:
            raise LuminaError(f"{path} has no frames", hint=_ANY_VIDEO)
        yield shown


def _upright(frame: Any) -> UInt8[np.ndarray, "height width 3"]:
    quarters = round(frame.rotation / 90)  # counterclockwise
    return np.rot90(frame.to_ndarray(format="rgb24"), quarters)


def _refuse_long(path: Path, seconds: float) -> None:
    if seconds > MOST_SECONDS:
        raise LuminaError(
            f"{path} is longer than {MOST_SECONDS} seconds, and no more are read", hint="cut it"
        )


def _too_many_pixels(path: Path, most: int) -> LuminaError:
    return LuminaError(
        f"{path} has more than {most / 1e6:,.0f} million pixels in all",
        hint="cut it, or make it smaller",
    )


@contextmanager
def _opened(path: Path, *, hint: str) -> Iterator[Any]:
    """A video that is open; what is damaged may be found out only while it is decoded."""
    import av

    try:
        # Tags that are not UTF-8 are of other programs.
        with av.open(str(path), metadata_errors="replace") as container:
            if not container.streams.video:
                raise LuminaError(f"{path} has no pictures", hint=_ANY_VIDEO)
            yield container
    except (av.FFmpegError, OSError) as error:
        raise LuminaError(f"cannot read {path}: {error.strerror or error}", hint=hint) from error
