"""Point clouds from data to files: trained, exported, loaded, sampled and written."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import lumina
from lumina import LuminaError
from lumina.cli import main
from lumina.flow.path import LINEAR
from lumina.media import read_record
from lumina.media.ply import read_points
from lumina.modalities.points import KEYS
from lumina.training.flow import FlowObjective
from lumina.training.recipes import FlowRecipe
from lumina.training.trainer import train

pytest.importorskip("trimesh")


@pytest.fixture(scope="module")
def recipe(tiny_folder, tmp_path_factory):
    made = FlowRecipe(
        out=str(tmp_path_factory.mktemp("points")),
        modality="points",
        text_encoder=str(tiny_folder),
        data=({"kind": "world", "world": "solids", "examples": 6},),
        width=24,
        depth=2,
        heads=3,
        kv_heads=1,
        multiple_of=16,
        batch_size=2,
        steps=2,
        device="cpu",
        preview_every=2,
        preview_steps=1,
        prompts=("a chair",),
        usual_size="300",
        save_dtype="float32",
    )
    made.check()
    return made


@pytest.fixture(scope="module")
def folder(recipe):
    return train(recipe)


@pytest.fixture(scope="module")
def pipeline(folder):
    pipeline = lumina.load(folder, dtype="float32")
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(1)
    for weight in pipeline.transformer.parameters():
        weight.data += 0.1 * torch.randn(weight.shape, generator=generator)
    return pipeline


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_coordinates_are_finer_than_the_numbers_of_the_network(pipeline):
    network = pipeline.transformer
    try:
        network.to(torch.bfloat16)
        (cloud,) = pipeline("a chair", points=256, num_inference_steps=2, generator=seeded()).media
    finally:
        network.to(torch.float32)
    coarse = torch.from_numpy(cloud).bfloat16().float().numpy()
    assert (coarse == cloud).mean() < 0.1


def test_clouds_have_as_many_points_as_the_recipe_says(recipe, pipeline):
    (cloud,) = pipeline("a chair", num_inference_steps=1, generator=seeded()).media
    assert len(cloud) == 300
    with pytest.raises(LuminaError, match="usual_size is 32x32"):
        FlowObjective(replace(recipe, usual_size="32x32"))


def test_paths_of_training_are_the_shortest_of_all_orders(recipe):
    batch = FlowObjective(recipe).batch(0)
    assert batch.data.shape == (2, 3, 256)
    lengths = LINEAR.velocity(batch.noise, batch.data, batch.times).square().sum((1, 2))
    others = batch.noise[:, :, torch.randperm(256)]
    assert (LINEAR.velocity(others, batch.data, batch.times).square().sum((1, 2)) > lengths).all()


def test_a_cloud_of_another_order_of_noise_is_the_same(pipeline):
    noise, order = torch.randn(1, 3, 300), torch.randperm(300)
    options = {"points": 300, "num_inference_steps": 2, "output_type": "latent"}
    cloud = pipeline("a chair", latents=noise, **options).media
    turned = pipeline("a chair", latents=noise[:, :, order], **options).media
    assert torch.allclose(turned, cloud[:, :, order], atol=1e-4)


def test_in_large_clouds_all_points_follow_the_first_ones(pipeline):
    """So these follow no others, and the order of both has no effect."""
    noise = torch.randn(1, 3, 2 * KEYS, generator=seeded())
    options = {"points": 2 * KEYS, "num_inference_steps": 2, "output_type": "latent"}
    cloud = pipeline("a chair", latents=noise, **options).media
    order = torch.cat([torch.randperm(KEYS), KEYS + torch.randperm(KEYS)])
    turned = pipeline("a chair", latents=noise[:, :, order], **options).media
    assert torch.allclose(turned, cloud[:, :, order], atol=1e-4)
    noise[:, :, KEYS + 1 :] += 1
    others = pipeline("a chair", latents=noise, **options).media
    assert torch.allclose(others[:, :, : KEYS + 1], cloud[:, :, : KEYS + 1], atol=1e-5)
    assert not torch.allclose(others[:, :, KEYS + 1 :], cloud[:, :, KEYS + 1 :], atol=0.1)
    noise[:, :, 0] += 1
    moved = pipeline("a chair", latents=noise, **options).media
    assert (moved - others)[:, :, KEYS:].abs().max() > 1e-4


def test_an_argument_that_there_is_not_is_refused_with_the_nearest(pipeline):
    with pytest.raises(TypeError, match="Pipeline has no argument 'num_points'; did you mean 'poi"):
        pipeline("a chair", num_points=300)


def test_clouds_do_not_depend_on_their_company(pipeline):
    options = {"points": 256, "num_inference_steps": 2}
    both = pipeline(["a chair", "a mug"], generator=[seeded(1), seeded(2)], **options).media
    alone = pipeline("a mug", generator=seeded(2), **options).media
    assert np.allclose(both[1], alone[0], atol=1e-4)
    assert both[0].shape == (256, 3)


def test_without_a_generator_the_seed_of_torch_counts_and_is_kept(pipeline):
    def made():
        torch.manual_seed(7)
        cloud = pipeline("a chair", points=256, num_inference_steps=1).media[0]
        return cloud, torch.rand(1)

    (one, after), (same, after_same) = made(), made()
    assert np.array_equal(one, same)
    assert after == after_same


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"points": 255}, "256 to 8192"),
        ({"points": 8193}, "256 to 8192"),
        ({"generator": [seeded(), seeded()]}, "2 generators for 1"),
        ({"latents": torch.zeros(1, 3, 7)}, "have the shape"),
    ],
)
def test_what_cannot_be_made_is_refused(pipeline, options, reason):
    with pytest.raises(LuminaError, match=reason):
        pipeline("a chair", num_inference_steps=1, **options)


@pytest.mark.parametrize("ending", ["ply", "html", "png"])
def test_the_command_writes_clouds_with_their_record(folder, tmp_path, ending):
    path, again = tmp_path / f"cloud.{ending}", tmp_path / f"again.{ending}"
    words = ["generate", "--model", str(folder), "a chair", "--points", "256", "--steps", "1"]
    assert main([*words, "--seed", "3", "-o", str(path)]) == 0
    assert read_record(path)["request"]["points"] == 256
    if ending == "ply":
        assert read_points(path).shape == (256, 3)
    if ending == "png":
        assert Image.open(path).size == (512, 512)
    assert main(["generate", "--from", str(path), "-o", str(again)]) == 0
    assert again.read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--frames", "4"], "has no meaning"),
        (["--points", "12"], "out of range"),
        (["--size", "64x64"], "has no meaning"),
    ],
)
def test_the_command_refuses_what_clouds_cannot_be(folder, tmp_path, capsys, words, reason):
    path = tmp_path / "cloud.ply"
    assert main(["generate", "--model", str(folder), "a chair", "-o", str(path), *words]) == 1
    assert reason in capsys.readouterr().err
    assert not path.exists()


def test_variations_of_the_picture_of_a_cloud_are_refused(folder, tmp_path, capsys):
    path = tmp_path / "cloud.png"
    words = ["generate", "--model", str(folder), "a chair", "--points", "256", "--steps", "1"]
    assert main([*words, "-o", str(path)]) == 0
    assert main(["variations", str(path), "-o", str(tmp_path / "more")]) == 1
    assert "the prompt is empty" in capsys.readouterr().err


def test_a_cloud_of_what_a_picture_shows_says_what_of_it_is_left_out(
    folder, tiny_folder, tmp_path, caplog
):
    picture, cloud = tmp_path / "chair.png", tmp_path / "chair.ply"
    words = ["generate", "a chair", "--steps", "1", "--seed", "3", "--size", "32x32"]
    assert main([*words, "--model", str(tiny_folder), "-o", str(picture)]) == 0
    words = ["generate", "--from", str(picture), "--model", str(folder), "--points", "256"]
    assert main([*words, "-o", str(cloud)]) == 0
    assert "--size left out" in caplog.text
    stored = read_record(cloud)["request"]
    assert (stored["prompt"], stored["seed"], stored["size"]) == ("a chair", 3, None)


def test_an_autoencoder_is_refused(recipe, tiny_folder):
    import dataclasses

    with pytest.raises(LuminaError, match="need no autoencoder"):
        dataclasses.replace(recipe, autoencoder=str(tiny_folder)).check()
