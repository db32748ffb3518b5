"""Autoencoders of which it is known what they make, and tiny models of media."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL
from torch import nn

import lumina
from lumina import FlagDiT, NextDiT
from lumina.checkpoints.folder import MADE_BY
from lumina.evaluation import clouds
from lumina.modalities import find_modality
from lumina.modalities.sound.autoencoder import MelAutoencoder
from lumina.modalities.sound.spectral import SpectralVocoder
from lumina.pipelines.audio import LuminaAudioPipeline
from lumina.pipelines.multi_view import LuminaMultiViewPipeline
from lumina.pipelines.point_cloud import LuminaPointCloudPipeline
from lumina.pipelines.speech import LuminaSpeechPipeline
from lumina.pipelines.video import LuminaVideoPipeline
from lumina.spelling import VOICES


@pytest.fixture
def identity_vae():
    """An autoencoder that returns what it is given, but for samples of its posterior.

    What normalizes is taken out, and every convolution passes its input on.
    """
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",),
        up_block_types=("UpDecoderBlock2D",),
        block_out_channels=(3,),
        layers_per_block=1,
        norm_num_groups=1,
        latent_channels=3,
        mid_block_add_attention=False,
    )
    for part in (vae.encoder, vae.decoder):
        part.conv_norm_out = part.conv_act = nn.Identity()
    with torch.no_grad():
        for name, weight in vae.named_parameters():
            if weight.ndim == 4 and "conv2" not in name:
                nn.init.dirac_(weight)
            else:
                nn.init.zeros_(weight)
    return vae.eval()


@pytest.fixture(scope="session")
def tiny_parts(tiny_folder):
    """A scheduler, a VAE, a text encoder and a tokenizer."""
    pipeline = lumina.load(tiny_folder, device="cpu", dtype="float32")
    return {name: part for name, part in pipeline.components.items() if name != "transformer"}


@pytest.fixture(scope="session")
def points_folder(tiny_parts, tmp_path_factory):
    """A random model of point clouds. Not to be changed."""
    network = _network(NextDiT, find_modality("points").network(Path(), ()))
    pipeline = LuminaPointCloudPipeline(network, **tiny_parts | {"vae": None})
    return _save(pipeline, tmp_path_factory, "solids")


@pytest.fixture(scope="session")
def video_folder(tiny_parts, tiny_folder, tmp_path_factory):
    """A random model of clips of four frames. Not to be changed."""
    size = (32, 32, 4)
    settings = find_modality("video").network(tiny_folder / "vae", size)
    del settings["has_frame_token"]  # of a Flag-DiT
    network = _network(NextDiT, settings)
    pipeline = LuminaVideoPipeline(network, **tiny_parts, usual_size="32x32x4")
    return _save(pipeline, tmp_path_factory, "motion")


@pytest.fixture(scope="session")
def sound_folders(tiny_parts, tmp_path_factory):
    """Random models of sounds and of music, of 64 frames. Not to be changed."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vae = MelAutoencoder(latent_channels=4, width=8, multipliers=(1, 2), blocks=1, groups=4)
        vocoder = SpectralVocoder(width=16, depth=1, inner_width=16)
    network = _network(
        FlagDiT,
        {"patch_size": 1, "in_channels": 4, "learn_sigma": False, "has_line_token": False},
    )
    parts = tiny_parts | {"vae": vae, "vocoder": vocoder}
    pipeline = LuminaAudioPipeline(network, **parts, usual_size="64")
    return {world: _save(pipeline, tmp_path_factory, world) for world in ("sounds", "music")}


@pytest.fixture(scope="session")
def views_folder(tiny_parts, tiny_folder, tmp_path_factory):
    """A random model of three views of items. Not to be changed."""
    settings = find_modality("multiview").network(tiny_folder / "vae", (32, 32, 3))
    del settings["has_frame_token"]  # of a Flag-DiT
    network = _network(NextDiT, settings)
    pipeline = LuminaMultiViewPipeline(network, **tiny_parts, usual_size="32x32x3")
    return _save(pipeline, tmp_path_factory, "items")


@pytest.fixture(scope="session")
def speech_folder(tiny_parts, tmp_path_factory):
    """A random model of speech. Not to be changed."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vocoder = SpectralVocoder(width=16, depth=1, inner_width=16)
    settings = find_modality("speech").network(Path(), (64,)) | {"num_classes": len(VOICES)}
    pipeline = LuminaSpeechPipeline(_network(FlagDiT, settings), tiny_parts["scheduler"], vocoder)
    return _save(pipeline, tmp_path_factory, "speech")


def _network(kind, settings):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = kind(
            hidden_size=24,
            num_layers=1,
            num_attention_heads=3,
            num_kv_heads=1,
            multiple_of=16,
            cross_attention_dim=16,
            **settings,
        )
        for parameter in network.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.3)
    return network


def _save(pipeline, tmp_path_factory, world):
    """A folder with a pipeline, and the record of a run that was trained on a world."""
    folder = tmp_path_factory.mktemp("media") / world
    pipeline.save_pretrained(folder)
    data = [{"kind": "world", "world": world, "settings": {}}]
    (folder / MADE_BY).write_text(json.dumps({"recipe": {"data": data}}))
    return folder


@pytest.fixture
def few_clouds(monkeypatch):
    """Two clouds a side, of 256 points."""
    pytest.importorskip("trimesh")
    monkeypatch.setattr(clouds, "SIDE", 2)
    monkeypatch.setattr(clouds, "QUICK", {256: 2})
    clouds._true_clouds.cache_clear()
    yield
    clouds._true_clouds.cache_clear()
