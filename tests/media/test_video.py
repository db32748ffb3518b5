import struct

import numpy as np
import pytest
from PIL import Image

from lumina.errors import LuminaError
from lumina.media import read_record, video
from lumina.media.video import read_first_frames, read_last_frames, write_gif, write_mp4
from lumina.tasks import Pictures

av = pytest.importorskip("av")


class Unseekable:
    """A stream that is written from its start to its end."""

    def __init__(self, file):
        self.write = file.write


def make_clip(frames: int = 6) -> np.ndarray:
    """Frames that are ever brighter, each with a white corner at its top left."""
    grays = np.arange(frames) * 30
    clip = np.broadcast_to(grays[:, None, None, None], (frames, 32, 64, 3)).astype(np.uint8)
    clip[:, :16, :16] = 255
    return clip


def write(path, frames: int = 6):
    write_mp4(path, make_clip(frames), {"seed": 7}, frame_rate=8)
    return path


def read_whole(path):
    return read_last_frames(path, 99, rate=8)


def brightness(frames) -> list[int]:
    """Of a corner of each frame that `make_clip` made ever brighter."""
    return [int(np.asarray(frame)[-4, -4].mean()) for frame in frames]


def test_a_clip_that_is_damaged_is_refused(tmp_path):
    path = tmp_path / "a.mp4"
    noise = np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3), np.uint8)
    write_mp4(path, noise, {}, frame_rate=8)
    content = bytearray(path.read_bytes())
    begin = content.index(b"mdat") + 4
    content[begin : begin + 40_000] = bytes([255]) * 40_000
    path.write_bytes(content)
    with pytest.raises(LuminaError, match=r"cannot read .*a\.mp4.*\nhint: give a video"):
        read_whole(path)


def test_what_is_no_clip_is_refused_by_what_it_is_wanted_for(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"not a clip")
    with pytest.raises(LuminaError, match="hint: give a video"):
        read_whole(path)
    with pytest.raises(LuminaError, match="hint: give a clip that `lumina generate` wrote"):
        read_record(path)


@pytest.mark.parametrize("comment", [b"2021", b"[]", b"by hand"])
def test_a_comment_of_another_program_is_no_record(tmp_path, comment):
    path = tmp_path / "a.gif"
    Image.new("RGB", (8, 8)).save(path, comment=comment)
    with pytest.raises(LuminaError, match="does not say how it was made"):
        read_record(path)


