"""Sounds from data to files: trained, exported, loaded, sampled and written by the command."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import lumina
from lumina import FlagDiT, LuminaError
from lumina.cli import main
from lumina.media import read_record
from lumina.media.sound import read_sound
from lumina.modalities.sound.autoencoder import MelAutoencoder
from lumina.modalities.sound.spectral import SpectralVocoder
from lumina.pipelines.audio import load_vocoder
from lumina.training.recipes import FlowRecipe
from lumina.training.trainer import train

pytest.importorskip("soundfile")
pytestmark = pytest.mark.usefixtures("soundfont")


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sound-parts")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        MelAutoencoder(
            latent_channels=4, width=8, multipliers=(1, 2), blocks=1, groups=4
        ).save_pretrained(folder / "vae")
        SpectralVocoder(width=16, depth=1, inner_width=16).save_pretrained(folder / "vocoder")
    return folder


@pytest.fixture(scope="module")
def folder(tiny_folder, parts, tmp_path_factory):
    recipe = FlowRecipe(
        out=str(tmp_path_factory.mktemp("sound")),
        modality="sound",
        backbone="flag-dit",
        autoencoder=str(parts),
        text_encoder=str(tiny_folder),
        data=({"kind": "world", "world": "sounds", "sizes": ["32"], "examples": 4},),
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
        prompts=("a flute",),
        save_dtype="float32",
    )
    recipe.check()
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


def test_sound_is_made_by_a_sequence(pipeline):
    assert isinstance(pipeline.transformer, FlagDiT)
    assert pipeline.transformer.line_token is None


@pytest.mark.parametrize(("seconds", "samples"), [(None, 32 * 256), (0.5, 8000), (1.0, 16000)])
def test_sounds_are_as_long_as_asked_for(pipeline, seconds, samples):
    (sound,) = pipeline("a flute", seconds, num_inference_steps=1, generator=seeded()).media
    assert sound.shape == (samples,)
    assert np.abs(sound).max() <= 1


def test_sounds_do_not_depend_on_their_company(pipeline):
    both = pipeline(
        ["a flute", "a drum"], num_inference_steps=2, generator=[seeded(1), seeded(2)]
    ).media
    alone = pipeline("a drum", num_inference_steps=2, generator=seeded(2)).media
    assert np.allclose(both[1], alone[0], atol=1e-4)


def test_guidance_and_seeds_have_an_effect(pipeline):
    def draw(seed, guidance):
        options = {"num_inference_steps": 1, "guidance_scale": guidance, "output_type": "latent"}
        return pipeline("a flute", generator=seeded(seed), **options).media

    assert torch.equal(draw(1, 3.0), draw(1, 3.0))
    assert not torch.allclose(draw(1, 3.0), draw(2, 3.0))
    assert not torch.allclose(draw(1, 1.0), draw(1, 3.0))


@pytest.mark.parametrize("seconds", [0.0, 60.5, -1.0])
def test_lengths_out_of_range_are_refused(pipeline, seconds):
    with pytest.raises(LuminaError, match="out of range"):
        pipeline("a flute", seconds, num_inference_steps=1)


@pytest.mark.parametrize("ending", ["wav", "flac"])
def test_the_command_writes_sounds_with_their_record(folder, tmp_path, ending):
    path, again = tmp_path / f"sound.{ending}", tmp_path / f"again.{ending}"
    words = ["generate", "--model", str(folder), "a flute", "--seconds", "0.4", "--steps", "1"]
    assert main([*words, "--seed", "3", "--spectrogram", "-o", str(path)]) == 0
    assert read_sound(path).shape == (6400,)
    assert read_record(path)["request"]["seconds"] == 0.4
    assert Image.open(path.with_suffix(".png")).width > 640
    assert main(["generate", "--from", str(path), "-o", str(again)]) == 0
    assert np.array_equal(read_sound(again), read_sound(path))


@pytest.mark.parametrize("flags", [["--grid", "--images", "2"], ["--vary", "steps=1,2"]])
def test_a_spectrogram_beside_a_grid_is_refused(folder, tmp_path, capsys, flags):
    words = ["generate", "--model", str(folder), "a flute", "--spectrogram", *flags]
    assert main([*words, "-o", str(tmp_path)]) == 1
    assert "does not fit into one picture" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [9, 31, 1250])
def test_a_length_of_whole_frames_has_no_frame_more(pipeline, number):
    assert pipeline._frames(number * 0.016) == number


def test_a_vocoder_that_is_not_known_is_named(parts, tmp_path):
    folder = shutil.copytree(parts / "vocoder", tmp_path / "vocoder")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"_class_name": "BigVGGAN"}))
    with pytest.raises(LuminaError, match="did you mean 'BigVGAN'"):
        load_vocoder(folder, dtype=torch.float32)


def test_pictures_are_refused_where_sound_is_made(folder, tmp_path, capsys):
    words = ["generate", "--model", str(folder), "a flute", "--first", "photo.png"]
    assert main([*words, "-o", str(tmp_path / "x.wav")]) == 1
    assert "has no meaning" in capsys.readouterr().err
