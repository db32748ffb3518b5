"""Views from data to files: trained, exported, loaded, sampled and written by the command."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import lumina
from lumina import LuminaError
from lumina.cli import main
from lumina.media import read_record
from lumina.training.recipes import FlowRecipe
from lumina.training.trainer import train

pytest.importorskip("embreex")


@pytest.fixture(scope="module")
def recipe(tiny_folder, tmp_path_factory):
    world = {"kind": "world", "world": "items", "sizes": ["32x32x3", "32x32x1"], "examples": 4}
    made = FlowRecipe(
        out=str(tmp_path_factory.mktemp("views")),
        modality="multiview",
        start_from=str(tiny_folder),
        autoencoder=str(tiny_folder),
        text_encoder=str(tiny_folder),
        data=(world,),
        batch_size=2,
        steps=2,
        device="cpu",
        preview_every=2,
        preview_steps=1,
        prompts=("a red chair",),
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


def test_a_run_that_begins_with_a_network_of_pictures_draws_where_it_is_heading(folder):
    assert (folder.parent / "step-000002.png").exists()


@pytest.mark.parametrize("views", [1, 3, 8])
def test_there_are_as_many_views_as_are_asked_for(pipeline, views):
    made = pipeline("a mug", views=views, num_inference_steps=1, generator=seeded()).media
    assert [one.shape for one in made] == [(views, 32, 32, 3)]
    assert made[0].dtype == np.uint8


def test_things_do_not_depend_on_their_company(pipeline):
    options = {"num_inference_steps": 2, "output_type": "latent", "views": 2}
    both = pipeline(["a mug", "a car"], generator=[seeded(1), seeded(2)], **options).media
    alone = pipeline("a car", generator=[seeded(2)], **options).media
    assert torch.allclose(both[1:], alone, atol=1e-4)


def test_views_see_each_other_and_where_their_cameras_are(pipeline):
    options = {"num_inference_steps": 1, "output_type": "latent", "views": 3}
    noise = torch.randn(1, 4, 3, 4, 4, generator=seeded())
    plain = pipeline("a mug", latents=noise, **options).media
    other = noise.clone()
    other[:, :, 2] += 1
    assert not torch.allclose(pipeline("a mug", latents=other, **options).media[:, :, 0],
                              plain[:, :, 0], atol=1e-4)  # fmt: skip
    same = pipeline("a mug", latents=noise[:, :, :1].expand_as(noise), **options).media
    assert not torch.allclose(same[:, :, 0], same[:, :, 1], atol=1e-4)


def test_a_known_view_stays_and_matters(pipeline):
    picture = Image.new("RGB", (32, 32), "red")
    options = {"num_inference_steps": 2, "output_type": "latent"}
    told = pipeline("a mug", generator=seeded(), image=picture, **options).media
    free = pipeline("a mug", generator=seeded(), **options).media
    known = pipeline.scaling.scale(pipeline.codec.encode([np.asarray(picture)[None]]).mean[0])
    assert torch.allclose(told[0, :, :1], known, atol=1e-5)
    assert not torch.allclose(told[:, :, 1:], free[:, :, 1:], atol=1e-3)


def test_a_known_view_comes_back_as_it_was_given(pipeline):
    given = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    (views,) = pipeline("a mug", image=Image.fromarray(given), num_inference_steps=1).media
    assert np.array_equal(views[0], given)
    assert not np.array_equal(views[1], given)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"views": 0}, "out of range"),
        ({"views": 9}, "out of range"),
        ({"width": 40}, "multiples of 16"),
        ({"views": 1, "image": Image.new("RGB", (32, 32))}, "1 pictures are known of 1"),
        ({"image": Image.new("RGB", (16, 32))}, "16x32 pixels"),
        ({"output_type": "pil"}, "allowed: np, latent"),
    ],
)
def test_what_cannot_be_made_is_refused(pipeline, options, reason):
    with pytest.raises(LuminaError, match=reason):
        pipeline("a mug", num_inference_steps=1, **options)


def test_the_command_writes_a_sheet_and_each_view_with_their_record(folder, tmp_path):
    path, again, turning = (tmp_path / name for name in ("a.png", "b.png", "a.gif"))
    photo = tmp_path / "photo.png"
    Image.new("RGB", (40, 40), "red").save(photo)
    words = ["generate", "--model", str(folder), "a red mug", "--views", "2", "--steps", "1"]
    words += ["--image", str(photo), "--each", "--seed", "3"]
    assert main([*words, "-o", str(path)]) == 0
    record = read_record(path)
    assert (record["modality"], record["request"]["views"]) == ("multiview", 2)
    views = [Image.open(tmp_path / f"a-view-{number}.png") for number in (1, 2)]
    sheet = np.asarray(Image.open(path))
    assert np.array_equal(np.asarray(views[0]), sheet[:, :32])
    assert np.array_equal(np.asarray(views[1]), sheet[:, -32:])
    assert read_record(tmp_path / "a-view-2.png") == record
    assert main(["generate", "--from", str(path), "-o", str(again)]) == 0
    assert again.read_bytes() == path.read_bytes()
    assert main(["generate", "--from", str(path), "-o", str(turning), "--force"]) == 0
    with Image.open(turning) as gif:
        assert (gif.n_frames, gif.size, gif.info["duration"]) == (2, (32, 32), 250)
    assert read_record(turning)["request"] == record["request"]


@pytest.mark.parametrize("flags", [[], ["-o", "."], ["-o", ".", "--force"]])
def test_files_beside_a_result_replace_none_of_that_name(folder, tmp_path, monkeypatch, flags):
    monkeypatch.chdir(tmp_path)
    other = tmp_path / "a-mug-3-view-2.png"
    other.write_bytes(b"of somebody else")
    words = ["generate", "--model", str(folder), "a mug", "--views", "2", "--steps", "1"]
    assert main([*words, "--seed", "3", "--each", *flags]) == 0
    made = {path.name for path in tmp_path.iterdir()} - {other.name}
    assert made == {f"a-mug-3-2{part}.png" for part in ("", "-view-1", "-view-2")}
    assert other.read_bytes() == b"of somebody else"


def test_a_result_is_written_before_what_is_beside_it(folder, tmp_path, capsys):
    words = ["generate", "--model", str(folder), "a mug", "--views", "2", "--steps", "1"]
    assert main([*words, "--each", "-o", str(tmp_path / "a.png")]) == 0
    names = [Path(line).name for line in capsys.readouterr().out.splitlines()]
    assert names == ["a.png", "a-view-1.png", "a-view-2.png"]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["a mug", "--views", "9"], "out of range"),
        (["a mug", "--views", "0"], "out of range"),
        (["a mug", "--image", "missing.png"], "cannot read"),
        (["a mug", "--image", "sound.wav"], "is not a picture"),
        (["a mug", "--image", "photo.png", "--views", "1"], "nothing is left"),
        (["a mug", "--size", "40x40"], "not a multiple"),
        (["a mug", "--seconds", "3"], "has no meaning"),
        (["a mug", "-o", "x.mp4"], "does not end in"),
        (["a mug", "--each", "--views", "2", "-o", "x.gif"], "x-view-2.png exists"),
        (["a mug", "--each", "--grid", "--images", "2"], "does not fit into one picture"),
        (["a mug", "--each", "--vary", "steps=1,2"], "does not fit into one picture"),
        (["a mug", "--images", "2", "-o", "x.gif"], "hint: name a folder"),
        (["a mug", "--images", "2", "-o", "y.png"], "hint: --grid puts"),
    ],
)
def test_the_command_refuses_what_views_cannot_be(
    folder, tmp_path, monkeypatch, capsys, words, reason
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sound.wav").write_bytes(b"RIFF\x00\x00\x00\x00WAVE")
    for name in ("photo.png", "x-view-2.png"):
        Image.new("RGB", (32, 32)).save(name)
    there = sorted(tmp_path.iterdir())
    assert main(["generate", *words, "--model", str(folder)]) == 1
    assert reason in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == there
