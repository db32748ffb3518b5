import json
import shutil
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image

import lumina
from lumina import LuminaError
from lumina.errors import UnknownNameError
from lumina.evaluation.drawings import Outcome, evaluate, measure, table
from lumina.evaluation.results import GRID, RESULT
from lumina.evaluation.trials import BASE, SIZES, Counts, Trial, plan
from lumina.media import read_record
from lumina.pipelines.images import Evaluations
from lumina.types import Size
from lumina.worlds import drawings
from lumina.worlds.captions import Brief, stage
from lumina.worlds.drawings import paint
from lumina.worlds.judge import Verdict
from lumina.worlds.references import write_references
from lumina.worlds.vocabulary import LANGUAGES

CAT, PIZZA, DOG = "🐱", "🍕", "🐶"
PAIR = Brief((CAT, PIZZA), relation="above")


def outcome(
    section, brief, *, ranks=(0,), language="en", size=BASE, background="white", place=None
):
    found = tuple(
        thing if rank == 0 else DOG for thing, rank in zip(brief.things, ranks, strict=True)
    )
    return Outcome(
        Trial(section, brief, language, size, 0), Verdict(brief, ranks, found, background, place)
    )


def outcomes():
    """A few of each section, with what is right chosen by hand."""
    cat, pizza, dog = (Brief((thing,)) for thing in (CAT, PIZZA, DOG))
    return [
        outcome("retrieval", cat, ranks=(0,)),
        outcome("retrieval", pizza, ranks=(4,)),
        outcome("retrieval", dog, ranks=(5,)),
        outcome("retrieval", Brief(("🚗",)), ranks=(0,)),
        outcome("languages", cat, language="es"),
        outcome("languages", pizza, language="es", ranks=(2,)),
        outcome("languages", dog, language="ja"),
        # The color and the place count, whatever the thing; with it, they count apart.
        outcome("color", Brief((CAT,), "red"), ranks=(9,), background="red"),
        outcome("color", Brief((CAT,), "blue"), background="red"),
        outcome("color", Brief((CAT,), "green"), background="green"),
        outcome("place", Brief((CAT,), place="top"), ranks=(9,), place="top"),
        outcome("place", Brief((CAT,), place="left"), place="middle"),
        outcome("pairs", PAIR, ranks=(0, 0)),
        outcome("pairs", PAIR, ranks=(0, 3)),
        outcome("pairs", PAIR, ranks=(7, 0)),
        outcome("pairs", PAIR, ranks=(1, 1)),
        outcome("sizes", cat, size=SIZES[0]),
        outcome("sizes", pizza, size=SIZES[0]),
        outcome("sizes", cat, size=SIZES[3]),
        outcome("sizes", pizza, size=SIZES[3], ranks=(1,)),
    ]


@pytest.mark.parametrize(
    ("ranks", "is_right", "is_near"),
    [((0, 0), True, True), ((0, 4), False, True), ((5, 0), False, False)],
)
def test_two_things_count_as_the_worse_of_them(ranks, is_right, is_near):
    both = outcome("pairs", PAIR, ranks=ranks)
    assert both.is_right == is_right
    assert both.verdict.is_near == is_near


def test_shares_are_of_what_each_section_is_about():
    found = {(line.section, line.what): (line.value, line.count) for line in measure(outcomes())}
    assert found == {
        ("retrieval", "English, top-1"): (2 / 4, 4),
        ("retrieval", "English, top-5"): (3 / 4, 4),
        ("languages", "all others, top-1"): (2 / 3, 3),
        ("languages", "es"): (1 / 2, 2),
        ("languages", "ja"): (1, 1),
        ("color", "background, held out"): (2 / 3, 3),
        ("color", "and the thing as well"): (1 / 3, 3),
        ("place", "place, held out"): (1 / 2, 2),
        ("place", "and the thing as well"): (0, 2),
        ("pairs", "both found and the relation right, held out"): (1 / 4, 4),
        ("pairs", "at least one found"): (3 / 4, 4),
        # Of the names drawn at other sizes only, which were the cat and the pizza.
        ("sizes", "128x128, the same names"): (1 / 2, 2),
        ("sizes", "all others"): (3 / 4, 4),
        ("sizes", "96x96"): (1, 2),
        ("sizes", "192x96"): (1 / 2, 2),
    }


def test_every_share_lies_in_its_interval():
    for line in measure(outcomes()):
        assert line.unit == "share"
        assert 0 <= line.low <= line.value <= line.high + 1e-12
        assert line.high <= 1


