import numpy as np
import pytest

from lumina.spelling import LETTERS
from lumina.worlds.sentence_lengths import fit_shares
from lumina.worlds.sentences import draw_sentence


def test_known_letters_and_tempos_are_found_again():
    rng = np.random.default_rng(0)
    sentences = [draw_sentence(rng) for _ in range(400)]
    known = dict(zip(LETTERS, rng.uniform(0.5, 1.5, len(LETTERS)), strict=True))
    sums = np.array([sum(known[letter] for letter in one) for one in sentences])
    frames = {"slow": list(12 + 6 * sums), "fast": list(8 + 4 * sums)}
    shares, tempos = fit_shares(sentences, frames)
    found = np.array([sum(shares[letter] for letter in one) for one in sentences])
    for voice, lengths in frames.items():
        predicted = tempos[voice].edges + tempos[voice].letter * found
        assert predicted == pytest.approx(np.array(lengths), rel=0.03)
    assert tempos["slow"].letter / tempos["fast"].letter == pytest.approx(1.5, rel=0.02)
    assert shares["e"] / shares["a"] == pytest.approx(known["e"] / known["a"], rel=0.15)
