"""Pictures, through an image autoencoder of diffusers."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from lumina.backbones.flag_dit import FlagDiT
from lumina.checkpoints.folder import read_config
from lumina.modalities import Latents, Modality, Scaling
from lumina.nn.attention import proportional_scale
from lumina.nn.extrapolation import UNSCALED, RopeScaling

PIXELS = 1 << 19
"""Pixels that are encoded or decoded at a time, at least a picture."""


class ImageCodec:
    """Pictures and their latents.

    Args:
        vae: An `AutoencoderKL`. Any, since diffusers says of results that they may be tuples.
    """

    def __init__(self, vae: Any):
        self.vae = vae

    @torch.no_grad()
    def encode(self, media: Sequence[UInt8[np.ndarray, "height width 3"]]) -> Latents:
        """Latents of pictures of one size."""
        rows, cols, _ = media[0].shape
        parts = []
        count = max(1, PIXELS // (rows * cols))
        for start in range(0, len(media), count):
            with as_precise(self.vae):
                pixels = to_pixels(media[start : start + count])
                found = self.vae.encode(pixels.to(place_of(self.vae), self.vae.dtype)).latent_dist
            parts.append((found.mean.float(), found.std.float()))
        means, spreads = zip(*parts, strict=True)
        return Latents(torch.cat(means), torch.cat(spreads))

    @torch.no_grad()
    def decode(
        self, latents: Float[Tensor, "b c rows cols"]
    ) -> list[UInt8[np.ndarray, "height width 3"]]:
        """Pictures from latents."""
        pictures = []
        for part in latents.split(max(1, PIXELS // (64 * latents[0, 0].numel()))):
            with as_precise(self.vae):
                pixels = self.vae.decode(part.to(self.vae.dtype), return_dict=False)[0]
            pictures += list(to_bytes(pixels))
        return pictures


class ImageModality(Modality):
    """Pictures of any size."""

    needs_autoencoder = True

    def open(self, autoencoder: Path, device: torch.device) -> ImageCodec:
        """Load the autoencoder."""
        vae: Any = AutoencoderKL.from_pretrained(autoencoder, torch_dtype=torch.float32)
        return ImageCodec(vae.eval().to(device))

    def scaling(self, autoencoder: Path) -> Scaling:
        """What the autoencoder's settings say."""
        return scaling_of(read_config(autoencoder))

    def network(self, autoencoder: Path, size: Sequence[int]) -> dict[str, Any]:
        """Latents of the channels of the autoencoder, about as large as a square of that area."""
        side = round((size[0] * size[1]) ** 0.5) // latent_factor(read_config(autoencoder))
        return {"sample_size": side, "in_channels": read_config(autoencoder)["latent_channels"]}

    def grid(self, autoencoder: Path, size: Sequence[int]) -> tuple[int, ...]:
        """Rows and columns."""
        factor = latent_factor(read_config(autoencoder))
        return size[1] // factor, size[0] // factor

    def enter(
        self,
        x: Float[Tensor, "b c rows cols"] | list[Tensor],
        times: Float[Tensor, " b"],
        hints: None = None,
    ) -> Float[Tensor, "b c rows cols"] | list[Tensor]:
        """The latents alone."""
        return x

    def positions(self, network: Any, x: Any) -> dict[str, Any]:
        """As the pipeline scales positions and attention at a size, or at each one of a list.

        Those of classes are as they are.
        """
        if network.config["num_classes"] is not None:
            return {}
        if isinstance(network, FlagDiT):
            return {"rope": UNSCALED}
        side, patch = network.config["sample_size"], network.config["patch_size"]
        base = (side // patch) ** 2
        if isinstance(x, list):
            areas = [one[0].numel() for one in x]
            # A base of the network would scale all of them as the largest.
            return {
                "rope": [
                    RopeScaling(
                        linear=area**0.5 / side,
                        attention=proportional_scale(1, tokens=area // patch**2, base=base),
                    )
                    for area in areas
                ]
            }
        return {
            "rope": RopeScaling(linear=x[0, 0].numel() ** 0.5 / side),
            "cross_attention_kwargs": {"base_sequence_length": base},
        }

    def show(
        self, medium: UInt8[np.ndarray, "height width 3"], *, small: bool = True
    ) -> Image.Image:
        """The picture itself."""
        return Image.fromarray(medium)


MODALITY = ImageModality()


def to_pixels(pictures: Sequence[UInt8[np.ndarray, "height width 3"]]) -> Float[Tensor, "b 3 h w"]:
    """RGB bytes as values in [-1, 1]."""
    stacked = torch.from_numpy(np.stack(pictures))
    return stacked.permute(0, 3, 1, 2).float() / 127.5 - 1


def to_bytes(pixels: Float[Tensor, "b 3 h w"]) -> UInt8[np.ndarray, "b h w 3"]:
    """Values in [-1, 1] as RGB bytes."""
    bounded = (pixels.float().clamp(-1, 1) + 1) * 127.5
    return bounded.round().byte().permute(0, 2, 3, 1).cpu().numpy()


def latent_factor(config: dict[str, Any]) -> int:
    """Pixels of a side of a latent, by the settings of an autoencoder."""
    return 2 ** (len(config["block_out_channels"]) - 1)


def scaling_of(config: Any) -> Scaling:
    """What the settings of an autoencoder say."""
    return Scaling(config.get("shift_factor") or 0.0, config.get("scaling_factor") or 1.0)


def place_of(vae: Any) -> torch.device:
    """Where a VAE computes. Offloaded ones are elsewhere until they are called."""
    return getattr(getattr(vae, "_hf_hook", None), "execution_device", None) or vae.device


@contextmanager
def as_precise(vae: Any) -> Iterator[None]:
    """Have a VAE compute in float32 where its config says that float16 overflows, as SDXL's."""
    dtype = vae.dtype
    upcasts = dtype == torch.float16 and vae.config.get("force_upcast", False)
    if upcasts:
        vae.to(torch.float32)
    try:
        yield
    finally:
        if upcasts:
            vae.to(dtype)
