"""Autoencoders of which it is known what they make, and tiny models of media."""

import json

import pytest
import torch
from diffusers import AutoencoderKL
from torch import nn

import lumina
from lumina import NextDiT
from lumina.checkpoints.folder import MADE_BY
from lumina.modalities.points import MODALITY as POINTS
from lumina.pipelines.point_cloud import LuminaPointCloudPipeline


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
    folder = tmp_path_factory.mktemp("media") / "points"
    network = _network(**POINTS.network(folder, ()))
    LuminaPointCloudPipeline(network, **tiny_parts | {"vae": None}).save_pretrained(folder)
    _tell_world(folder, "solids")
    return folder


def _network(**settings):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = NextDiT(
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


def _tell_world(folder, world):
    """Leave the record of a run that was trained on a world."""
    data = [{"kind": "world", "world": world, "settings": {}}]
    (folder / MADE_BY).write_text(json.dumps({"recipe": {"data": data}}))
