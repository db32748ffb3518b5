"""Pictures and masks that come in: brought to a size, turned into latents, and put back."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from diffusers.image_processor import VaeImageProcessor
from jaxtyping import Float
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn import functional

from lumina.errors import LuminaError
from lumina.modalities.image import as_precise, place_of, scaling_of
from lumina.requests import SIZE_MULTIPLE, nearest_size
from lumina.types import Size, Velocity, VelocityAt

Picture = Image.Image | np.ndarray | Tensor
"""One picture: of Pillow, or values in [0, 1] as (height, width, 3) or, in a tensor, (3, height,
width)."""

Pictures = Picture | Sequence[Picture]
"""One picture, or several; an array or tensor of four axes is several."""

WHITE = 0.5
"""From this gray on, a mask is white."""

_KNOWN_LEAST = 1e-6  # share of known pixels below which a cell knows nothing


def pair_up(
    prompt: str | Sequence[str], **others: str | Pictures | Sequence[str]
) -> tuple[list[str], list[list[Any]]]:
    """Prompts and what belongs to them as lists of one length; what is there once serves for all.

    Args:
        prompt: One text, or several.
        others: By name: one picture or text, or several.

    Returns:
        Prompts, and a list of what was given by each name, in that order.

    Raises:
        LuminaError: If there are neither equally many nor one.
    """
    lists: dict[str, list[Any]] = {
        name: _listed(some) for name, some in {"prompt": prompt, **others}.items()
    }
    most = max(len(some) for some in lists.values())
    wrong = [
        f"{len(some)} for {name}" for name, some in lists.items() if len(some) not in (1, most)
    ]
    if wrong:
        raise LuminaError(
            f"there are {most} pictures to make, but {' and '.join(wrong)}",
            hint="give one of each, or equally many",
        )
    prompts, *rest = [some * (most // len(some)) for some in lists.values()]
    return prompts, rest


def size_of(picture: Picture) -> Size:
    """Width and height in pixels, as it is seen."""
    if isinstance(picture, Image.Image):
        return Size(*ImageOps.exif_transpose(picture).size)
    height, width = picture.shape[:2] if isinstance(picture, np.ndarray) else picture.shape[-2:]
    return Size(width, height)


def choose_size(picture: Picture, *, width: int | None, height: int | None) -> Size:
    """The size to work at: what was given, else that of the picture.

    Raises:
        LuminaError: If neither is given and the picture's does not divide into patches.
    """
    own = size_of(picture)
    size = Size(width or own.width, height or own.height)
    fits = Size(*nearest_size(*size))
    if size != fits:
        raise LuminaError(
            f"the picture is to be {size.width}x{size.height} pixels, and sides have to be"
            f" multiples of {SIZE_MULTIPLE}",
            hint=f"give width={fits.width} and height={fits.height}",
        )
    return size


def as_pixels(pictures: Sequence[Picture], size: Size) -> Float[Tensor, "b 3 height width"]:
    """Pictures at one size, as values from -1 to 1. What is transparent turns white."""
    processor = VaeImageProcessor(vae_scale_factor=1)
    return torch.cat(
        [
            processor.preprocess(_as_rgb(picture), height=size.height, width=size.width)
            for picture in pictures
        ]
    )


def as_mask(mask: Picture) -> Float[Tensor, "1 1 height width"]:
    """A mask as zeros, and ones where it is white. Gray is white from 128 of 255 on.

    Raises:
        LuminaError: If nothing is white.
    """
    gray = _on_black(mask) if isinstance(mask, Image.Image) else mask
    if not isinstance(gray, Image.Image) and gray.ndim == 2:
        gray = gray[None] if isinstance(gray, Tensor) else gray[..., None]
    values = VaeImageProcessor(vae_scale_factor=1, do_normalize=False).preprocess(gray)
    white = (values.mean(1, keepdim=True) >= WHITE).float()
    if not white.any():
        raise LuminaError(
            "nothing of the mask is white", hint="white is repainted, and black is kept"
        )
    return white


def to_pil(pixels: Float[Tensor, "b 3 height width"]) -> list[Image.Image]:
    """Values from -1 to 1 as pictures."""
    pictures: Any = VaeImageProcessor().postprocess(pixels, output_type="pil")
    return pictures


def encode_pixels(vae: Any, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c rows cols"]:
    """Latents of pictures as a network sees them: their means, scaled.

    Args:
        vae: An `AutoencoderKL`.
        pixels: Values from -1 to 1.
    """
    with as_precise(vae):
        pixels = pixels.to(place_of(vae), vae.dtype)
        return scaling_of(vae.config).scale(vae.encode(pixels).latent_dist.mode().float())


def in_float32(velocity_at: VelocityAt, dtype: torch.dtype) -> VelocityAt:
    """Velocities for a state in float32 out of those that a network computes in its own dtype."""

    def at(time: float) -> Velocity:
        velocity = velocity_at(time)
        return lambda x, t: velocity(x.to(dtype), t).float()

    return at


def check_strength(strength: float) -> None:
    """Refuse a share of the way that does not lie in (0, 1].

    Raises:
        LuminaError: If it does not.
    """
    if not 0 < strength <= 1:
        raise LuminaError(
            f"the strength is {strength}, which is out of range", hint="allowed: above 0, up to 1"
        )


def refuse_step_cache(transformer: Any, task: str) -> None:
    """Refuse caches that guess a step from the one before, where steps do not follow each other.

    Raises:
        LuminaError: If one is on.
    """
    if getattr(transformer, "is_cache_enabled", False):
        raise LuminaError(
            f"{task} asks for velocities in an order that step caches do not expect",
            hint="call pipeline.transformer.disable_cache() first",
        )


def refuse_noise(scheduler: Any, task: str) -> None:
    """Refuse solvers that add noise, where a task goes by the noise of the beginning.

    Raises:
        LuminaError: If the scheduler has one.
    """
    if getattr(scheduler, "is_stochastic", False):
        raise LuminaError(
            f"{task} goes by the noise that a sample began with, and the solver"
            f" {scheduler.config['solver']} adds other noise on the way",
            hint="give the pipeline another scheduler",
        )


def dilate(mask: Float[Tensor, "b 1 h w"], pixels: int) -> Float[Tensor, "b 1 h w"]:
    """Let what is white grow in all directions."""
    return functional.max_pool2d(mask, 2 * pixels + 1, stride=1, padding=pixels)


def soften(mask: Float[Tensor, "b 1 h w"], border: int) -> Float[Tensor, "b 1 h w"]:
    """A mask that is 1 where it was, and falls to 0 over a border around that."""
    reach = border // 2
    padded = functional.pad(dilate(mask, reach), (reach,) * 4, mode="replicate")
    return functional.avg_pool2d(padded, 2 * reach + 1, stride=1)


def fill_hole(
    pixels: Float[Tensor, "b 3 h w"], mask: Float[Tensor, "b 1 h w"]
) -> Float[Tensor, "b 3 h w"]:
    """Carry colors from around a mask into it, the farther the smoother.

    An autoencoder sees across the mask, so what is to go would still show in latents around it.

    Args:
        pixels: Values of any range.
        mask: Ones where pixels are not known.

    Source:
        The pull-push algorithm of Gortler et al., "The Lumigraph" (1996).
    """
    return _pull_push(pixels, 1 - mask)


def _pull_push(pixels: Tensor, known: Tensor) -> Tensor:
    if min(pixels.shape[-2:]) < 2 or bool((known > 0).all()):
        return pixels
    share = functional.avg_pool2d(known, 2, ceil_mode=True)
    means = functional.avg_pool2d(pixels * known, 2, ceil_mode=True) / share.clamp(min=_KNOWN_LEAST)
    coarse = _pull_push(means, (share > 0).to(share))
    around = functional.interpolate(
        coarse, size=pixels.shape[-2:], mode="bilinear", align_corners=False
    )
    return torch.where(known > 0, pixels, around)


def _listed(some: Any) -> list[Any]:
    """One text or picture as a list of one, and several as a list."""
    if isinstance(some, str | Image.Image):
        return [some]
    if isinstance(some, np.ndarray | Tensor):
        return list(some) if some.ndim == 4 else [some]
    return list(some)


def _on_black(mask: Image.Image) -> Image.Image:
    """A mask in grays, upright. What is transparent is not white."""
    upright = ImageOps.exif_transpose(mask)
    if not upright.has_transparency_data:
        return upright.convert("L")
    seen = upright.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", seen.size, "black"), seen).convert("L")


def _as_rgb(picture: Picture) -> Picture:
    if not isinstance(picture, Image.Image):
        return picture
    upright = ImageOps.exif_transpose(picture)
    if not upright.has_transparency_data:
        return upright.convert("RGB")
    seen = upright.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen).convert("RGB")
