import numpy as np
import pytest
import torch

from lumina.errors import LuminaError
from lumina.modalities.sound.mel import MELS
from lumina.modalities.speech import (
    AROUND,
    HINTS,
    MODALITY,
    SCALING,
    SpeechCodec,
    lay_out,
    spoken_frames,
    tell,
)
from lumina.spelling import EDGES, LETTERS, letter_shares

TEXT = "the red cat sits"
FRAMES = 100


def letters_of(hints, offset):
    """The letter that each frame reads at a place relative to its own; "" where there is none."""
    first = (AROUND + offset) * len(LETTERS)
    part = hints[first : first + len(LETTERS)]
    assert (part.sum(0) <= 1).all()
    found = zip(part.argmax(0).tolist(), part.sum(0).tolist(), strict=True)
    return [LETTERS[number] if told else "" for number, told in found]


def runs_of(letters):
    return [one for at, one in enumerate(letters) if at == 0 or one != letters[at - 1]]


def test_frames_read_the_letters_in_order_between_start_and_end():
    own = letters_of(lay_out(TEXT, FRAMES, start=4, end=90), 0)
    assert "".join(runs_of(own)) == TEXT
    assert own[:4] == [""] * 4
    assert own[90:] == [""] * 10
    assert "" not in own[4:90]


def test_letters_take_their_share_of_the_time():
    own = letters_of(lay_out(TEXT, 1000, start=0, end=1000), 0)
    shares = np.array(letter_shares(TEXT))
    bounds = np.round(np.cumsum(shares) / shares.sum() * 1000)
    changes = [at for at in range(1, 1000) if own[at] != own[at - 1]]
    assert np.abs(np.array(changes) - bounds[:-1]).max() <= 1


@pytest.mark.parametrize("offset", range(-AROUND, AROUND + 1))
def test_frames_read_the_letters_around_their_own(offset):
    hints = lay_out("abcdefgh", FRAMES, start=0, end=FRAMES)
    for own, other in zip(letters_of(hints, 0), letters_of(hints, offset), strict=True):
        place = LETTERS.index(own) + offset
        assert other == (LETTERS[place] if "a" <= LETTERS[place] <= "h" else "")


def test_the_first_letters_are_seen_coming():
    hints = lay_out(TEXT, FRAMES, start=4, end=90)
    assert letters_of(hints, 1)[:4] == ["t"] * 4
    assert letters_of(hints, -1)[90:] == ["s"] * 10


def test_every_letter_is_begun_and_finished():
    progress = lay_out("ab", 40, start=0, end=40)[-1]
    assert (progress > 0).all()
    assert (progress < 1).all()
    assert ((progress[1:] < progress[:-1]).sum()) == 1


def test_a_text_that_is_not_told_leaves_no_trace():
    assert not tell("", FRAMES).any()
    assert tell(TEXT, FRAMES).shape == (HINTS, FRAMES)
    x = torch.randn(1, MELS, FRAMES)
    seen = MODALITY.enter(x, torch.zeros(1), None)
    assert torch.equal(seen, torch.cat([x, torch.zeros(1, HINTS, FRAMES)], 1))


def test_letters_end_where_silence_begins():
    seconds = np.zeros(60 * 256, np.float32)
    seconds[: 40 * 256] = 0.1 * np.sin(np.arange(40 * 256) * 0.3)
    mel = SCALING.scale(SpeechCodec().encode([seconds]).mean[0])
    assert spoken_frames(mel) == pytest.approx(40, abs=2)
    hints = MODALITY.draw_hints(mel, torch.Generator(), TEXT)
    said = [at for at, letter in enumerate(letters_of(hints, 0)) if letter]
    assert said[0] == EDGES[0]
    assert said[-1] == pytest.approx(40 - EDGES[1], abs=3)


def test_long_texts_in_few_frames_are_laid_out_all_the_same():
    assert tell(TEXT, 5).shape == (HINTS, 5)


def test_decoding_needs_a_vocoder():
    with pytest.raises(LuminaError, match="without a vocoder"):
        SpeechCodec().decode(torch.zeros(1, MELS, 4))
