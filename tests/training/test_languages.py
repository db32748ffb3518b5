"""Text encoders that learn from captions alone what other languages call things."""

import dataclasses
import json
import shutil

import diffusers
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import lumina
from lumina import FlagDiT, LuminaError, NextDiT
from lumina.backbones.blocks import BlockContext
from lumina.checkpoints.folder import DIFFERENCE, worlds_of
from lumina.checkpoints.text_encoder import load_text_encoder
from lumina.nn.rope import rotate
from lumina.pipelines.assembly import text_encoder_folder
from lumina.training.flow import FlowObjective
from lumina.training.languages import features_of, readings
from lumina.training.recipes import FlowRecipe, LanguagesRecipe
from lumina.training.trainer import train
from lumina.training.translations import captions_of_file

WORLD = {"kind": "world", "world": "motion", "sizes": ["32x32x3"], "examples": 4}


@pytest.fixture(scope="module")
def model(tiny_folder, tmp_path_factory):
    """A model of clips beside the model whose text encoder it has."""
    folder = tmp_path_factory.mktemp("models")
    base = str(shutil.copytree(tiny_folder, folder / "base"))
    recipe = FlowRecipe(
        out=str(folder / "run"),
        modality="video",
        start_from=base,
        autoencoder=base,
        text_encoder=base,
        data=(WORLD,),
        device="cpu",
        lora_rank=2,
        parts_of="base",
    )
    FlowObjective(recipe).export(folder / "clips")
    return folder / "clips"


@pytest.fixture(scope="module")
def recipe(model):
    return LanguagesRecipe(
        out=str(model.parent / "languages"),
        model=str(model),
        world="motion",
        rank=4,
        steps=20,
        batch_size=16,
        samples=1,
        learning_rate=1e-2,
        matrix_optimizer="adamw",
        warmup=1,
        ema=0.0,
        device="cpu",
        prompts=("ein hund",),
        log_every=10,
        preview_every=10,
        validate_every=10,
    )


@pytest.fixture(scope="module")
def objective(recipe):
    return recipe.make_objective()


@pytest.mark.parametrize("kind", [NextDiT, FlagDiT])
def test_what_is_read_of_a_text_is_what_the_text_adds(kind):
    torch.manual_seed(0)
    network = kind(hidden_size=48, num_attention_heads=6, num_layers=1, cross_attention_dim=32)
    block = network.layers[0]
    for weight in block.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    tokens, text = torch.randn(2, 6, 48), torch.randn(2, 5, 32)
    seen = torch.tensor([[1, 1, 1, 0, 0], [1] * 5])[:, None, None] != 0
    angles = torch.randn(6, 4)
    rope = torch.stack([angles.cos(), angles.sin()], dim=-1)
    context = BlockContext(tokens, tokens, rope, text, seen, 8**-0.5, None, None, None)
    with torch.no_grad():
        both = block.attention(tokens, context, None)
        query = rotate(block.attn2.query(tokens), rope)
        read = block.read_text(query, text, seen)
        block.gate.zero_()
        alone = block.attention(tokens, context, None)
    assert not torch.allclose(both, alone, atol=1e-3)
    torch.testing.assert_close(read, both - alone, atol=1e-4, rtol=1e-4)


def error_of(objective, english):
    """How far captions are from acting as English ones, of which so large a share are."""
    usual = objective.recipe
    objective.recipe = dataclasses.replace(usual, english=english)
    batch = objective._translate(objective.unseen, np.random.default_rng(3), 64)
    objective.recipe = usual
    with torch.no_grad():
        return objective.loss(batch, 0)[0].item()


def test_english_captions_act_as_they_did_and_others_do_not(objective):
    same, others = (error_of(objective, english) for english in (1.0, 0.0))
    assert same <= 1e-9
    assert others > 1e-3


def test_the_same_step_has_the_same_captions(objective):
    first, again, next_one = (objective.batch(number) for number in (3, 3, 4))
    assert torch.equal(first.ids, again.ids)
    assert torch.equal(first.queries, again.queries)
    assert not torch.equal(first.queries, next_one.queries)


@pytest.fixture(scope="module")
def learned(recipe, model):
    folder = train(recipe)
    return shutil.copytree(folder, model.parent / "learned")


