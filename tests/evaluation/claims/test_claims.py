import json
import shutil

import pytest
from PIL import Image

from lumina import LuminaError
from lumina.catalog import find
from lumina.evaluation.claims import CLAIMS, reproduce
from lumina.evaluation.claims.claim import Claim, Findings, Table, Threshold
from lumina.evaluation.claims.page import write_page
from lumina.evaluation.claims.plots import plot_lines, ticks_of
from lumina.evaluation.claims.shapes import RECIPES
from lumina.training.starters import list_recipes


def count_up(lab):
    """A run that measures something once, and draws it."""
    value = lab.piece("value", lambda: 3)
    picture = lab.picture("dot", Image.new("RGB", (4, 4)), "A dot.")
    table = Table("Numbers", ["what", "value"], [["three", str(value)]])
    return Findings({"value": value}, ["It is three."], [table], [picture], {"seeds": "none"})


def make_claim(run=count_up, model="", **bounds):
    return Claim(
        name="three",
        title="Three, at least",
        statement="It is three.",
        source="a paper",
        metric="The number itself.",
        thresholds=(Threshold("value", "the number", **bounds or {"least": 3}),),
        run=run,
        minutes=0,
        model=model,
    )


@pytest.fixture
def reproduced(tmp_path):
    def run(claim):
        verdicts = reproduce(None, tmp_path, lambda _: None, claims={claim.name: claim})
        return verdicts["three"], (tmp_path / "docs" / "claims.md").read_text()

    return run


def test_the_page_tells_verdict_tables_and_pictures(reproduced, tmp_path):
    verdict, page = reproduced(make_claim())
    assert verdict == "holds"
    assert "## Three, at least" in page
    assert "**Verdict: holds.** It is three." in page
    assert "| three | 3 |" in page
    assert "(images/claims/three-dot.png)" in page
    assert (tmp_path / "docs/images/claims/three-dot.png").exists()


def test_figures_are_stored_with_how_they_came_about(reproduced, tmp_path):
    reproduced(make_claim())
    result = json.loads((tmp_path / "benchmarks/results/claims/three.json").read_text())
    assert result["findings"]["values"] == {"value": 3}
    assert result["command"] == "lumina reproduce --claim three"
    assert result["findings"]["settings"] == {"seeds": "none"}
    assert result["findings"]["seconds"] >= 0
    assert "torch" in result["versions"]


@pytest.mark.parametrize(
    ("bounds", "verdict"),
    [
        ({"least": 4}, "does not hold"),
        ({"most": 2}, "does not hold"),
        ({"least": 3, "most": 3}, "holds"),
    ],
)
def test_thresholds_decide_whichever_way_it_falls(reproduced, bounds, verdict):
    found, page = reproduced(make_claim(**bounds))
    assert found == verdict
    assert f"Verdict: {verdict}" in page


def test_a_stopped_run_goes_on_where_it_was(reproduced):
    computed = []

    def run(lab, stops):
        lab.piece("first", lambda: computed.append("first") or 1)
        if stops:
            raise KeyboardInterrupt
        return count_up(lab)

    with pytest.raises(KeyboardInterrupt):
        reproduced(make_claim(lambda lab: run(lab, stops=True)))
    reproduced(make_claim(lambda lab: run(lab, stops=False)))
    assert computed == ["first"]


def test_pieces_of_other_weights_are_not_taken_up(reproduced, tmp_path, tiny_folder):
    model = tmp_path / "model"
    shutil.copytree(tiny_folder, model)
    claim = make_claim(model=str(model))
    assert find(model).fingerprint() in reproduced(claim)[1]
    file = next((model / "transformer").glob("*.safetensors"))
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(LuminaError, match="measured on other weights"):
        reproduced(claim)


def test_the_page_tells_if_other_weights_ship_now(reproduced, tmp_path, tiny_folder):
    claim = make_claim(model=str(tiny_folder))
    _, page = reproduced(claim)
    assert "before those that ship now" not in page
    file = tmp_path / "benchmarks/results/claims/three.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"weights": "0123456789ab"}))
    write_page(tmp_path / "docs" / "claims.md", {claim.name: claim}, file.parent)
    page = (tmp_path / "docs" / "claims.md").read_text()
    assert "0123456789ab, before those that ship now" in page


def test_aims_do_not_decide_but_are_told():
    floor, aim = Threshold("x", "x", least=1), Threshold("x", "x", least=2, is_aim=True)
    claim = Claim("c", "C", "", "", "", (floor, aim), count_up, 0)
    assert claim.verdict({"x": 0}) == "does not hold"
    assert claim.verdict({"x": 1}) == "holds"
    assert claim.verdict({"x": 2}) == "holds, and reaches what was aimed for"


def test_unknown_claims_are_refused_with_the_nearest(tmp_path):
    with pytest.raises(LuminaError, match="did you mean 'schedules'"):
        reproduce(["schedule"], tmp_path, lambda _: None)


def test_every_claim_has_thresholds_that_differ_from_aims():
    for name, claim in CLAIMS.items():
        assert claim.name == name
        assert any(not threshold.is_aim for threshold in claim.thresholds)
        assert all(threshold.bound for threshold in claim.thresholds)


@pytest.mark.parametrize(
    ("low", "high", "is_log", "ticks"),
    [
        (0, 1, False, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0.01, 1, True, [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1]),
    ],
)
def test_axes_are_marked_at_round_numbers(low, high, is_log, ticks):
    assert ticks_of(low, high, is_log) == pytest.approx(ticks)


def test_a_plot_has_a_line_for_each_name():
    image = plot_lines(
        {"a": [(1, 1), (2, 4)], "b": [(1, 2), (2, 1)]},
        title="T",
        x_label="x",
        y_label="y",
        y_log=True,
        y_line=1.5,
    )
    colors = {color for _, color in image.getcolors(1 << 20)}
    assert (31, 111, 180) in colors
    assert (209, 73, 91) in colors


def test_claims_that_train_name_recipes_that_ship():
    assert set(RECIPES) <= set(list_recipes())
