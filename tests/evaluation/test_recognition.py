import json

import pytest

from lumina.cli import main
from lumina.errors import LuminaError
from lumina.evaluation.recognition import QUICK, SIZES, draw_views, evaluate, table
from lumina.evaluation.results import GRID, RESULT
from lumina.pipelines.recognition import load_recognizer


@pytest.fixture(scope="module")
def pipeline(recognizer_folder):
    return load_recognizer(recognizer_folder, dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def result(pipeline, gallery, tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluation")
    result = evaluate(pipeline, gallery=gallery, output=folder)
    assert (folder / GRID).is_file()
    assert json.loads((folder / RESULT).read_text()) == json.loads(json.dumps(result))
    return result


def test_views_are_always_the_same_and_show_each_class_alike(gallery):
    views = draw_views(gallery, 3)
    assert views == draw_views(gallery, 3)
    assert sorted(view.label for view in views) == sorted(list(range(6)) * 3)


def test_what_is_not_right_is_confused(result, gallery):
    lines = {(line["section"], line["what"]): line for line in result["lines"]}
    for section in SIZES:
        everything = lines[section, "all"]
        assert everything["count"] == QUICK * len(gallery.names)
        wrong = round(everything["count"] * (1 - everything["value"]))
        assert sum(result["confused"][section].values()) == wrong
        assert everything["low"] <= everything["value"] <= everything["high"]
        parts = [lines[section, what] for what in ("drawings", "unseen digits")]
        right = sum(part["value"] * part["count"] for part in parts)
        assert right == pytest.approx(everything["value"] * everything["count"])


def test_the_table_has_a_row_for_each_line(result):
    rows = table(result).splitlines()
    assert len(rows) == len(result["lines"]) + 2
    assert "rotary positions, trained size 16x16" in rows[-1]


def test_other_classes_are_refused(pipeline, gallery):
    fewer = gallery._replace(names=tuple(reversed(gallery.names)))
    with pytest.raises(LuminaError, match="other classes"):
        evaluate(pipeline, gallery=fewer)


def test_an_evaluation_is_not_overwritten(pipeline, gallery, tmp_path):
    (tmp_path / RESULT).touch()
    with pytest.raises(LuminaError, match="exists"):
        evaluate(pipeline, gallery=gallery, output=tmp_path)


def test_flags_of_drawing_are_refused(recognizer_folder, capsys, tmp_path):
    words = ["evaluate", str(recognizer_folder), "-o", str(tmp_path / "out"), "--steps", "5"]
    assert main(words) == 1
    assert "--steps has no meaning" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
