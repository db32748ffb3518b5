"""Training of the image autoencoder on drawings."""

from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from diffusers import AutoencoderKL
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from lumina.modalities.image import to_pixels
from lumina.training.recipes import AutoencoderRecipe
from lumina.training.sharding import ALONE, Share
from lumina.worlds.drawings import PALETTE, fit, sprite
from lumina.worlds.vocabulary import choose_things

DETAIL_WEIGHT = 10.0  # of the squared error, beside the absolute error
SMALLEST_THING = 20  # pixels of the longer side
LARGEST_THING = 150
QUIET = -20.0  # log variance of the exported posterior: a sample is its mean


class Crops(NamedTuple):
    """Pictures in [-1, 1]."""

    pixels: Float[Tensor, "b 3 side side"]


class AutoencoderObjective:
    """Reconstruct crops of drawings from noisy, evenly spread, smooth latents.

    Smooth means that averaging latents over 2x2 cells gives what decodes to the picture at half
    size. Source: Kouzelis et al., "EQ-VAE", arXiv:2502.09509.
    """

    def __init__(self, recipe: AutoencoderRecipe):
        self.recipe = recipe
        levels = len(recipe.channels)
        # Any, since diffusers says "tuple of one" for tuples of any length, and says of results
        # that they may be tuples.
        self.module: Any = cast(Any, AutoencoderKL)(
            block_out_channels=recipe.channels,
            down_block_types=["DownEncoderBlock2D"] * levels,
            up_block_types=["UpDecoderBlock2D"] * levels,
            layers_per_block=1,
            latent_channels=recipe.latent_channels,
            norm_num_groups=recipe.groups,
            mid_block_add_attention=False,
            sample_size=128,
            scaling_factor=1.0,
            force_upcast=False,
        )
        self.things, self.others = choose_things()
        if recipe.start_from:
            start = AutoencoderKL.from_pretrained(recipe.start_from)
            self.module.load_state_dict(start.state_dict())
            if not recipe.decoder_only:
                fold_main_axes(self.module, self._some_pixels(), whiten=True)
        else:
            for name, weight in self.module.named_parameters():
                if name.endswith("conv2.weight"):
                    nn.init.zeros_(weight)  # every residual block starts as its shortcut
        if recipe.decoder_only:
            for part in (self.module.encoder, self.module.quant_conv):
                part.requires_grad_(False)
        # A fixed draw of drawings outside the vocabulary, for the preview only.
        self.unseen = self.others[:: max(1, len(self.others) // 16)][:16]

    def batch(self, number: int, share: Share = ALONE) -> Crops:
        """Random crops of scenes, every pixel of them near a drawing."""
        rng = np.random.default_rng((self.recipe.seed, 1, number))
        crops = [self._crop(rng) for _ in range(self.recipe.batch_size)]
        return share.take(Crops(to_pixels(crops)))

    def loss(self, batch: Crops, step: int) -> tuple[Tensor, dict[str, float]]:
        """Error of the reconstruction, with the latents kept spread and smooth."""
        recipe, pixels = self.recipe, batch.pixels
        generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
        latents = self.module.encode(pixels).latent_dist.mean
        noise = torch.randn(latents.shape, generator=generator).to(latents)
        noisy = latents + recipe.latent_noise * latents.std().detach() * noise
        output = self.module.decode(noisy).sample
        loss, figures = _error(output, pixels), {"psnr": _psnr(output, pixels)}
        if recipe.spread_weight:
            spread = spread_error(latents)
            loss = loss + recipe.spread_weight * spread
            figures["spread"] = spread.item()
        if recipe.smoothness:
            half = self.module.decode(F.avg_pool2d(noisy, 2)).sample
            smooth = _error(half, F.avg_pool2d(pixels, 2))
            loss = loss + recipe.smoothness * smooth
            figures["smooth"] = smooth.item()
        return loss, figures

    def to(self, device: torch.device) -> None:
        """Move the weights, and what else the loss needs."""
        cast(Any, self.module).to(device)

    def validate(self) -> dict[str, float]:
        """Nothing: the previews show how far the run is."""
        return {}

    @torch.no_grad()
    def preview(self, folder: Path, step: int) -> None:
        """Unseen drawings above what comes back, with the error in the file name."""
        device = next(self.module.parameters()).device
        pixels = to_pixels([_whole(emoji, 128) for emoji in self.unseen]).to(device)
        output = self.module.decode(self.module.encode(pixels).latent_dist.mean).sample.clamp(-1, 1)
        rows = torch.cat([torch.cat(list(half), -1) for half in (pixels, output)], -2)
        picture = ((rows + 1) * 127.5).round().byte().permute(1, 2, 0).cpu().numpy()
        name = f"step-{step:06d}-{_psnr(output, pixels):.2f}dB.png"
        Image.fromarray(picture).save(folder / name)

    @torch.no_grad()
    def export(self, folder: Path) -> None:
        """Write the autoencoder with its latents turned onto their main axes.

        The last latent channel then holds the least, which suits samplers that guide only the
        first three. The turn and a common scale are folded into the two 1x1 convolutions.
        """
        if not self.recipe.decoder_only:
            fold_main_axes(self.module, self._some_pixels())
        self.module.save_pretrained(folder)

    def _some_pixels(self) -> Tensor:
        batches = -(-128 // self.recipe.batch_size)
        fresh = range(self.recipe.steps, self.recipe.steps + batches)
        pixels = torch.cat([self.batch(step).pixels for step in fresh])
        return pixels.to(next(self.module.parameters()).device)

    def _crop(self, rng: np.random.Generator) -> np.ndarray:
        side = self.recipe.crop
        if rng.random() < 0.7:
            color = list(PALETTE.values())[rng.integers(len(PALETTE))]
        else:
            color = tuple(int(level) for level in rng.integers(0, 256, 3))
        canvas = Image.new("RGB", (side, side), color)
        for _ in range(1 + (rng.random() < 0.3)):
            extent = np.exp(rng.uniform(np.log(SMALLEST_THING), np.log(LARGEST_THING)))
            drawing = fit(sprite(self.things[rng.integers(len(self.things))]), round(extent))
            if rng.random() < 0.5:
                drawing = drawing.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            reach = (np.array(drawing.size) + side) / 2 - 0.4 * np.minimum(drawing.size, side)
            offset = side / 2 + rng.uniform(-reach, reach) - np.array(drawing.size) / 2
            left, top = (int(v) for v in offset.round())
            canvas.paste(drawing, (left, top), drawing)
        crop = np.asarray(canvas)
        return crop[..., rng.permutation(3)] if rng.random() < 0.25 else crop


@torch.no_grad()
def fold_main_axes(
    module: nn.Module, data: Float[Tensor, "b c *grid"], *, whiten: bool = False
) -> None:
    """Turn and scale the latents of an autoencoder: decorrelated, zero mean, unit spread.

    Args:
        module: The autoencoder, an AutoencoderKL or one for other data with the same two
            convolutions of one cell; what it decodes stays the same.
        data: Pictures or other data to measure latents on.
        whiten: Give every channel unit spread, rather than all of them together.
    """
    autoencoder = cast(Any, module)  # which layers and results it has, torch does not know
    latents = torch.cat([autoencoder.encode(part).latent_dist.mean for part in data.split(16)])
    channels = latents.shape[1]
    flat = latents.transpose(0, 1).flatten(1).double()
    mean = flat.mean(1)
    variances, axes = torch.linalg.eigh(torch.cov(flat))
    variances, axes = variances.flip(0), axes.flip(1)  # the widest first
    scales = (variances if whiten else variances.mean().expand(channels)).sqrt()
    turn = axes.T / scales[:, None]
    encode, decode = autoencoder.quant_conv, autoencoder.post_quant_conv
    rows = encode.weight[:channels].flatten(1)  # a view, as the kernel is of one cell
    weight, bias = rows.double(), encode.bias[:channels].double()
    rows.copy_(turn @ weight)
    encode.bias[:channels] = (turn @ (bias - mean)).float()
    encode.weight[channels:] = 0.0
    encode.bias[channels:] = QUIET
    rows = decode.weight.flatten(1)
    back = rows.double()
    decode.bias += (back @ mean).float()
    rows.copy_(back @ (axes * scales))


def spread_error(latents: Float[Tensor, "b c *grid"]) -> Float[Tensor, ""]:
    """Distance of the channels from zero mean, unit spread and no correlation.

    Without the correlation, channels copy each other and one of four ends up empty.
    """
    flat = latents.transpose(0, 1).flatten(1)
    excess = torch.cov(flat) - torch.eye(len(flat), device=flat.device)
    return excess.square().mean() + flat.mean(1).square().mean()


def _error(output: Tensor, pixels: Tensor) -> Tensor:
    difference = output - pixels
    return DETAIL_WEIGHT * difference.square().mean() + difference.abs().mean()


def _psnr(output: Tensor, pixels: Tensor) -> float:
    """Decibels for values in [-1, 1]."""
    return 10 * float(np.log10(4 / (output - pixels).square().mean().item()))


def _whole(emoji: str, side: int) -> np.ndarray:
    canvas = Image.new("RGB", (side, side), "white")
    drawing = fit(sprite(emoji), round(0.8 * side))
    canvas.paste(drawing, ((side - drawing.width) // 2, (side - drawing.height) // 2), drawing)
    return np.asarray(canvas)
