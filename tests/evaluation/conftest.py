"""Autoencoders of which it is known what they make."""

import pytest
import torch
from diffusers import AutoencoderKL
from torch import nn


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