def test_what_was_learned_is_loaded_and_reads_as_in_training(recipe, learned, model):
    assert (learned.parent / "languages" / "step-000020.png").is_file()
    assert {path.name for path in (learned / "text_encoder").iterdir()} == {
        "config.json",
        DIFFERENCE,
    }
    objective = recipe.make_objective()
    before = error_of(objective, 0.0)
    pipeline = lumina.load(learned, dtype="float32")
    objective.module = pipeline.text_encoder
    after = error_of(objective, 0.0)
    assert after < 0.9 * before
    assert error_of(objective, 1.0) < after
    assert pipeline("ein hund", num_inference_steps=1).media[0].shape[0] == 3


def files_of(folder):
    return {file: file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def test_what_is_written_again_is_the_same(recipe, objective, tiny_folder, tmp_path):
    alone = dataclasses.replace(recipe, model=str(tiny_folder), world="motion").make_objective()
    for number, one in enumerate((objective, alone)):
        one.export(tmp_path / str(number))
        once = files_of(tmp_path / str(number))
        one.export(tmp_path / str(number))
        assert files_of(tmp_path / str(number)) == once


def test_a_model_that_reads_texts_in_its_own_way_is_refused(recipe, model, tmp_path):
    own = shutil.copytree(model, model.parent / "own")
    index = json.loads((own / "model_index.json").read_text())
    (own / "model_index.json").write_text(json.dumps(index | {"text_layer": -1}))
    with pytest.raises(LuminaError, match="by a text_layer or prompt_template of its own"):
        dataclasses.replace(recipe, model=str(own)).make_objective()


def test_what_the_model_was_trained_on_is_still_known(learned, model):
    record = learned / "transformer" / "training.json"
    record.write_text(json.dumps({"recipe": {"data": [{"world": "solids"}]}}))
    assert worlds_of(learned) == ["motion", "solids"]


def test_other_models_can_be_trained_with_it(learned, model):
    folder = text_encoder_folder(learned)
    assert folder == learned / "text_encoder"
    changed = load_text_encoder(folder, dtype=torch.float32)
    usual = load_text_encoder(text_encoder_folder(model), dtype=torch.float32)
    ids, mask = torch.arange(6)[None], torch.ones(1, 6, dtype=torch.int64)
    assert not torch.allclose(features_of(changed, ids, mask), features_of(usual, ids, mask))


def test_samples_of_a_batch_are_read_apart(objective):
    batch = objective.batch(0)
    queries = [each[batch.queries[0]] for each in objective.queries]
    features = features_of(objective.teacher, batch.ids, batch.mask)
    together = readings(objective.network, features, batch.mask, queries)
    alone = readings(objective.network, features[2:3], batch.mask[2:3], queries)
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one[2:3], other)


def test_the_card_says_what_the_model_makes(learned):
    assert "pipeline_tag: text-to-video" in (learned / "README.md").read_text()


@pytest.fixture
def pairs(tmp_path):
    lines = [{"caption": f"ein bild, {n}", "english": f"picture {n}"} for n in range(40)]
    file = tmp_path / "pairs.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)))
    return file


def test_a_model_of_pictures_learns_pairs_of_ones_own(recipe, pairs, tiny_folder, tmp_path):
    own = dataclasses.replace(
        recipe, model=str(tiny_folder), world="", pairs=str(pairs), out=str(tmp_path / "own")
    )
    own.check()
    folder = train(own)
    assert not (folder / "text_encoder" / DIFFERENCE).exists()
    learned = diffusers.LuminaPipeline.from_pretrained(folder).text_encoder
    usual = lumina.load(tiny_folder).text_encoder
    changed = {
        name
        for name, weight in usual.state_dict().items()
        if not torch.equal(weight, learned.state_dict()[name])
    }
    layers = {name.split(".")[1] for name in changed}
    assert layers == {str(number) for number in range(len(usual.layers) - 1)}
    # A second run keeps the records of the network and of the first one.
    (folder / "transformer" / "training.json").write_text('{"recipe": {"world": "solids"}}')
    again = dataclasses.replace(own, model=str(folder), out=str(tmp_path / "again"), steps=1)
    folder = train(again)
    assert worlds_of(folder) == ["solids"]
    assert json.loads((folder / "text_encoder" / "training.json").read_text())["steps"] == 20


