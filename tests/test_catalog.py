import json

import pytest
import torch

import lumina
from lumina.catalog import MODELS, download, find, load
from lumina.errors import LuminaError, UnknownNameError


def test_a_folder_is_loaded_in_the_dtype_that_was_asked_for(tiny_folder):
    pipeline = load(tiny_folder, dtype="bfloat16", device="cpu")
    assert type(pipeline) is lumina.LuminaPipeline
    assert type(pipeline.transformer) is lumina.NextDiT
    assert pipeline.transformer.dtype == pipeline.vae.dtype == torch.bfloat16


def test_a_folder_defaults_to_the_size_that_its_model_was_trained_at(tiny_folder):
    assert find(tiny_folder).defaults == {"size": "64x64"}


def test_memory_grows_with_the_pixels_and_begins_with_the_weights(tiny_folder):
    footprint = find(tiny_folder).footprint()
    assert footprint.bytes("0x0", bytes_per_number=4) == 4 * footprint.parameters
    growth = [
        footprint.bytes(size, bytes_per_number=1) - footprint.parameters
        for size in ("64x64", "64x128")
    ]
    assert growth[1] == 2 * growth[0] > 0


def test_an_unknown_name_is_refused_with_the_nearest_and_all_others():
    with pytest.raises(UnknownNameError) as caught:
        find("lumina-mni")
    assert caught.value.hint == f"did you mean 'lumina-mini'? known: {', '.join(MODELS)}"


def test_a_file_is_no_folder(tiny_folder):
    with pytest.raises(LuminaError, match="model_index.json"):
        find(tiny_folder / "model_index.json")


def test_a_model_that_was_not_downloaded_names_the_command_that_does_it(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    for name in ("lumina-next-sft", "someone/something"):
        with pytest.raises(LuminaError, match=f"`lumina get {name}` downloads it"):
            find(name)


def test_a_hub_id_is_found_in_the_cache(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    cached = tmp_path / "models--someone--tiny"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("abc")
    (cached / "snapshots").mkdir()
    (cached / "snapshots" / "abc").symlink_to(tiny_folder)
    assert find("someone/tiny").folder.resolve() == tiny_folder.resolve()


def test_what_is_neither_a_name_nor_a_hub_id_cannot_be_downloaded():
    with pytest.raises(UnknownNameError, match="known: lumina-mini"):
        download("lumina-mni")


def test_a_device_that_is_not_there_is_refused_before_files_are_checked(own_folder):
    (own_folder / "vae" / "config.json").unlink()
    with pytest.raises(LuminaError, match="there is no device 'cuda:99' here"):
        load(own_folder, device="cuda:99")


def test_missing_weights_are_refused_and_not_made_up(own_folder):
    (own_folder / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(LuminaError, match="has no weights"):
        load(own_folder)


def test_a_checkpoint_of_another_pipeline_is_refused_by_its_name(own_folder):
    (own_folder / "model_index.json").write_text(json.dumps({"_class_name": "FluxPipeline"}))
    with pytest.raises(LuminaError, match="holds a FluxPipeline"):
        load(own_folder)
