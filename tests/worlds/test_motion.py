import numpy as np
import pytest
from PIL import Image

from lumina.types import Size
from lumina.worlds.drawings import PALETTE
from lumina.worlds.motion import MOTIONS, Clip, paint_clip, pose_at

SIZE = Size(64, 64)
CLIPS = [Clip("🍎", kind, direction, 0.3, (0.45, 0.5), 0.4, "blue") for kind, direction in MOTIONS]


@pytest.mark.parametrize("clip", CLIPS, ids=lambda clip: f"{clip.kind} {clip.direction}")
def test_a_longer_clip_begins_as_the_shorter_one_does(patterns, clip):
    long = paint_clip(clip, SIZE, 6, drawing_of=patterns.get)
    assert (long[:3] == paint_clip(clip, SIZE, 3, drawing_of=patterns.get)).all()


@pytest.mark.parametrize("clip", CLIPS, ids=lambda clip: f"{clip.kind} {clip.direction}")
def test_twice_the_frame_rate_has_the_same_frames_between(patterns, clip):
    fast = paint_clip(clip, SIZE, 5, frame_rate=16, drawing_of=patterns.get)
    assert (fast[::2] == paint_clip(clip, SIZE, 3, drawing_of=patterns.get)).all()


@pytest.mark.parametrize("direction", ["left", "right", "up", "down"])
def test_a_move_shifts_the_picture_by_its_speed(patterns, direction):
    clip = Clip("🍎", "move", direction, speed=1 / 2, extent=0.5)
    first, second = paint_clip(clip, SIZE, 2, frame_rate=4, drawing_of=patterns.get)
    shift, axis = {"left": (-8, 1), "right": (8, 1), "up": (-8, 0), "down": (8, 0)}[direction]
    assert (second == np.roll(first, shift, axis)).all()


@pytest.mark.parametrize(("direction", "turns"), [("clockwise", -1), ("counterclockwise", 1)])
def test_a_quarter_of_a_spin_turns_the_picture(patterns, direction, turns):
    clip = Clip("🍎", "spin", direction, speed=1, extent=0.5)
    first, second = paint_clip(clip, SIZE, 2, frame_rate=4, drawing_of=patterns.get)
    # Bicubic weights are rounded to bytes, not everywhere in the same way.
    assert abs(np.rot90(first, turns).astype(int) - second).max() <= 4


def test_fading_out_is_fading_in_backward(patterns):
    faded = {
        way: paint_clip(Clip("🍎", "fade", way, speed=1), SIZE, 9, drawing_of=patterns.get)
        for way in ("in", "out")
    }
    assert (faded["in"] == faded["out"][::-1]).all()
    assert (faded["in"][0] == 255).all()


def test_growing_ends_at_the_size_that_it_reaches(patterns):
    clip = Clip("🍎", "resize", "larger", speed=0.4, extent=0.3)
    last = paint_clip(clip, SIZE, 9, drawing_of=patterns.get)[-1]
    still = paint_clip(Clip("🍎", extent=0.7), SIZE, 1, drawing_of=patterns.get)[0]
    assert (last == still).all()


def test_what_shrinks_below_nothing_is_gone(patterns):
    clip = Clip("🍎", "resize", "smaller", speed=1, extent=0.3)
    assert (paint_clip(clip, SIZE, 9, drawing_of=patterns.get)[-1] == 255).all()


@pytest.mark.parametrize("size", [SIZE, Size(96, 64), Size(64, 96)])
@pytest.mark.parametrize("direction", ["sideways", "up and down"])
@pytest.mark.parametrize("speed", [0.7, -0.7])
def test_a_bounce_touches_both_borders_and_crosses_none(size, direction, speed):
    clip = Clip("🍎", "bounce", direction, speed, extent=0.4)
    axis = 0 if direction == "sideways" else 1
    middles = np.array([pose_at(clip, t / 100, size).center for t in range(500)])[:, axis]
    margin = 0.2 * min(size) / size[axis]
    assert middles.min() == pytest.approx(margin, abs=0.01)
    assert middles.max() == pytest.approx(1 - margin, abs=0.01)
    assert np.sign(np.diff(middles[:5])).tolist() == [np.sign(speed)] * 4
    # It never is faster than it is said to be, at borders neither.
    assert abs(np.diff(middles)).max() == pytest.approx(0.007)


def test_a_clip_shows_the_same_at_twice_the_size(patterns):
    clip = Clip("🍎", "spin", "clockwise", 0.3, (0.4, 0.55), 0.5, "green")
    small = paint_clip(clip, SIZE, 3, drawing_of=patterns.get)
    large = paint_clip(clip, Size(128, 128), 3, drawing_of=patterns.get)
    halved = large.reshape(3, 64, 2, 64, 2, 3).mean((2, 4))
    assert abs(halved - small).mean() < 2


def test_a_drawing_of_half_a_color_fades_between_it_and_the_background():
    clip = Clip("x", "fade", "in", speed=1, extent=1, background="blue")
    red = Image.new("RGBA", (80, 80), (255, 0, 0, 255))
    half = paint_clip(clip, SIZE, 5, drawing_of=lambda _: red)[4]
    expected = (np.array([255, 0, 0]) + PALETTE["blue"]) / 2
    assert abs(half[32, 32] - expected).max() <= 1


def test_a_tenth_of_things_in_motion_is_held_out():
    clips = [Clip(chr(0x1F300 + k), *motion) for k in range(200) for motion in MOTIONS]
    share = np.mean([clip.is_held_out for clip in clips if clip.kind != "still"])
    assert share == pytest.approx(0.1, abs=0.02)
    assert not any(clip.is_held_out for clip in clips if clip.kind == "still")
