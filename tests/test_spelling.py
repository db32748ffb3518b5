import pytest

from lumina.errors import LuminaError
from lumina.spelling import (
    EDGES,
    LETTERS,
    LONGEST,
    VOICES,
    count_frames,
    letter_shares,
    read_letters,
)


@pytest.mark.parametrize(
    ("text", "letters"),
    [
        ("The Red Cat sits.", "the red cat sits"),
        ("  one,two -- three!\n", "one two three"),
        ("it’s here", "it's here"),
        ("He said ‘hello’.", "he said hello'"),
        ('She said: "wait" — (twice)…', "she said wait twice"),
    ],
)
def test_texts_are_read_as_letters(text, letters):
    assert read_letters(text) == letters
    assert read_letters(letters) == letters


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("7 cats", "figures"),
        ("ein Käfer", "ä cannot be said: 'ein Käfer'"),
        ("cat @ home", "@ cannot be said"),
        ("...", "nothing to say"),
        ("'", "nothing to say"),
        ("a" * (LONGEST + 1), "too many to say at once: 'aaa"),
    ],
)
def test_what_cannot_be_said_is_refused(text, reason):
    with pytest.raises(LuminaError, match=reason) as caught:
        read_letters(text)
    assert caught.value.hint


def test_every_letter_takes_time():
    assert all(share > 0 for share in letter_shares(LETTERS))
    assert len(letter_shares("the red cat")) == 11


@pytest.mark.parametrize("voice", VOICES)
def test_longer_texts_take_longer_and_faster_ones_less(voice):
    short, long = count_frames("the red cat", voice), count_frames("the red cat sits", voice)
    assert sum(EDGES) < short < long
    slow, fast = (count_frames("the red cat sits", voice, speed=speed) for speed in (0.8, 1.2))
    assert (slow - sum(EDGES)) / (fast - sum(EDGES)) == pytest.approx(1.5, rel=0.05)
