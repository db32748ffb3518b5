"""Files of sound and music as they were released, from prompts to waveforms."""

import shutil

import numpy as np
import pytest
import torch
import yaml
from transformers import BertConfig, BertModel, T5Config, T5EncoderModel

import lumina
from lumina import FlagDiT, LuminaError, OriginalAudioPipeline
from lumina.catalog import find
from lumina.checkpoints.keys import original_names, to_original
from lumina.cli import main
from lumina.encoders.audio_text import ClapTextEncoder
from lumina.modalities.sound.autoencoder import MelAutoencoder
from lumina.modalities.sound.vocoder import BigVGAN

WIDTH = 64  # of the features of texts
VOCODER = {
    "num_mels": 8,
    "upsample_initial_channel": 8,
    "upsample_rates": [16, 16],
    "upsample_kernel_sizes": [32, 32],
    "resblock_kernel_sizes": [3],
    "resblock_dilation_sizes": [[1]],
    "snake_logscale": True,
}
BERT = {"vocab_size": 300, "hidden_size": 64, "num_hidden_layers": 1, "intermediate_size": 32}


def randomised(module):
    with torch.no_grad():
        for weight in module.parameters():
            weight.normal_(std=0.1)
    return module


def write_release(folder, tokenizer, *, of_sound):
    """A checkpoint of random weights under the names of the release, and what lies beside it."""
    torch.manual_seed(0)
    network = randomised(
        FlagDiT(
            in_channels=4,
            patch_size=1,
            hidden_size=32,
            num_layers=2,
            num_attention_heads=4,
            multiple_of=16,
            cross_attention_dim=WIDTH,
            learn_sigma=False,
            has_line_token=False,
            qk_norm=False,
        )
    )
    vae = randomised(MelAutoencoder(in_channels=8, latent_channels=4, width=32, multipliers=(1, 2)))
    names = original_names({name: w.shape for name, w in network.state_dict().items()})
    weights = to_original(network.state_dict(), names)
    weights = {f"model.diffusion_model.{name}": weight for name, weight in weights.items()}
    weights |= {f"first_stage_model.{name}": w for name, w in vae.state_dict().items()}
    for name in ("maa2", "bigvnat"):
        (folder / name).mkdir(parents=True)
    torch.save({"state_dict": weights}, folder / "maa2" / "maa2.ckpt")
    vocoder = randomised(BigVGAN(**VOCODER)).state_dict()
    torch.save({"generator": with_weight_norm(vocoder)}, folder / "bigvnat" / "best_netG.pt")
    (folder / "bigvnat" / "args.yml").write_text(yaml.safe_dump(VOCODER))
    t5 = T5Config(vocab_size=300, d_model=WIDTH, d_ff=32, d_kv=8, num_layers=1, num_heads=2)
    randomised(T5EncoderModel(t5)).save_pretrained(folder / "text_encoder")
    tokenizer.save_pretrained(folder / "text_encoder")
    if of_sound:
        (folder / "CLAP").mkdir()
        clap = randomised(ClapTextEncoder(bert=BERT | {"num_attention_heads": 1}, out_width=WIDTH))
        weights = {f"caption_encoder.{name}": w for name, w in clap.state_dict().items()}
        weights["audio_encoder.base.weight"] = torch.ones(2)
        weights["caption_encoder.base.embeddings.position_ids"] = torch.arange(4)[None]
        torch.save({"model": weights}, folder / "CLAP" / "CLAP_weights_2022.pth")
        BertModel(BertConfig(**BERT, num_attention_heads=1)).config.save_pretrained(
            folder / "clap_tokenizer"
        )
        tokenizer.save_pretrained(folder / "clap_tokenizer")
    return folder


def with_weight_norm(weights):
    split = {}
    for name, weight in weights.items():
        if weight.ndim == 3:
            split[f"{name}_v"] = weight
            split[f"{name}_g"] = weight.flatten(1).norm(dim=1).view(-1, 1, 1)
        else:
            split[name] = weight
    return split


@pytest.fixture(scope="module", params=["music", "sound"])
def release(request, tmp_path_factory, tiny_folder):
    folder = tmp_path_factory.mktemp("release") / f"{request.param}_generation"
    tokenizer = lumina.load(tiny_folder, device="cpu").tokenizer
    return write_release(folder, tokenizer, of_sound=request.param == "sound")


@pytest.fixture(scope="module")
def pipeline(release):
    pipeline = lumina.load(release, device="cpu", dtype="float32")
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_it_makes_waveforms_of_the_length_asked_for(pipeline):
    (waveform,) = pipeline("a dog", seconds=0.5, num_inference_steps=2, generator=seeded()).media
    assert waveform.shape == (8000,)
    assert np.isfinite(waveform).all()
    assert waveform.std() > 0


