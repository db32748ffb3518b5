import json
from pathlib import Path

import pytest
import torch

import lumina
from lumina.cli import main
from lumina.devices import is_fast_at_bfloat16
from lumina.errors import LuminaError
from lumina.training.recipes import AutoencoderRecipe, load

RECIPES = Path(__file__).parents[2] / "recipes"
SHIPPED = sorted(RECIPES.glob("*.toml"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_recipe_is_valid(path):
    assert load(path).out == f"runs/{path.stem}"


def test_a_later_setting_wins_over_the_file(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('task = "autoencoder"\nsteps = 5\nlearning_rate = 1\n')
    recipe = load(path, ["steps=7", "out=some/folder"])
    assert isinstance(recipe, AutoencoderRecipe)
    assert (recipe.steps, recipe.out, recipe.learning_rate) == (7, "some/folder", 1.0)


@pytest.mark.parametrize(
    ("text", "override", "told"),
    [
        ('task = "autoencoder"', "stepps=3", "did you mean 'steps'"),
        ('task = "autoencoder"', "steps=0", "steps is 0"),
        ('task = "autoencoder"', "steps=many", "steps is 'many'"),
        ('task = "autoencoder"', "steps", "not key=value"),
        ('task = "autoencoder"', "channels=3", "not numbers with commas"),
        ('task = "autoencoder"', "decay=1.5", "0 to 1"),
        ('task = "flow"', "multiple_of=0", "multiple_of is 0"),
        ('task = "few_steps"', "foreign=7", "foreign is 7"),
        ('task = "shapes"', "time_shift=0", "time_shift is 0"),
        ('task = "dance"', "steps=3", "autoencoder"),
        ("task =", "steps=3", "not valid TOML"),
    ],
)
def test_a_wrong_setting_is_refused_with_what_would_be_right(tmp_path, text, override, told):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(LuminaError) as caught:
        load(path, [override])
    assert told in f"{caught.value} {caught.value.hint}"


def test_automatic_precision_is_what_the_device_is_fast_at():
    usual = "bf16" if is_fast_at_bfloat16(torch.device("cpu")) else "fp32"
    assert AutoencoderRecipe(precision="auto", device="cpu").settled().precision == usual
    given = AutoencoderRecipe(precision="fp16", device="cpu")
    assert given.settled() is given


def test_a_file_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "picture.toml").write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(LuminaError, match="not valid TOML"):
        load(tmp_path / "picture.toml")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(LuminaError, match=r"absent\.toml"):
        load(tmp_path / "absent.toml")


def test_changes_since_names_only_what_matters_to_the_result():
    recipe = AutoencoderRecipe(steps=5)
    other = AutoencoderRecipe(steps=6, log_every=1)
    assert recipe.changes_since(other.to_json()) == {"steps": (6, 5)}
    assert recipe.changes_since(recipe.to_json()) == {}


def test_the_quick_recipe_writes_a_line_for_each_step_and_its_last_weights(
    tiny_folder, tmp_path, capsys
):
    smaller = ["batch_size=4", "data.0.pictures=24", "width=32", "depth=1", "preview_steps=1"]
    smaller += ["prompts=['a red disc']", "device=cpu", "precision=fp32"]
    parts = [f"autoencoder={tiny_folder}", f"text_encoder={tiny_folder}"]
    out = tmp_path / "made"
    quick = str(RECIPES / "quick.toml")
    assert main(["train", quick, f"out={out}", "steps=3", *parts, *smaller]) == 0
    assert capsys.readouterr().out == f"{out / 'last'}\n"
    lines = [json.loads(line) for line in (out / "metrics.jsonl").open()]
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert all(line["loss"] > 0 and line["samples_per_second"] > 0 for line in lines)
    assert "validation" in lines[-1]
    pipeline = lumina.load(out / "last", device="cpu", dtype="float32")
    assert pipeline.transformer.config["hidden_size"] == 32
