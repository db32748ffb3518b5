"""The models in the package that make other things than pictures; guides run their commands."""

import json

import pytest
import torch

from lumina.catalog import MODELS, WEIGHTS, find, load
from lumina.evaluation.exams import Outcome, open_exam
from lumina.requests import OF_MODALITIES

SHIPPED = [
    name
    for name, model in MODELS.items()
    if model.hub_id is None and find(name).modality in OF_MODALITIES
]


@pytest.mark.parametrize("name", SHIPPED)
def test_it_is_small_and_says_what_made_it(name):
    own = [WEIGHTS / name / part for part in ("transformer", "text_encoder")]
    files = [file for folder in own if folder.is_dir() for file in folder.iterdir()]
    assert sum(file.stat().st_size for file in files) <= 8e6
    made_by = json.loads((WEIGHTS / name / "training.json").read_text())
    assert {"recipe", "steps", "minutes", "machine"} <= made_by.keys()


def test_all_together_are_small():
    files = [file for file in WEIGHTS.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= 89e6


@pytest.mark.parametrize("name", SHIPPED)
def test_most_of_what_is_asked_for_is_made(name):
    exam = open_exam(find(name))
    pipeline = load(name, device="cpu", dtype="float32")
    pipeline.set_progress_bar_config(disable=True)
    usual = find(name).defaults
    rights = []
    wishes = exam.plan(full=False, names=4, languages=[])
    for wish in wishes[:: len(wishes) // 4][:4]:  # of all sections, such as all voices
        settings = {
            "num_inference_steps": usual["steps"],
            "guidance_scale": usual["guidance"],
            "generator": torch.Generator().manual_seed(wish.seed),
        }
        medium = pipeline(wish.prompt, **(settings | wish.arguments)).media[0]
        rights.append(exam.describe(Outcome(wish, exam.judge(wish, medium)))["right"])
    assert sum(rights) >= 2


def test_keys_of_music_may_be_spelled_by_signs():
    """Cleaning takes a sharp sign out, so that C# was heard as C."""
    music, sound = (load(name, device="cpu") for name in ("lumina-mini-music", "lumina-mini-sound"))
    signs, names, other = (f"a melody in {key} major" for key in ("C#", "C sharp", "C"))

    def read(pipeline, text):
        return pipeline.encode_prompt(text, False)[0]

    assert torch.equal(read(music, signs), read(music, names))
    assert not torch.equal(read(music, names)[0, -1], read(music, other)[0, -1])
    assert torch.equal(read(sound, signs), read(sound, other))
