import json

import pytest
from PIL import Image

from lumina.catalog import Checkpoint
from lumina.cli import main
from lumina.errors import LuminaError
from lumina.evaluation import clouds
from lumina.evaluation.exams import open_exam
from lumina.evaluation.results import GRID, RESULT
from lumina.media import read_record


@pytest.fixture
def _few_clouds(monkeypatch):
    pytest.importorskip("trimesh")
    monkeypatch.setattr(clouds, "SIDE", 2)
    monkeypatch.setattr(clouds, "QUICK", {256: 2})
    clouds._true_clouds.cache_clear()
    yield
    clouds._true_clouds.cache_clear()


@pytest.fixture
def measured(tmp_path, capsys):
    """What the command prints for a model, and the folder that it writes."""

    def measure(folder, *words):
        output = tmp_path / "out"
        begin = ["evaluate", str(folder), "--steps", "1", "-o", str(output), "--json"]
        assert main([*begin, *words]) == 0
        result = json.loads(capsys.readouterr().out)
        assert json.loads((output / RESULT).read_text())["lines"] == result["lines"]
        assert Image.open(output / GRID).width > 128
        assert {"section", "prompt", "language", "seed", "right"} <= result["samples"][0].keys()
        return result, output

    return measure


def parts_of(lines):
    return {(line["section"], line["what"]) for line in lines}


@pytest.mark.usefixtures("_few_clouds")
def test_a_model_of_points_is_measured(measured, points_folder):
    result, output = measured(points_folder, "--languages", "fr")
    parts = parts_of(result["lines"])
    assert {("256 points", "1-NNA (0.5 is best)"), ("languages", "kind, fr")} <= parts
    assert {line["section"] for line in result["beside"]["true examples"]} == {"256 points"}
    assert "round trips" not in result["beside"]
    assert read_record(output / "000-256-points.ply")["sample"] == result["samples"][0]


@pytest.mark.usefixtures("font")
def test_a_model_of_clips_is_measured(measured, video_folder):
    pytest.importorskip("av")
    result, output = measured(video_folder, "--languages", "fr", "--names", "1")
    parts = parts_of(result["lines"])
    assert {("twice as long", "no jump"), ("first frame", "known frame kept")} <= parts
    assert {("held out", "thing"), ("languages", "thing, fr")} <= parts
    assert parts_of(result["beside"]["true examples"]) >= {("English", "thing")}
    assert parts_of(result["beside"]["round trips"]) >= {("English", "thing")}
    assert read_record(output / "000-English.mp4")["sample"] == result["samples"][0]


@pytest.mark.usefixtures("soundfont")
@pytest.mark.parametrize(
    ("world", "sections"),
    [
        ("sounds", {"English", "held out", "guidance", "kinds"}),
        ("music", {"English", "held out", "languages"}),
    ],
)
def test_a_model_of_sound_is_measured_by_its_world(measured, sound_folders, world, sections):
    pytest.importorskip("soundfile")
    result, output = measured(sound_folders[world], "--names", "1")
    assert {line["section"] for line in result["lines"]} == sections
    assert result["beside"].keys() == {"true examples", "round trips"}
    assert read_record(output / "000-English.wav")["sample"] == result["samples"][0]


def test_languages_without_captions_are_refused(sound_folders, capsys):
    pytest.importorskip("soundfile")
    assert main(["evaluate", str(sound_folders["sounds"]), "--languages", "fr"]) == 1
    assert "unknown language 'fr'" in capsys.readouterr().err


def test_what_has_no_rules_is_refused(tmp_path):
    with pytest.raises(LuminaError, match="makes smells, for which there are no rules"):
        open_exam(Checkpoint(folder=tmp_path, defaults={}, modality="smells"))
