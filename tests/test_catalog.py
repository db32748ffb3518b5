import json

import pytest
import torch
from huggingface_hub.utils import filter_repo_objects

import lumina
from lumina.catalog import MODELS, download, find, list_models, load
from lumina.checkpoints.convert import convert
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


def test_memory_of_many_pictures_at_once_grows_with_them(tiny_folder):
    footprint = find(tiny_folder).footprint()
    many, twice = (
        footprint.bytes("64x64", bytes_per_number=1, frames=frames) - footprint.parameters
        for frames in (1000, 2000)
    )
    assert twice == pytest.approx(2 * many, rel=0.01)
    assert footprint.bytes("64x64", bytes_per_number=1) < many


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


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Put a folder into an empty cache of the hub, under an id."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))

    def cache(hub_id, folder):
        cached = tmp_path / "cache" / f"models--{hub_id.replace('/', '--')}"
        (cached / "refs").mkdir(parents=True)
        (cached / "refs" / "main").write_text("abc")
        (cached / "snapshots").mkdir()
        (cached / "snapshots" / "abc").symlink_to(folder)

    return cache


@pytest.fixture
def make_original(tmp_path):
    """A folder as of the original release."""

    def make(**settings):
        network = lumina.NextDiT(
            sample_size=8, hidden_size=24, num_layers=1, num_attention_heads=3, **settings
        )
        network.save_pretrained(tmp_path / "network")
        return convert(tmp_path / "network", tmp_path / "original", to="original")

    return make


def test_a_hub_id_is_found_in_the_cache(tiny_folder, cache):
    cache("someone/tiny", tiny_folder)
    assert find("someone/tiny").folder.resolve() == tiny_folder.resolve()


def test_a_folder_in_the_cache_without_weights_is_not_a_model(tmp_path, cache):
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "tokenizer.json").touch()
    cache("someone/words", tmp_path / "words")
    with pytest.raises(LuminaError, match="`lumina get someone/words` downloads it"):
        find("someone/words")


def test_a_network_of_the_original_release_loads_by_its_hub_id(tiny_folder, make_original, cache):
    cache("someone/original", make_original(cross_attention_dim=16))
    checkpoint = find("someone/original")
    assert checkpoint.is_network
    assert checkpoint.defaults == {"size": "64x64"}
    parts = {"text_encoder": tiny_folder, "vae": tiny_folder}
    pipeline = load("someone/original", dtype="float32", device="cpu", **parts)
    assert pipeline.transformer.config.num_attention_heads == 3


@pytest.mark.parametrize(
    ("name", "settings", "defaults"),
    [
        (
            "lumina-next-t2i",
            {"cross_attention_dim": 16},
            {"size": "1024x1024", "preset": "original"},
        ),
        ("next-dit-imagenet-600m", {"num_classes": 5}, {"size": "256x256"}),
    ],
)
def test_a_network_of_the_original_release_has_a_name_and_its_own_defaults(
    tiny_folder, make_original, cache, name, settings, defaults
):
    cache(MODELS[name].hub_id, make_original(**settings))
    checkpoint = find(name)
    assert checkpoint.is_network
    assert checkpoint.defaults == defaults
    assert checkpoint.classes == settings.get("num_classes")
    parts = {"text_encoder": tiny_folder, "vae": tiny_folder}
    pipeline = load(name, device="cpu", **parts)
    assert pipeline.transformer.config.num_layers == 1
    is_original = type(pipeline).__name__ == "OriginalLuminaPipeline"
    assert is_original == (defaults.get("preset") == "original")


def hub_of(files, folder, monkeypatch):
    """Have a hub hold some files, and tell which of them are in a folder after downloads."""

    def snapshot_download(hub_id, *, allow_patterns):
        folder.mkdir(exist_ok=True)
        for name in filter_repo_objects(files, allow_patterns=allow_patterns):
            (folder / name).touch()
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    return lambda: {file.name for file in folder.iterdir()}


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_download_fetches_what_the_original_release_needs(suffix, tmp_path, monkeypatch):
    there = [f"consolidated.00-of-01.{suffix}", "model_args.pth", "optimizer.00000-of-00008.pth"]
    fetched = hub_of(there, tmp_path, monkeypatch)
    assert download("lumina-t2i") == tmp_path
    assert fetched() == set(there[:2])


def test_a_download_fetches_pickles_where_there_is_nothing_else(tmp_path, monkeypatch):
    there = ["config.json", "pytorch_model.bin", "tf_model.h5", "spiece.model"]
    fetched = hub_of(there, tmp_path / "old", monkeypatch)
    download("google/t5-v1_1-large")
    assert fetched() == {"config.json", "pytorch_model.bin", "spiece.model"}
    fetched = hub_of([*there, "model.safetensors"], tmp_path / "new", monkeypatch)
    download("google/flan-t5-large")
    assert fetched() == {"config.json", "model.safetensors", "spiece.model"}


def test_every_model_is_listed_with_the_memory_that_it_takes(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    rows = {row["name"]: row for row in list_models()}
    assert rows.keys() == MODELS.keys()
    # Flag-DiT, LLaMA 2 and the autoencoder of SDXL.
    assert rows["lumina-t2i"]["parameters"] == "11,738 M"
    assert rows["next-dit-imagenet-600m"]["task"] == "class to image"
    assert rows["lumina-next-t2i"]["on disk"] == "no: lumina get lumina-next-t2i"


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