def test_a_picture_that_is_called_a_gif_is_refused(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.gif", format="PNG")
    with pytest.raises(LuminaError, match="is no GIF"):
        read_record(tmp_path / "a.gif")


def test_a_gif_that_says_to_be_huge_is_refused(tmp_path):
    path = tmp_path / "a.gif"
    Image.new("RGB", (8, 8)).save(path)
    content = bytearray(path.read_bytes())
    content[6:10] = b"\xff" * 4
    path.write_bytes(content)
    with pytest.raises(LuminaError, match="is no GIF"):
        read_record(path)


def test_the_last_frames_alone_are_kept(tmp_path, monkeypatch):
    path = write(tmp_path / "a.mp4")
    whole = read_whole(path)
    assert len(whole) == 6
    assert np.array_equal(read_last_frames(path, 2, rate=8), whole[-2:])
    monkeypatch.setattr(video, "MOST_PIXELS", 3 * 32 * 64)
    assert len(read_last_frames(path, 3, rate=8)) == 3
    with pytest.raises(LuminaError, match="million pixels"):
        read_last_frames(path, 4, rate=8)


def test_frames_of_a_faster_clip_are_taken_by_their_time(tmp_path):
    path = tmp_path / "a.mp4"
    write_mp4(path, make_clip(9), {}, frame_rate=24)
    assert brightness(read_last_frames(path, 9, rate=8)) == pytest.approx([60, 150, 240], abs=6)
    assert brightness(read_last_frames(path, 2, rate=8)) == pytest.approx([150, 240], abs=6)
    assert brightness(read_first_frames(path, 9, rate=8)) == pytest.approx([0, 90, 180], abs=6)


def test_frames_of_a_slower_clip_are_seen_as_long_as_they_last(tmp_path):
    path = tmp_path / "a.mp4"
    write_mp4(path, make_clip(3), {}, frame_rate=4)
    expected = pytest.approx([0, 0, 30, 30, 60, 60], abs=6)
    assert brightness(read_last_frames(path, 9, rate=8)) == expected
    assert brightness(read_first_frames(path, 9, rate=8)) == expected


@pytest.mark.parametrize("frames", [1, 8, 19])
@pytest.mark.parametrize("same", [1, 4, 99])
def test_a_gif_is_as_long_as_the_clip_whichever_frames_are_equal(tmp_path, frames, same):
    clip = make_clip(8)[np.arange(frames) // same % 8]
    write_gif(tmp_path / "a.gif", clip, {}, frame_rate=8)
    for read in (read_first_frames, read_last_frames):
        assert brightness(read(tmp_path / "a.gif", 99, rate=8)) == brightness(clip)


# As phones write them: where an axis of the frame points, as fixed-point numbers.
TURNS = {0: (1, 0, 0, 1), 1: (0, -1, 1, 0), 2: (-1, 0, 0, -1), 3: (0, 1, -1, 0)}


@pytest.mark.parametrize("quarters", TURNS)
def test_a_clip_of_a_camera_that_was_turned_is_upright(tmp_path, quarters):
    path = write(tmp_path / "a.mp4")
    upright = read_whole(path)
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 44
    a, b, c, d = (1 << 16) * np.array(TURNS[quarters])
    content[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    assert np.array_equal(read_whole(path), np.rot90(upright, quarters, axes=(1, 2)))


def test_first_frames_are_read_once_and_told_once(tmp_path):
    path, told = write(tmp_path / "a.mp4"), []
    pictures = Pictures(told.append)
    frames = pictures.read_frames([str(path)], "32x16", 2, rate=8)
    path.unlink()
    assert pictures.read_frames([str(path)], "32x16", 2, rate=8) == frames
    assert [frame.size for frame in frames] == [(32, 16)] * 2
    assert brightness(frames) == pytest.approx([120, 150], abs=6)
    assert [text.partition("a.mp4 ")[2] or text for text in told] == [
        "is 64x32 pixels, and is resized to 32x16",
        "the last 2 of the first frames are taken",
    ]


def test_a_first_frame_of_another_shape_keeps_its_middle(tmp_path):
    picture, told = Image.new("RGB", (64, 32), "white"), []
    picture.paste("red", (24, 8, 40, 24))
    picture.save(tmp_path / "a.png")
    path = str(tmp_path / "a.png")
    (frame,) = Pictures(told.append).read_frames([path], "32x32", 1, rate=8)
    expected = picture.crop((16, 0, 48, 32))
    assert np.array_equal(np.asarray(frame), np.asarray(expected))
    assert told == [f"{path} is 64x32 pixels, and is cropped and resized to 32x32"]


def test_a_film_is_refused(tmp_path):
    write_gif(tmp_path / "a.gif", make_clip(2), {}, frame_rate=1 / 350)
    with pytest.raises(LuminaError, match="longer than 600 seconds"):
        read_last_frames(tmp_path / "a.gif", 1, rate=8)


def test_what_is_decoded_counts_in_a_file_that_does_not_say_how_long_it_is(tmp_path, monkeypatch):
    path = tmp_path / "a.mkv"
    with path.open("wb") as file, av.open(Unseekable(file), "w", format="matroska") as container:
        stream = container.add_stream("mpeg4", rate=8)
        stream.width, stream.height = 64, 32
        for frame in make_clip(8):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    with av.open(str(path)) as container:
        assert not container.duration
    assert len(read_last_frames(path, 9, rate=8)) == 8
    monkeypatch.setattr(video, "MOST_SECONDS", 0.9)
    assert len(read_first_frames(path, 6, rate=8)) == 6
    with pytest.raises(LuminaError, match=r"longer than 0\.9 seconds"):
        read_last_frames(path, 1, rate=8)
    monkeypatch.setattr(video, "MOST_SECONDS", 1)
    monkeypatch.setattr(video, "MOST_DECODED_PIXELS", 7 * 32 * 64)
    with pytest.raises(LuminaError, match="million pixels"):
        read_last_frames(path, 1, rate=8)


def test_a_clip_that_is_not_too_long_is_taken_whole(tmp_path):
    told = []
    write_gif(tmp_path / "a.gif", make_clip(2), {}, frame_rate=8)
    frames = Pictures(told.append).read_frames([str(tmp_path / "a.gif")], "64x32", 2, rate=8)
    assert len(frames) == 2
    assert not told
