import dataclasses

import numpy as np
import pytest

from lumina.errors import LuminaError
from lumina.worlds import find_world
from lumina.worlds.items import Item
from lumina.worlds.vocabulary import LANGUAGES

CHAIR = Item("chair", "red", (0.5, 0.5))


def test_captions_are_in_english_or_in_all_languages():
    plain, foreign = find_world("items"), find_world("items", {"foreign": True})
    assert plain.captions(CHAIR) == ("a red chair", "red chair")
    captions = foreign.captions(CHAIR)
    assert len(set(captions)) == len(LANGUAGES) + 1
    assert captions.count("a red chair") == captions.count("red chair") == 3
    assert captions.count("silla roja") == 1


def test_what_is_held_out_is_drawn_only_when_asked_for():
    rng = np.random.default_rng(0)
    for held_out in (False, True):
        world = find_world("items", {"held_out": held_out})
        assert {world.draw(rng).is_held_out for _ in range(50)} == {held_out}


@pytest.mark.parametrize("views", [1, 4])
def test_views_are_squares_of_the_size_that_is_asked_for(views):
    pytest.importorskip("embreex")
    world = find_world("items")
    pictures = world.make(CHAIR, (32, 32, views))
    assert pictures.shape == (views, 32, 32, 3)
    assert (pictures[:, 0, 0] == 255).all()
    with pytest.raises(LuminaError, match="squares"):
        world.make(CHAIR, (32, 48, views))


def test_a_brief_can_be_told_in_json():
    assert dataclasses.asdict(CHAIR) == {"kind": "chair", "color": "red", "units": (0.5, 0.5)}
