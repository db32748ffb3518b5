"""Networks that are grown from another model, adapted, and stored as what makes them differ."""

import shutil

import pytest
import torch

import lumina
from lumina import LuminaError
from lumina.checkpoints.difference import DOWN, UP, difference_of
from lumina.checkpoints.folder import DIFFERENCE
from lumina.training.flow import FlowObjective
from lumina.training.recipes import FlowRecipe

WORLD = {"kind": "world", "world": "motion", "sizes": ["32x32x3"], "examples": 4}


@pytest.fixture(scope="module")
def recipe(tiny_folder, tmp_path_factory):
    made = FlowRecipe(
        out=str(tmp_path_factory.mktemp("difference")),
        modality="video",
        start_from=str(tiny_folder),
        autoencoder=str(tiny_folder),
        text_encoder=str(tiny_folder),
        data=(WORLD,),
        batch_size=2,
        device="cpu",
        lora_rank=2,
        lora_scale=1.5,
        lora_whole=("patch_embedder.proj",),
        parts_of="base",
        save_dtype="float32",
    )
    made.check()
    return made


@pytest.fixture(scope="module")
def trained(recipe):
    objective = FlowObjective(recipe)
    generator = torch.Generator().manual_seed(0)
    for weight in objective.module.parameters():
        if weight.requires_grad:
            weight.data = 0.3 * torch.randn(weight.shape, generator=generator)
    return objective


@pytest.fixture
def folder(trained, tiny_folder, tmp_path):
    shutil.copytree(tiny_folder, tmp_path / "base")
    trained.export(tmp_path / "clips")
    return tmp_path / "clips"


def test_only_what_was_trained_is_written(trained, folder):
    names = set(difference_of(trained.module, scale=1.0))
    whole = {name for name in names if not name.endswith((UP, DOWN))}
    assert whole == {"patch_embedder.proj.weight", "patch_embedder.proj.bias"}
    assert {path.name for path in folder.iterdir()} == {
        "model_index.json",
        "scheduler",
        "transformer",
    }
    assert {path.name for path in (folder / "transformer").iterdir()} == {"config.json", DIFFERENCE}


def test_a_difference_gives_the_trained_network_back(trained, folder):
    pipeline = lumina.load(folder, dtype="float32")
    batch = trained.batch(0)
    read = trained.modality.enter(batch.data, batch.times, batch.hints)
    arguments = trained.conditions.arguments(batch.condition)
    with torch.no_grad():
        expected = trained.module.eval()(read, batch.times, return_dict=False, **arguments)[0]
        found = pipeline.transformer(read, batch.times, return_dict=False, **arguments)[0]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_its_pipeline_has_the_other_parts_of_the_base(folder):
    pipeline = lumina.load(folder, dtype="float32")
    pipeline.set_progress_bar_config(disable=True)
    source = torch.Generator().manual_seed(0)
    assert pipeline("a dog", num_inference_steps=1, generator=source).media[0].shape[0] == 3


def test_without_the_base_nothing_is_loaded(folder):
    shutil.rmtree(folder.parent / "base")
    with pytest.raises(LuminaError, match="parts of base, which is not there"):
        lumina.load(folder)


def test_another_base_is_refused(folder):
    config = folder.parent / "base" / "transformer" / "config.json"
    config.write_text(config.read_text().replace('"num_layers": 2', '"num_layers": 1'))
    with pytest.raises((LuminaError, ValueError, OSError)):
        lumina.load(folder)