def test_without_other_languages_none_are_measured():
    english = [outcome for outcome in outcomes() if outcome.trial.section != "languages"]
    assert "languages" not in {line.section for line in measure(english)}


@pytest.fixture(scope="module")
def folder(tiny_folder, patterns, tmp_path_factory):
    """The tiny checkpoint as a model of the patterns."""
    folder = shutil.copytree(tiny_folder, tmp_path_factory.mktemp("drawings") / "tiny")
    write_references(folder, list(patterns), drawing_of=patterns.get)
    return folder


@pytest.fixture(scope="module")
def pipeline(folder):
    pipeline = lumina.load(folder, device="cpu", dtype="float32")
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture
def _no_font(monkeypatch, tmp_path):
    monkeypatch.setattr(drawings, "FONT_PATHS", (tmp_path / "none.ttf",))


SETTINGS = {"names": 2, "languages": ["es"], "steps": 1}


@pytest.fixture(scope="module")
def result(pipeline, folder):
    return evaluate(pipeline, folder, **SETTINGS)


def test_as_many_pictures_are_made_as_asked(result):
    samples = [sample["section"] for sample in result["samples"]]
    assert samples.count("retrieval") == SETTINGS["names"]
    assert samples.count("languages") == 1
    assert samples.count("sizes") == len(SIZES)
    assert result["settings"]["counts"]["names"] == SETTINGS["names"]


def test_a_full_measurement_of_a_few_names_takes_a_few_names(pipeline, folder):
    settings = {"names": 1, "languages": ["en"], "steps": 1}
    result = evaluate(pipeline, folder, full=True, **settings)
    assert [s["section"] for s in result["samples"]].count("retrieval") == 1


def test_the_batch_size_changes_nothing(pipeline, folder, result):
    again = evaluate(pipeline, folder, **SETTINGS, batch_size=3)
    assert again["samples"] == result["samples"]
    shares = [[x for x in r["lines"] if x["unit"] == "share"] for r in (again, result)]
    assert shares[0] == shares[1]


def test_a_result_is_what_json_can_hold(result):
    assert json.loads(json.dumps(result))["lines"] == result["lines"]


def test_a_result_tells_how_it_was_made(result):
    sample = result["samples"][0]
    assert sample["size"] == "128x128"
    assert sample["prompt"]
    assert result["settings"]["steps"] == 1
    assert result["settings"]["guidance"] == 4.0
    assert result["settings"]["dtype"] == "float32"


@pytest.mark.usefixtures("font")
def test_with_the_font_the_autoencoder_is_measured_too(result):
    lines = {line["section"]: line for line in result["lines"]}
    assert result["skipped"] == {}
    assert lines["ceiling"]["count"] == SETTINGS["names"]
    assert lines["vae"]["unit"] == "dB"
    assert lines["vae"]["low"] <= lines["vae"]["value"] <= lines["vae"]["high"]


class Painter:
    """Draws what its prompts ask for, without a flaw, and returns it as pipelines do."""

    dtype, device = torch.float32, torch.device("cpu")
    evaluations = Evaluations(pairs=12)
    config: ClassVar = {}

    def __init__(self, patterns, vae):
        self.patterns, self.vae, self.painted = patterns, vae, 0
        trials = plan(list(patterns), Counts(), languages=LANGUAGES[1:])
        self.briefs = {trial.prompt: trial.brief for trial in trials}

    def __call__(self, prompt, *, width, height, **_):
        self.painted += len(prompt)
        scenes = [stage(self.briefs[text]) for text in prompt]
        pictures = [
            np.asarray(paint(scene, Size(width, height), drawing_of=self.patterns.get)) / 255
            for scene in scenes
        ]
        return SimpleNamespace(images=np.stack(pictures).astype(np.float32))


@pytest.fixture
def painter(patterns, identity_vae):
    return Painter(patterns, identity_vae)


@pytest.mark.usefixtures("_no_font")
def test_a_painter_without_flaws_has_everything_right(painter, folder):
    result = evaluate(painter, folder, names=10, languages=["es", "ja"])
    assert {line["value"] for line in result["lines"]} == {1.0}
    assert all(sample["right"] for sample in result["samples"])


@pytest.mark.usefixtures("_no_font")
def test_without_the_font_what_is_not_measured_is_told(painter, folder):
    result = evaluate(painter, folder, names=1, languages=["es"])
    assert result["skipped"].keys() == {"ceiling", "autoencoder"}
    assert "Noto Color Emoji" in result["skipped"]["ceiling"]
    assert "ceiling    not measured: the Noto Color Emoji font" in table(result)


