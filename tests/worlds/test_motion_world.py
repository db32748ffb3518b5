import numpy as np
import pytest

from lumina.errors import LuminaError
from lumina.worlds.motion_world import MotionWorld, usual_references
from lumina.worlds.vocabulary import COMMON


def test_only_common_things_move_in_the_ways_asked_for():
    world, rng = MotionWorld(kinds=("move", "fade")), np.random.default_rng(0)
    clips = [world.draw(rng) for _ in range(200)]
    assert {clip.thing for clip in clips} <= set(COMMON)
    assert {clip.kind for clip in clips} == {"move", "fade"}


def test_each_common_thing_has_its_own_drawing():
    things, drawings = usual_references()
    assert things == list(COMMON)
    assert len(np.unique(drawings.reshape(len(things), -1), axis=0)) == len(things)


@pytest.mark.parametrize(
    "world", [MotionWorld(kinds=()), MotionWorld(kinds=("still",), held_out=True)]
)
def test_a_world_of_no_clips_is_refused(world):
    with pytest.raises(LuminaError, match="no such kinds"):
        world.check()
