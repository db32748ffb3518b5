"""The model in the package, on the whole way from a prompt to a picture."""

import json

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

import lumina
from lumina.catalog import WEIGHTS
from lumina.cli import main
from lumina.worlds.captions import Brief, write
from lumina.worlds.judge import Lineup
from lumina.worlds.references import load_references
from lumina.worlds.vocabulary import names

FOLDER = WEIGHTS / "lumina-mini"


@pytest.fixture(scope="module")
def pipeline():
    pipeline = lumina.load("lumina-mini", device="cpu", dtype="float32")
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def lineup():
    return Lineup(*load_references(FOLDER))


def draw(pipeline, prompt, **settings):
    generator = torch.Generator().manual_seed(0)
    return pipeline(prompt, generator=generator, **settings).images[0]


def test_it_is_complete_and_small():
    files = [file for file in FOLDER.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= 40e6
    assert len(json.loads((FOLDER / "vocabulary.json").read_text())) >= 1000
    assert "Open Font License" in (FOLDER / "NOTICE-drawings.txt").read_text()


@pytest.mark.parametrize("part", [".", "vae", "text_encoder"])
def test_its_parts_say_what_made_them(part):
    made_by = json.loads((FOLDER / part / "training.json").read_text())
    assert {"recipe", "steps", "minutes", "machine"} <= made_by.keys()


def test_its_network_has_ten_million_weights(pipeline):
    assert sum(weight.numel() for weight in pipeline.transformer.parameters()) >= 10e6


@pytest.mark.parametrize("color", ["black", "red", "green", "blue", "yellow", "pink"])
def test_backgrounds_have_the_color_that_was_asked_for(pipeline, lineup, color):
    brief = Brief(("🍎",), color)
    picture = draw(pipeline, write(brief, "en"), num_inference_steps=12)
    assert lineup.judge(brief, np.asarray(picture)).background == color


@pytest.mark.parametrize("place", ["left", "right", "top", "bottom"])
def test_small_things_stand_where_they_were_asked_for(pipeline, lineup, place):
    brief = Brief(("🍎",), "white", place)
    picture = draw(pipeline, write(brief, "en"), num_inference_steps=12)
    assert lineup.judge(brief, np.asarray(picture)).place == place


def test_diffusers_draws_the_same_from_the_same_folder(pipeline):
    theirs = diffusers.LuminaPipeline.from_pretrained(FOLDER)
    theirs.set_progress_bar_config(disable=True)
    settings = {"output_type": "latent", "num_inference_steps": 5}
    one, other = (draw(p, "a red apple", **settings) for p in (pipeline, theirs))
    assert (one - other).abs().max() <= 1e-4 * other.abs().max()


def test_the_command_draws_it_without_a_flag(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["generate", "a red apple", "--seed", "7"]) == 0
    assert capsys.readouterr().out == "a-red-apple-7.png\n"
    assert (tmp_path / "a-red-apple-7.png").exists()


def test_the_recognizer_tells_most_drawings():
    recognizer = lumina.load("lumina-mini-recognition", device="cpu", dtype="float32")
    english, known = names("en"), set(recognizer.labels)
    drawn = [
        (english[emoji], Image.fromarray(drawing))
        for emoji, drawing in zip(*load_references(FOLDER), strict=True)
        if english[emoji] in known
    ]
    pictures = [picture.resize((64, 64)) for _, picture in drawn]
    best = [guesses[0].label for guesses in recognizer(pictures, top=1)]
    right = sum(found == name for found, (name, _) in zip(best, drawn, strict=True))
    assert right >= 0.8 * len(drawn) > 50  # they are 32 pixels wide, and so are blurred
