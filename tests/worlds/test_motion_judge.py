import numpy as np
import pytest

from lumina.types import Size
from lumina.worlds.drawings import reference
from lumina.worlds.judge import Lineup
from lumina.worlds.motion import DIRECTIONS, MOTIONS, Clip, paint_clip
from lumina.worlds.motion_cast import Cast
from lumina.worlds.motion_judge import _find_thing, judge_clip, tell_motion, track_thing

SIZE = Size(96, 96)


@pytest.fixture(scope="module")
def drawings(patterns):
    return np.stack([reference(thing, drawing_of=patterns.get) for thing in patterns])


@pytest.fixture(scope="module")
def cast(patterns, drawings):
    return Cast(list(patterns), drawings)


@pytest.fixture(scope="module")
def lineup(patterns, drawings):
    return Lineup(list(patterns), drawings)


def clips_of(cast, kind, count, seed=0):
    rng = np.random.default_rng(seed)
    things = [thing for thing in cast.things if kind != "spin" or cast.is_spinner(thing)]
    return [cast.draw_of(things[k % len(things)], kind, rng) for k in range(count)]


@pytest.mark.parametrize("kind", DIRECTIONS)
@pytest.mark.parametrize("size", [Size(64, 64), SIZE, Size(128, 80)])
def test_painted_motion_is_told(patterns, cast, lineup, kind, size):
    for clip in clips_of(cast, kind, 4):
        verdict = judge_clip(lineup, clip, paint_clip(clip, size, drawing_of=patterns.get))
        assert verdict.is_direction_right
        assert verdict.is_found
        assert verdict.found == clip.thing
        assert verdict.is_color_right
        assert verdict.is_smooth


@pytest.mark.parametrize("kind", DIRECTIONS)
def test_twice_the_frames_are_told_as_well(patterns, cast, lineup, kind):
    for clip in clips_of(cast, kind, 3, seed=1):
        verdict = judge_clip(lineup, clip, paint_clip(clip, SIZE, 16, drawing_of=patterns.get))
        assert verdict.is_direction_right
        assert verdict.is_smooth


@pytest.mark.parametrize("kind", DIRECTIONS)
def test_noise_hides_no_motion_and_makes_none(patterns, cast, kind):
    rng = np.random.default_rng(0)
    for clip in clips_of(cast, kind, 3, seed=2):
        frames = paint_clip(clip, SIZE, drawing_of=patterns.get)
        noisy = (frames + rng.normal(0, 10, frames.shape)).clip(0, 255).astype(np.uint8)
        assert tell_motion(track_thing(noisy)) == (clip.kind, clip.direction)


OPPOSITES = {
    "left": "right",
    "up": "down",
    "clockwise": "counterclockwise",
    "larger": "smaller",
    "in": "out",
}
OPPOSITES |= {value: key for key, value in OPPOSITES.items()}


@pytest.mark.parametrize(("kind", "direction"), MOTIONS)
def test_frames_backward_show_the_opposite(patterns, cast, kind, direction):
    clip = next(c for c in clips_of(cast, kind, 40) if c.direction == direction)
    backward = paint_clip(clip, SIZE, drawing_of=patterns.get)[::-1]
    assert tell_motion(track_thing(backward)) == (kind, OPPOSITES.get(direction, direction))


@pytest.mark.parametrize("kind", ["move", "resize", "fade"])
def test_missing_frames_are_a_jump(patterns, cast, lineup, kind):
    for clip in clips_of(cast, kind, 3):
        frames = paint_clip(clip, SIZE, 14, frame_rate=14, drawing_of=patterns.get)
        with_gap = np.concatenate([frames[:4], frames[-4:]])
        assert not judge_clip(lineup, clip, with_gap).is_smooth


def test_what_leaps_once_and_stays_is_a_jump(patterns, lineup):
    left, right = (
        paint_clip(Clip("🍎", center=(x, 0.5)), SIZE, 4, drawing_of=patterns.get)
        for x in (0.3, 0.7)
    )
    verdict = judge_clip(lineup, Clip("🍎", "move", "right"), np.concatenate([left, right]))
    assert verdict.is_direction_right
    assert not verdict.is_smooth


def test_what_is_gone_at_once_is_a_jump(patterns, lineup):
    clip = Clip("🍎", "fade", "out")
    frames = paint_clip(Clip("🍎"), SIZE, 8, drawing_of=patterns.get)
    frames[4:] = 255
    assert not judge_clip(lineup, clip, frames).is_smooth


def test_another_thing_is_not_found(patterns, lineup):
    frames = paint_clip(Clip("🍎"), SIZE, 2, drawing_of=patterns.get)
    verdict = judge_clip(lineup, Clip("🐱"), frames)
    assert not verdict.is_found
    assert verdict.found == "🍎"


def test_a_thing_in_a_few_frames_is_not_found(patterns, lineup):
    apple, cat = (
        paint_clip(Clip(thing), SIZE, 8, drawing_of=patterns.get) for thing in ("🍎", "🐱")
    )
    frames = np.concatenate([apple[:3], cat[3:]])
    assert not judge_clip(lineup, Clip("🍎"), frames).is_found
    assert judge_clip(lineup, Clip("🐱"), frames).is_found


def test_what_does_not_spin_is_not_turned_back(patterns, cast, lineup):
    for clip in clips_of(cast, "move", 4):
        frames = paint_clip(clip, SIZE, 8, drawing_of=patterns.get)
        track = track_thing(frames)
        told = [
            _find_thing(lineup, clip.thing, frames, track._replace(turn=turn), spins=False)
            for turn in (0.0, 0.4)
        ]
        assert told == [(0, clip.thing)] * 2


@pytest.mark.parametrize("first", [0.0, 0.8, 3.0])
def test_what_spins_is_found_from_whatever_angle_it_begins(patterns, cast, lineup, first):
    for clip in clips_of(cast, "spin", 3):
        frames = paint_clip(clip, SIZE, 16, drawing_of=patterns.get)[round(4 * first) :]
        assert judge_clip(lineup, clip, frames).is_found


def test_frames_of_one_color_show_nothing(lineup):
    verdict = judge_clip(lineup, Clip("🍎"), np.full((8, 64, 64, 3), 255, np.uint8))
    assert (verdict.found, verdict.kind) == (None, "still")
    right = (verdict.is_found, verdict.is_kind_right, verdict.is_smooth)
    assert right == (False, False, False)
