import importlib.util
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from lumina.catalog import Checkpoint, find
from lumina.cli import main
from lumina.errors import LuminaError
from lumina.evaluation import spoken, views
from lumina.evaluation.exams import Outcome, Wish, open_exam
from lumina.evaluation.results import GRID, RESULT
from lumina.media import read_record
from lumina.spelling import VOICES
from lumina.worlds import item_judge
from lumina.worlds.speaking import SPEAKERS


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


@pytest.mark.usefixtures("few_clouds")
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
    assert {("twice as long", "no jump"), ("first frame", "no jump")} <= parts
    assert {("continuation", "no jump"), ("transition", "thing at last")} <= parts
    assert {("held out", "thing"), ("languages", "thing, fr")} <= parts
    assert parts_of(result["beside"]["true examples"]) >= {("English", "thing")}
    assert parts_of(result["beside"]["round trips"]) >= {("English", "thing")}
    assert read_record(output / "000-English.mp4")["sample"] == result["samples"][0]


@pytest.mark.usefixtures("soundfont")
@pytest.mark.parametrize(
    ("world", "sections"),
    [
        ("sounds", {"English", "held out", "guidance", "ten seconds", "kinds", "languages"}),
        ("music", {"English", "held out", "ten seconds", "languages"}),
    ],
)
def test_a_model_of_sound_is_measured_by_its_world(measured, sound_folders, world, sections):
    pytest.importorskip("soundfile")
    result, output = measured(sound_folders[world], "--names", "1")
    assert {line["section"] for line in result["lines"]} == sections
    assert result["beside"].keys() == {"true examples", "round trips"}
    assert read_record(output / "000-English.wav")["sample"] == result["samples"][0]


@pytest.fixture
def _few_items(monkeypatch):
    pytest.importorskip("embreex")
    monkeypatch.setattr(item_judge, "MEMBERS", {2: 2, 3: 1})
    views._showroom.cache_clear()
    yield
    views._showroom.cache_clear()


@pytest.mark.usefixtures("_few_items")
def test_a_model_of_views_is_measured(measured, views_folder):
    result, output = measured(views_folder, "--languages", "fr", "--names", "1")
    parts = parts_of(result["lines"])
    assert {("held out", "kind, by view"), ("languages", "kind and color, fr")} <= parts
    assert {section for section, _ in parts} >= {"first view given", "2 views", "8 views"}
    true = {(x["section"], x["what"]): x["value"] for x in result["beside"]["true examples"]}
    assert true["English", "color, by view"] == 1
    assert parts_of(result["beside"]["round trips"]) == parts_of(result["lines"])
    assert read_record(output / "000-English.png")["sample"] == result["samples"][0]


@pytest.mark.usefixtures("_few_items")
def test_of_given_views_nothing_is_judged(views_folder):
    exam = open_exam(find(views_folder))
    wishes = exam.plan(full=False, names=1, languages=[])
    (known,) = [wish for wish in wishes if wish.section == views.KNOWN]
    true = exam.example(known)
    assert np.array_equal(np.asarray(known.arguments["image"]), true[0])
    spoilt = np.concatenate([np.full_like(true[:1], 255), true[1:]])
    assert exam.judge(known, spoilt) == exam.judge(known, true)
    assert len(exam.judge(known, true).kinds) == len(true) - 1


@pytest.mark.skipif(
    not all(shutil.which(speaker.program) for speaker in SPEAKERS.values()),
    reason="espeak-ng and flite are not installed",
)
def test_a_model_of_speech_is_measured_beside_its_voices(measured, speech_folder):
    pytest.importorskip("pocketsphinx")
    result, output = measured(speech_folder, "--names", "2")
    assert {line["section"] for line in result["lines"]} == {*VOICES, "all voices"}
    true = {(x["section"], x["what"]): x["value"] for x in result["beside"]["true examples"]}
    assert true["all voices", "word error rate"] < 0.1
    noise = {(x["section"], x["what"]): x["value"] for x in result["lines"]}
    assert noise["all voices", "word error rate"] > 0.5
    assert result["beside"].keys() == {"true examples", "round trips"}
    assert len(result["samples"]) == 2 * len(VOICES)
    assert read_record(next(output.glob("000-*.wav")))["sample"] == result["samples"][0]


def test_the_error_rate_of_words_is_that_of_all_sentences_together():
    said = ["one two", "one two three four", "one two"]
    heard = [["one", "two"], ["one", "four"], ["two"]]
    outcomes = [
        Outcome(Wish("a", text, text, 0, {}), words)
        for text, words in zip(said, heard, strict=True)
    ]
    exam = spoken.SpeechExam({})
    lines = {line.what: line for line in exam.measure(outcomes)}
    assert lines["word error rate"].value == pytest.approx(3 / 8)
    assert lines["word error rate"].low < 3 / 8 < lines["word error rate"].high
    assert lines["whole sentence"].value == pytest.approx(1 / 3)


@pytest.mark.usefixtures("few_clouds")
def test_leftovers_of_a_run_that_was_stopped_lose_no_result(tmp_path, points_folder):
    output = tmp_path / "out"
    output.mkdir()
    (output / "000-256-points.ply").write_text("half a cloud")
    words = ["--steps", "1", "--names", "1", "--languages", "en", "-o", str(output)]
    assert main(["evaluate", str(points_folder), *words]) == 0
    result = json.loads((output / RESULT).read_text())
    assert read_record(output / "000-256-points.ply")["sample"] == result["samples"][0]


def test_languages_without_captions_are_refused(sound_folders, capsys):
    pytest.importorskip("soundfile")
    assert main(["evaluate", str(sound_folders["sounds"]), "--languages", "nl"]) == 1
    assert "unknown language 'nl'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "package"),
    [("points", "scipy"), ("video", "av"), ("views", "embreex")],
)
def test_a_missing_package_is_told_before_anything_is_done(
    request, tmp_path, monkeypatch, capsys, kind, package
):
    folder = request.getfixturevalue(f"{kind}_folder")
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name, *rest: None if name == package else find(name)
    )
    output = tmp_path / "out"
    assert main(["evaluate", str(folder), "-o", str(output)]) == 1
    told = capsys.readouterr().err
    assert f"package {package!r}, which is not installed" in told
    assert "begun in" not in told
    assert not output.exists()


@pytest.mark.skipif(
    not all(shutil.which(speaker.program) for speaker in SPEAKERS.values()),
    reason="espeak-ng and flite are not installed",
)
def test_an_exam_of_speech_needs_who_listens(speech_folder, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(LuminaError, match=r"'pocketsphinx'.*\n.*lumina-t2x\[speech\]"):
        open_exam(find(speech_folder))


def test_a_file_is_refused_as_a_folder_before_anything_is_done(tmp_path, points_folder, capsys):
    pytest.importorskip("trimesh")
    output = tmp_path / "v1.mp4"
    output.touch()
    assert main(["evaluate", str(points_folder), "-o", str(output)]) == 1
    told = capsys.readouterr().err
    assert "v1.mp4 is a file" in told
    assert "begun in" not in told


def test_what_has_no_rules_is_refused(tmp_path):
    with pytest.raises(LuminaError, match="makes smells, for which there are no rules"):
        open_exam(Checkpoint(folder=tmp_path, defaults={}, modality="smells"))
