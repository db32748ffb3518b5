import numpy as np
import pytest
from PIL import Image, ImageDraw

from lumina.types import Size
from lumina.worlds.drawings import PALETTE, reference
from lumina.worlds.motion import LONGEST, paint_clip
from lumina.worlds.motion_cast import Cast


def disc(color):
    drawing = Image.new("RGBA", (100, 100))
    ImageDraw.Draw(drawing).ellipse((0, 0, 99, 99), color)
    return drawing


@pytest.fixture(scope="module")
def cast(patterns):
    drawings = [reference(thing, drawing_of=patterns.get) for thing in patterns]
    return Cast(list(patterns), np.stack(drawings))


def test_drawn_clips_stay_in_view(patterns, cast):
    rng = np.random.default_rng(0)
    for _ in range(30):
        clip = cast.draw(rng)
        frames = paint_clip(clip, Size(64, 64), LONGEST, drawing_of=patterns.get).astype(int)
        borders = [frames[:, 0], frames[:, -1], frames[:, :, 0], frames[:, :, -1]]
        if clip.kind == "bounce":  # whose place is to touch them
            continue
        assert max(abs(border - PALETTE[clip.background]).max() for border in borders) <= 4, clip


def test_what_is_held_out_is_drawn_only_when_asked_for(cast):
    rng = np.random.default_rng(0)
    assert not any(cast.draw(rng).is_held_out for _ in range(200))
    assert all(cast.draw(rng, is_held_out=True).is_held_out for _ in range(20))


def test_equal_seeds_draw_equal_clips(cast):
    assert cast.draw(np.random.default_rng(5)) == cast.draw(np.random.default_rng(5))


def test_what_is_round_does_not_spin_and_what_is_white_is_not_on_white(patterns):
    drawn = {"⚪": disc("white"), "🍎": patterns["🍎"]}
    cast = Cast(list(drawn), np.stack([reference(thing, drawing_of=drawn.get) for thing in drawn]))
    assert not cast.is_spinner("⚪")
    assert cast.is_spinner("🍎")
    assert "white" not in cast.backgrounds("⚪")
    assert "blue" in cast.backgrounds("⚪")


def test_what_is_to_be_in_view_for_less_time_begins_further_on(cast):
    rng = np.random.default_rng(0)

    def farthest(frames: int) -> float:
        clips = [cast.draw_of("🍎", "move", rng, frames=frames) for _ in range(200)]
        return max(clip.center[0] for clip in clips if clip.direction == "right")

    assert farthest(16) < 0.5 < farthest(8)