def test_seeds_and_guidance_have_an_effect(pipeline):
    def draw(seed=0, **named):
        named = {"num_inference_steps": 2, "output_type": "latent", "seconds": 0.5} | named
        return pipeline("a dog", generator=seeded(seed), **named).media

    assert torch.equal(draw(), draw())
    assert not torch.allclose(draw(), draw(seed=1), atol=1e-3)
    assert not torch.allclose(draw(guidance_scale=1.0), draw(guidance_scale=5.0), atol=1e-4)
    assert not torch.allclose(draw(), draw(negative_prompt="a cat"), atol=1e-5)


def test_sound_is_read_twice_and_music_once(pipeline, release):
    features, mask, away, _ = pipeline.encode_prompt(["a dog", "a cat"])
    tokens = 154 if release.name.startswith("sound") else 77
    assert features.shape == away.shape == (2, tokens, WIDTH)
    assert mask.all()


def test_its_demo_gives_the_usual_settings(release):
    checkpoint = find(release)
    is_sound = release.name.startswith("sound")
    assert checkpoint.modality == "sound"
    assert checkpoint.defaults["guidance"] == (3.0 if is_sound else 5.0)
    assert checkpoint.defaults["steps"] == (99 if is_sound else 39)
    assert len(checkpoint.fingerprint()) == 12
    assert checkpoint.footprint().parameters > 3e8


def test_what_a_release_does_not_take_is_refused(release):
    for part in ("vae", "preset"):
        with pytest.raises(LuminaError, match=f"takes no {part}"):
            lumina.load(release, **{part: "original" if part == "preset" else "sdxl"})


def test_how_texts_are_read_is_not_to_be_chosen(pipeline):
    for name, value in {"clean_caption": False, "max_sequence_length": 20}.items():
        with pytest.raises(LuminaError, match=f"{name} has no effect"):
            pipeline("a dog", seconds=0.2, num_inference_steps=1, **{name: value})


def test_its_fingerprint_does_not_depend_on_the_name_of_its_folder(release, tmp_path):
    shutil.copytree(release, tmp_path / "other")
    assert find(tmp_path / "other").fingerprint() == find(release).fingerprint()


def test_files_may_be_links_as_in_the_cache_of_the_hub(release, tmp_path):
    for number, file in enumerate(file for file in release.rglob("*") if file.is_file()):
        blob, link = (
            tmp_path / "blobs" / str(number),
            tmp_path / "links" / file.relative_to(release),
        )
        for path in (blob, link):
            path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, blob)
        link.symlink_to(blob)
    linked = find(tmp_path / "links")
    assert linked.defaults == find(release).defaults
    assert linked.fingerprint() == find(release).fingerprint()
    lumina.load(tmp_path / "links", device="cpu")


def test_the_command_plays_the_files_of_the_release(release, tmp_path):
    path = tmp_path / "dog.wav"
    words = ["generate", "--model", str(release), "a dog", "--seconds", "0.5", "--steps", "2"]
    assert main([*words, "-o", str(path)]) == 0
    assert path.stat().st_size > 16_000


def test_the_command_takes_another_text_encoder(release, tmp_path, capsys):
    path, other = tmp_path / "dog.wav", tmp_path / "t5"
    words = ["generate", "--model", str(release), "a dog", "--seconds", "0.2", "--steps", "1"]
    words += ["--text-encoder", str(other), "-o", str(path)]
    assert main(words) != 0
    assert str(other) in capsys.readouterr().err
    shutil.copytree(release / "text_encoder", other)
    assert main(words) == 0


def test_a_text_encoder_that_is_not_here_is_named(release, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    for name in ("maa2", "bigvnat"):
        shutil.copytree(release / name, tmp_path / name)
    with pytest.raises(LuminaError, match="google/flan-t5-large is not on this machine") as error:
        OriginalAudioPipeline.from_release(tmp_path)
    assert "lumina get google/flan-t5-large" in str(error.value)


def test_a_saved_pipeline_is_the_same(pipeline, release, tmp_path):
    pipeline.save_pretrained(tmp_path)
    options = {"num_inference_steps": 1, "output_type": "latent", "seconds": 0.2}
    expected = pipeline("a dog", generator=seeded(), **options).media
    loaded = lumina.load(tmp_path, device="cpu", dtype="float32")
    for again in (OriginalAudioPipeline.from_pretrained(tmp_path), loaded):
        again.set_progress_bar_config(disable=True)
        assert torch.allclose(again("a dog", generator=seeded(), **options).media, expected)
    usual = {name: find(release).defaults[name] for name in ("steps", "guidance")}
    assert usual.items() <= find(tmp_path).defaults.items()
    assert loaded.config["usual_steps"] == usual["steps"]


def test_what_suits_a_release_is_taken_where_nothing_else_is_asked_for(pipeline, release):
    usual = find(release).defaults
    pipeline("a dog", seconds=0.2, output_type="latent")
    assert pipeline.num_timesteps == usual["steps"]
    assert pipeline.guidance_scale == usual["guidance"]
