"""Text encoders that learn from captions alone what other languages call things."""

import dataclasses
import shutil

import pytest
import torch

import lumina
from lumina import FlagDiT, LuminaError, NextDiT
from lumina.backbones.blocks import BlockContext
from lumina.checkpoints.folder import DIFFERENCE
from lumina.checkpoints.text_encoder import load_text_encoder
from lumina.nn.rope import rotate
from lumina.pipelines.assembly import text_encoder_folder
from lumina.training.flow import FlowObjective
from lumina.training.languages import features_of, readings
from lumina.training.recipes import FlowRecipe, LanguagesRecipe
from lumina.training.trainer import train

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


def test_english_captions_act_as_they_did_and_others_do_not(objective):
    same = dataclasses.replace(objective.recipe, english=1.0)
    others = dataclasses.replace(objective.recipe, english=0.0)
    errors = {}
    for name, chosen in (("same", same), ("others", others)):
        objective.recipe = chosen
        errors[name] = objective.validate()["validation"]
    assert errors["same"] <= 1e-9
    assert errors["others"] > 1e-3


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
    objective = dataclasses.replace(recipe, english=0.0).make_objective()
    before = objective.validate()["validation"]
    pipeline = lumina.load(learned, dtype="float32")
    objective.module = pipeline.text_encoder
    after = objective.validate()["validation"]
    assert after < 0.9 * before
    assert pipeline("ein hund", num_inference_steps=1).media[0].shape[0] == 3


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


def test_a_model_that_cannot_learn_is_refused(recipe, learned, tiny_folder):
    with pytest.raises(LuminaError, match="has learned languages already"):
        dataclasses.replace(recipe, model=str(learned)).make_objective()
    with pytest.raises(LuminaError, match="is no model of a world of media"):
        dataclasses.replace(recipe, model=str(tiny_folder)).make_objective()
