import numpy as np
import pytest

from lumina.evaluation.claims.claim import Lab
from lumina.evaluation.claims.larger import LARGER, SHOWN, USUAL, WAYS, _tell_findings


@pytest.fixture
def lab(tmp_path):
    """One that has the pictures of a run already."""
    for way in WAYS:
        side = 128 if way == USUAL else 256
        np.save(tmp_path / f"{way}.npy", np.full((SHOWN, side, side, 3), 255, np.uint8))
    return Lab(folder=tmp_path, images=tmp_path / "images", name="larger", tell=lambda _: None)


def test_repeated_things_without_scaling_and_single_ones_with_it_are_what_is_claimed(lab):
    seen = {way: [[3, 0], [4, 0]] for way in WAYS}
    seen |= {USUAL: [[1, 1], [1, 1]], "linear": [[1, 1], [2, 1]]}
    findings = _tell_findings(lab, seen)
    assert findings.values == {
        "none_more": 2.5,
        "trained_gain": 0.5,
        "trained_loss": 0.0,
        "found_none": 0.0,
    }
    assert LARGER.verdict(findings.values) == "holds"
    assert "most frequent with linear (50 %" in findings.words[1]
    assert findings.tables[0].rows[0][0] == USUAL
    assert (lab.images / findings.pictures[0].file).exists()


def test_a_thing_that_is_lost_is_not(lab):
    seen = {way: [[1, 0], [1, 0]] for way in WAYS} | {USUAL: [[1, 1], [1, 1]]}
    assert LARGER.verdict(_tell_findings(lab, seen).values) == "does not hold"
