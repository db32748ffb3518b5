import json

import pytest
from huggingface_hub import ModelCard

from lumina import LuminaError
from lumina.training.cards import push, write_card
from lumina.training.recipes import FewStepsRecipe, FlowRecipe


@pytest.fixture
def exported(tmp_path):
    """Makes a folder that says which recipe made it, with the log of the run beside it."""

    def make(recipe):
        folder = tmp_path / "last"
        folder.mkdir()
        (folder / "model_index.json").write_text("{}")
        (folder / "NOTICE-drawings.txt").write_text("Drawn by somebody.\n")
        made_by = {"recipe": json.loads(recipe.to_json()), "steps": 7, "minutes": 1.5}
        made_by |= {"machine": "x86_64, 2 cores", "torch": "2.0"}
        (folder / "training.json").write_text(json.dumps(made_by))
        lines = [{"step": 6, "loss": 0.5, "validation": 0.25}, {"step": 7, "loss": 0.125}]
        (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
        return folder

    return make


def test_the_hub_reads_a_card_with_all_that_is_known(exported):
    recipe = FlowRecipe(out="runs/mine", data=({"kind": "folder", "path": "cats"},))
    card = ModelCard.load(write_card(exported(recipe)))
    assert card.data.library_name == "diffusers"
    assert card.data.tags == ["lumina", "flow"]
    for fact in (
        "# mine",
        "- steps: 7",
        "- machine: x86_64, 2 cores",
        "- loss: 0.125 (step 7)",
        "- validation: 0.25 (step 6)",
        "- folder cats",
        "Drawn by somebody.",
        "lumina.load(",
    ):
        assert fact in card.text


def test_a_model_of_another_modality_is_found_by_what_it_makes(exported):
    data = ({"kind": "world", "world": "sounds"},)
    card = ModelCard.load(write_card(exported(FlowRecipe(out="a", modality="sound", data=data))))
    assert card.data.pipeline_tag == "text-to-audio"
    assert card.data.library_name == "lumina"
    assert "- world sounds" in card.text


def test_a_card_says_in_which_equal_steps_a_student_draws(exported):
    text = write_card(exported(FewStepsRecipe(out="runs/few", evaluations=4))).read_text()
    assert "num_inference_steps=4, guidance_scale=1" in text
    assert "learned from the model lumina-mini" in text


def test_a_card_names_the_runs_before(exported):
    folder = exported(FlowRecipe(out="runs/third"))
    record = json.loads((folder / "training.json").read_text())
    first, second = ({**record, "recipe": {"out": f"runs/{name}"}} for name in ("first", "second"))
    record["before"] = {**second, "steps": 5, "before": first}
    (folder / "training.json").write_text(json.dumps(record))
    lines = "- after second: 5 steps, 1.5 minutes\n- after first: 7 steps, 1.5 minutes"
    assert lines in write_card(folder).read_text()


def test_a_folder_that_no_run_wrote_has_no_card_and_is_not_pushed(tmp_path):
    with pytest.raises(LuminaError, match=r"no training\.json"):
        write_card(tmp_path)
    with pytest.raises(LuminaError, match=r"no README\.md"):
        push(tmp_path, "me/mine")


def test_without_a_token_push_says_how_to_get_one(exported, monkeypatch, tmp_path):
    folder = exported(FlowRecipe(out="runs/mine"))
    write_card(folder)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(LuminaError, match="hf auth login"):
        push(folder, "me/mine")


def test_without_a_network_push_says_so(exported, monkeypatch):
    folder = exported(FlowRecipe(out="runs/mine"))
    write_card(folder)
    monkeypatch.setenv("HF_TOKEN", "hf_made_up")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(LuminaError, match="cannot be reached"):
        push(folder, "me/mine")
