import numpy as np
import pytest

from lumina.worlds import World, find_world
from lumina.worlds.music import FORMS, INSTRUMENTS, MODES, PITCHES, Tune
from lumina.worlds.music_captions import tell_tune
from lumina.worlds.music_world import HOP
from lumina.worlds.vocabulary import LANGUAGES

TUNE = Tune("rising scale", "piano", key=1, mode="minor", tempo=120)


def test_pieces_follow_from_their_briefs(soundfont):
    world = find_world("music")
    assert isinstance(world, World)
    world.check()
    piece = world.draw(np.random.default_rng(0))
    waveform = world.make(piece, (64,))
    assert waveform.shape == (64 * HOP,)
    assert 0.4 < np.abs(waveform).max() < 1


def test_held_out_pieces_are_drawn_when_asked_for():
    rng = np.random.default_rng(0)
    for held_out in (False, True):
        world = find_world("music", {"held_out": held_out})
        assert {world.draw(rng).tune.is_held_out for _ in range(10)} == {held_out}


def test_captions_are_in_fourteen_languages_where_they_are_wanted():
    piece = find_world("music").draw(np.random.default_rng(0))
    english = find_world("music").captions(piece)
    everything = find_world("music", {"foreign": True}).captions(piece)
    assert set(english) < set(everything)
    assert len(set(everything)) == len(english) + len(LANGUAGES) - 1
    assert 0.3 < np.mean([caption in english for caption in everything]) < 0.6


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_caption_tells_all_that_makes_a_piece(language):
    every = [
        Tune(form, instrument, key, mode, tempo)
        for form in FORMS
        for instrument in INSTRUMENTS
        for key in range(len(PITCHES))
        for mode in MODES
        for tempo in (80, 180)
    ]
    assert len({tell_tune(tune, language) for tune in every}) == len(every)


def test_captions_are_what_languages_say():
    assert (
        tell_tune(TUNE, "de") == "aufsteigende Tonleiter, Klavier, Cis Moll, 120 Schläge pro Minute"
    )
    assert tell_tune(TUNE, "zh") == "上行音阶, 钢琴, 升C小调, 每分钟120拍"
