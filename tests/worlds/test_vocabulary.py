import sys

import numpy as np
import pytest

from lumina import LuminaError
from lumina.catalog import WEIGHTS
from lumina.worlds.references import VOCABULARY, load_references
from lumina.worlds.vocabulary import (
    COMMON,
    FLAG_LETTERS,
    LANGUAGES,
    NEAR_DUPLICATE,
    SKIN_TONES,
    choose_things,
    names,
    on_white,
    shipped_names,
    shipped_things,
)

MODEL = WEIGHTS / "lumina-mini"
has_weights = pytest.mark.skipif(
    not (MODEL / VOCABULARY).exists(), reason="the weights of lumina-mini are not in this checkout"
)


@has_weights
@pytest.mark.parametrize("language", LANGUAGES)
def test_names_that_ship_are_those_of_the_package(language):
    things = shipped_things() if language == "en" else COMMON
    assert shipped_names(language) == {thing: names(language)[thing] for thing in things}


@has_weights
def test_a_thousand_things_ship_each_once():
    things = shipped_things()
    assert len(things) >= 1000
    assert len(set(things)) == len(things)


@has_weights
def test_no_flag_and_no_skin_tone_ships():
    letters = {ord(letter) for thing in shipped_things() for letter in thing}
    assert not letters & {*FLAG_LETTERS, *SKIN_TONES}


@has_weights
@pytest.mark.parametrize("language", LANGUAGES)
def test_every_thing_has_a_name_of_its_own(language):
    called = [names(language)[thing] for thing in shipped_things()]
    assert all(called)
    assert len(set(called)) == len(called)


@has_weights
def test_no_two_shipped_drawings_are_nearly_the_same():
    _, drawings = load_references(MODEL)
    flat = on_white(drawings).reshape(len(drawings), -1)
    squares = np.square(flat).sum(1)
    distances = squares[:, None] + squares - 2 * flat @ flat.T
    np.fill_diagonal(distances, np.inf)
    # Chosen at full width, where padded drawings are closer than the stretched ones compared.
    assert np.sqrt(distances.min() / flat.shape[1]) > NEAR_DUPLICATE / 4


@pytest.mark.slow
@has_weights
@pytest.mark.usefixtures("font")
def test_choosing_again_chooses_what_ships():
    things, others = choose_things()
    assert things == shipped_things()
    assert not set(things) & set(others)


def test_names_are_plain_words():
    assert names("en")["🍕"] == "pizza"
    assert names("fr")["🌞"] == "soleil avec visage"


def test_a_missing_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "emoji", None)
    names.cache_clear()
    with pytest.raises(LuminaError, match=r"lumina-t2x\[train\]"):
        names("en")


def test_what_is_transparent_is_white():
    drawing = np.zeros((2, 2, 4), np.uint8)
    drawing[0, 0] = (255, 0, 0, 255)
    assert on_white(drawing)[0, 0].tolist() == [1, 0, 0]
    assert (on_white(drawing)[1] == 1).all()