def test_lines_are_trained_on_or_validated_on(pairs):
    seen, unseen = captions_of_file(pairs)
    rng = np.random.default_rng(0)
    drawn = [{draw(rng).others[0] for _ in range(400)} for draw in (seen, unseen)]
    assert not drawn[0] & drawn[1]
    assert len(drawn[0] | drawn[1]) == 40


def test_the_mark_that_some_editors_begin_a_file_with_is_no_part_of_a_pair(pairs):
    pairs.write_text(pairs.read_text(), encoding="utf-8-sig")
    _, unseen = captions_of_file(pairs)
    english = {unseen(np.random.default_rng(seed)).english[0] for seed in range(20)}
    assert english == {"picture 0", "picture 20"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"caption": "ein ball"}', "line 1 of .* is no caption and its translation"),
        ("[1]", "line 1 of .* is no caption"),
        ("ein ball, a ball", "line 1 of .* is no caption"),
        ('{"caption": "", "english": ""}', "line 1 of .* is no caption"),
        ('{"caption": "ball", "english": "ball"}', "has 1 lines"),
        (None, "cannot read"),
    ],
)
def test_what_is_no_file_of_pairs_is_refused(tmp_path, text, reason):
    file = tmp_path / "pairs.jsonl"
    if text is not None:
        file.write_text(text)
    with pytest.raises(LuminaError, match=reason):
        captions_of_file(file)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"world": ""}, "give a world whose captions are learned, or a file"),
        ({"pairs": "pairs.jsonl"}, "give a world whose captions are learned, or a file"),
        ({"model": ""}, "there is no model that learns"),
    ],
)
def test_a_recipe_that_cannot_be_followed_is_refused(recipe, settings, reason):
    with pytest.raises(LuminaError, match=reason):
        dataclasses.replace(recipe, **settings).check()


def test_a_model_that_cannot_learn_is_refused(recipe, learned):
    with pytest.raises(LuminaError, match="has learned languages already"):
        dataclasses.replace(recipe, model=str(learned)).make_objective()
    for name in ("lumina-mini-recognition", "lumina-mini-speech"):
        with pytest.raises(LuminaError, match="is no whole model with a text encoder"):
            dataclasses.replace(recipe, model=name).make_objective()


def test_a_damaged_base_is_refused(learned, tmp_path):
    shutil.copytree(learned.parent / "base", tmp_path / "base")
    shutil.copytree(learned, tmp_path / "learned")
    file = next((tmp_path / "base" / "text_encoder").glob("*.safetensors"))
    weights = load_file(file)
    del weights["layers.0.mlp.up_proj.weight"]
    save_file(weights, file)
    with pytest.raises(LuminaError, match="layers.0.mlp.up_proj.weight"):
        lumina.load(tmp_path / "learned")


def test_a_flow_goes_on_with_what_was_learned_or_not_at_all(learned):
    settings = {"modality": "video", "start_from": str(learned), "autoencoder": str(learned)}
    settings |= {"data": (WORLD,), "device": "cpu", "batch_size": 2, "cache_texts": False}
    settings |= {"lora_rank": 2, "parts_of": learned.name, "out": str(learned.parent / "on")}
    recipe = FlowRecipe(text_encoder=str(learned), **settings)
    recipe.check()
    objective = FlowObjective(recipe)
    condition = objective.batch(0).condition
    expected = features_of(lumina.load(learned).text_encoder, condition.ids, condition.mask)
    found = objective.conditions.arguments(condition)["encoder_hidden_states"]
    torch.testing.assert_close(found, expected)
    base = str(learned.parent / "base")
    other = dataclasses.replace(recipe, text_encoder=base, parts_of="")
    with pytest.raises(LuminaError, match="has learned languages, and text_encoder is"):
        other.check()


def test_a_run_of_other_captions_is_another_one(recipe, objective, pairs, model):
    own = dataclasses.replace(recipe, world="", pairs=str(pairs)).make_objective()
    before = own.data_digest
    assert before != objective.data_digest
    pairs.write_text(pairs.read_text().replace("ein bild", "das bild"))
    assert own.data_digest != before
