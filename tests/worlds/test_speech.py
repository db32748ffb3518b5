import shutil

import numpy as np
import pytest

from lumina.errors import LuminaError
from lumina.spelling import LETTERS, VOICES, count_frames, read_letters
from lumina.worlds.sentences import draw_sentence, is_held_out, list_words
from lumina.worlds.speaking import LOUDNESS, SPEAKERS, speak
from lumina.worlds.speech_judge import (
    Listener,
    count_mistakes,
    judge_sentences,
)
from lumina.worlds.speech_world import HOP, SpeechWorld, Spoken

needs_speakers = pytest.mark.skipif(
    not all(shutil.which(speaker.program) for speaker in SPEAKERS.values()),
    reason="espeak-ng and flite are not installed",
)


@pytest.fixture(scope="module")
def listener():
    pytest.importorskip("pocketsphinx")
    return Listener()


@pytest.mark.parametrize(
    ("said", "heard", "mistakes"),
    [
        ("the red cat", "the red cat", 0),
        ("the red cat", "the blue cat", 1),
        ("the red cat", "red cat", 1),
        ("the red cat", "the red red cat", 1),
        ("the red cat", "", 3),
        ("", "cat", 1),
        ("one two three four", "two three four five", 2),
    ],
)
def test_mistakes_are_the_fewest_changes_of_words(said, heard, mistakes):
    assert count_mistakes(said.split(), heard.split()) == mistakes
    assert count_mistakes(heard.split(), said.split()) == mistakes


def test_mistakes_are_a_distance():
    rng = np.random.default_rng(0)
    one, two, three = (list(rng.choice(list("abc"), 8)) for _ in range(3))
    assert count_mistakes(one, three) <= count_mistakes(one, two) + count_mistakes(two, three)


def test_sentences_have_the_words_and_letters_that_are_listed():
    rng = np.random.default_rng(0)
    words = set(list_words())
    for _ in range(200):
        sentence = draw_sentence(rng)
        assert set(sentence.split()) <= words
        assert read_letters(sentence) == sentence
    assert set("".join(words)) == set(LETTERS) - set(" '")


def test_training_never_draws_what_is_judged():
    rng = np.random.default_rng(1)
    judged = judge_sentences(30)
    assert len(set(judged)) == 30
    assert all(map(is_held_out, judged))
    assert not any(is_held_out(SpeechWorld().draw(rng).sentence) for _ in range(100))


def test_sentences_are_as_long_as_asked_for():
    world, rng = SpeechWorld(shortest=90, longest=110), np.random.default_rng(2)
    briefs = [world.draw(rng) for _ in range(20)]
    assert all(90 <= brief.frames <= 110 for brief in briefs)
    assert {VOICES[brief.label] for brief in briefs} == set(VOICES)


@pytest.mark.parametrize("lengths", [(100, 100), (0, 40), (200, 150), (258, 400)])
def test_lengths_that_no_sentence_has_are_refused(lengths):
    shortest, longest = lengths
    with pytest.raises(LuminaError, match="few sentences"):
        SpeechWorld(shortest=shortest, longest=longest).check()


@needs_speakers
@pytest.mark.parametrize("voice", VOICES)
def test_voices_say_sentences_in_about_their_time(voice):
    sentence = "seven red cats sleep near the river"
    usual, fast = speak(sentence, voice), speak(sentence, voice, speed=1.2)
    assert np.sqrt(np.mean(usual**2)) == pytest.approx(LOUDNESS, rel=0.05)
    assert len(usual) / HOP == pytest.approx(count_frames(sentence, voice), rel=0.25)
    assert len(usual) / len(fast) == pytest.approx(1.2, abs=0.12)
    assert np.array_equal(speak(sentence, voice), usual)


@needs_speakers
def test_the_world_pads_to_its_size_and_refuses_what_is_longer():
    brief = Spoken("two cups", "man", 1.0)
    sound = SpeechWorld().make(brief, (120,))
    assert sound.shape == (120 * HOP,)
    assert not sound[-20 * HOP :].any()
    with pytest.raises(LuminaError, match="takes"):
        SpeechWorld().make(brief, (20,))


@needs_speakers
@pytest.mark.parametrize("voice", VOICES)
def test_the_judge_hears_what_voices_say(listener, voice):
    sentences = ["the red cat sits near the table", "my father buys seven apples"]
    heard = [listener.hear(speak(one, voice)) for one in sentences]
    said = [one.split() for one in sentences]
    assert sum(map(count_mistakes, said, heard)) <= 1
    assert sum(map(count_mistakes, said, heard[::-1])) > 5


def test_the_judge_hears_nothing_in_silence(listener):
    assert listener.hear(np.zeros(16_000, np.float32)) == []


def test_the_judge_knows_every_word(listener):
    unknown = [word for word in list_words() if listener._decoder.lookup_word(word) is None]
    assert unknown == []