@pytest.mark.usefixtures("_no_font")
def test_a_stopped_evaluation_goes_on(painter, folder, tmp_path):
    how = {"names": 3, "languages": ["es"], "output": tmp_path, "model": "a", "batch_size": 2}

    def stop(line):
        if line.startswith("4 of"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(painter, folder, progress=stop, **how)
    painter.painted = 0
    result = evaluate(painter, folder, **how)
    assert {line["value"] for line in result["lines"]} == {1.0}
    assert painter.painted == len(result["samples"]) - 4


@pytest.mark.usefixtures("_no_font")
def test_progress_ends_with_the_last_picture_and_the_cost(painter, folder):
    told = []
    result = evaluate(painter, folder, names=3, languages=["es"], progress=told.append)
    count = len(result["samples"])
    assert told[-2] == f"{count} of {count} pictures (sizes), 0 s left"
    assert told[-1].startswith("evaluations: ")
    done = [int(text.split()[0]) for text in told[:-1]]
    assert done == sorted(set(done))


@pytest.mark.usefixtures("_no_font")
@pytest.mark.parametrize(
    ("languages", "spoken"), [(None, 13), (["es", "ja", "es"], 2), (["en"], 0), ([], 0)]
)
def test_only_the_languages_asked_for_are_spoken(painter, folder, languages, spoken):
    result = evaluate(painter, folder, names=1, languages=languages)
    heard = {sample["language"] for sample in result["samples"]} - {"en"}
    assert len(heard) == spoken == len(result["settings"]["languages"]) - 1


@pytest.mark.usefixtures("_no_font")
def test_the_output_is_a_grid_and_the_result(painter, folder, tmp_path):
    output = tmp_path / "new" / "folder"
    result = evaluate(painter, folder, names=2, languages=["es"], output=output)
    assert json.loads((output / RESULT).read_text()) == json.loads(json.dumps(result))
    assert read_record(output / GRID)["settings"] == result["settings"]
    assert Image.open(output / GRID).width > BASE.width


@pytest.mark.parametrize("name", [GRID, RESULT])
def test_an_existing_output_is_refused_and_kept(painter, folder, tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(LuminaError, match=f"{name} exists"):
        evaluate(painter, folder, names=1, output=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine"


def test_an_unknown_language_is_refused_with_those_that_are_known(painter, folder):
    with pytest.raises(UnknownNameError, match=r"unknown language 'xx'(.|\n)*known: en, es"):
        evaluate(painter, folder, languages=["es", "xx"])


def test_a_model_without_drawings_is_refused(painter, tiny_folder):
    with pytest.raises(LuminaError, match="no model of drawings"):
        evaluate(painter, tiny_folder)


def text_of(lines, **parts):
    defaults = {
        "skipped": {},
        "settings": {"steps": 30, "guidance": 4.0, "dtype": "float32", "device": "cpu"},
        "seconds": {"total": 61.4},
        "samples": [{}] * 7,
    }
    return table({"lines": lines} | defaults | parts).splitlines()


def line(section, what, value, *, unit="share"):
    return {
        "section": section,
        "what": what,
        "count": 8,
        "value": value,
        "low": value / 2,
        "high": value + 0.01,
        "unit": unit,
    }


def test_a_table_shows_percents_and_decibels():
    rows = text_of([line("color", "background", 0.625), line("vae", "PSNR", 24.5, unit="dB")])
    assert " ".join(rows[1].split()) == "color background 8 62.5 % 31.2 % to 63.5 %"
    assert " ".join(rows[2].split()) == "vae PSNR 8 24.50 dB 12.25 dB to 24.51 dB"


def test_a_table_names_a_section_once():
    rows = text_of([line("sizes", "96x96", 1.0), line("sizes", "a long name", 0.5)])
    assert rows[1].startswith("sizes")
    assert rows[2].startswith(" " * 10)


def test_the_columns_of_a_table_are_aligned():
    rows = text_of([line("sizes", "96x96", 1.0), line("pairs", "a long name", 0.05)])
    ends = [rows[0].index("value") + len("value"), *(row.index("%") + 1 for row in rows[1:3])]
    assert len(set(ends)) == 1


def test_a_table_ends_with_how_it_was_made():
    last = text_of([line("sizes", "96x96", 1.0)])[-1]
    assert last == "30 steps, guidance 4, float32 on cpu, 7 pictures in 61 s"
