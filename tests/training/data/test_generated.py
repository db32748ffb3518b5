from collections import Counter

import numpy as np
import pytest

from lumina.encoders.cleaning import clean_caption
from lumina.training.data.generated import find_scenes, find_shapes
from lumina.training.data.sources import DrawingsSource, ShapesSource
from lumina.types import Size
from lumina.worlds.captions import write
from lumina.worlds.shapes import CLASSES

THINGS = ["🍕", "🐱", "🐶", "🚗"]


@pytest.fixture(scope="module")
def scenes():
    return find_scenes(DrawingsSource(scenes=30, sizes=("64x64", "96x64")), THINGS)


def test_scenes_are_the_same_every_time_and_at_every_size(scenes):
    again = find_scenes(DrawingsSource(scenes=10, sizes=("96x64",)), THINGS)
    assert again.examples == scenes.examples[30:40]
    assert scenes.examples[3].medium.scene == scenes.examples[33].medium.scene
    assert scenes.report.used == 60
    assert find_scenes(DrawingsSource(scenes=1, seed=1), THINGS).examples[0].medium.scene != (
        scenes.examples[0].medium.scene
    )


def test_scenes_are_painted_at_their_size(font, scenes):
    assert scenes.examples[40].medium.open().size == Size(96, 64)


def test_every_difference_in_a_picture_changes_its_digest(font, scenes):
    digests = {example.medium.digest() for example in scenes.examples}
    assert len(digests) == len({(one.medium.scene, one.medium.size) for one in scenes.examples})


def test_drawn_captions_are_among_all_of_them_in_many_languages(scenes):
    rng = np.random.default_rng(0)
    seen = 0
    for example in scenes.examples[:10]:
        every = example.captions.every()
        drawn = {example.captions.draw(rng) for _ in range(60)}
        assert drawn <= set(every)
        seen = max(seen, len(drawn))
    assert seen >= 10


def test_without_foreign_captions_all_are_english():
    found = find_scenes(DrawingsSource(scenes=5, foreign=0.0), THINGS)
    for example in found.examples:
        brief = example.captions.brief
        forms = [clean_caption(write(brief, "en", with_article=a)) for a in (True, False)]
        assert set(example.captions.every()) == set(forms)


def test_shapes_come_in_all_classes_as_often():
    examples, report = find_shapes(ShapesSource(pictures=3 * CLASSES, side=32))
    assert set(Counter(one.label for one in examples).values()) == {3}
    assert report.used == 3 * CLASSES
    assert examples[0].captions.every() == ("a red disc",)
    assert len({one.medium.digest() for one in examples}) == len(examples)
    picture = np.asarray(examples[0].medium.open())
    assert picture.shape == (32, 32, 3)
    assert (picture.reshape(-1, 3) == (214, 48, 49)).all(1).any()
