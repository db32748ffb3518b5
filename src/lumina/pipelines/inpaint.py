"""Inpainting and outpainting: repaint what a mask covers, and keep the rest as it is."""

import math
from typing import Any, NamedTuple, cast

import torch
from diffusers import ImagePipelineOutput
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn import functional

from lumina.errors import LuminaError
from lumina.pipelines.pictures import (
    Picture,
    Pictures,
    as_mask,
    as_pixels,
    choose_size,
    encode_pixels,
    fill_hole,
    in_float32,
    pair_up,
    refuse_noise,
    size_of,
    soften,
)
from lumina.pipelines.text import TextPipeline
from lumina.requests import nearest_size
from lumina.types import Size, Velocity, VelocityAt

LONGEST = 2
"""Ratio of the sides of what is looked at, as far as the picture allows."""


class Window(NamedTuple):
    """A part of a picture, in pixels."""

    left: int
    top: int
    width: int
    height: int

    @property
    def place(self) -> tuple[slice, slice]:
        """Its rows and columns."""
        rows = slice(self.top, self.top + self.height)
        return rows, slice(self.left, self.left + self.width)


class LuminaInpaintPipeline(TextPipeline):
    """Repaint a part of a picture. Its parts are those of `TextPipeline`."""

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str],
        image: Pictures,
        mask_image: Pictures,
        *,
        border: int = 16,
        padding_mask_crop: int | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        output_type: str | None = "pil",
        return_dict: bool = True,
        **sampling: Any,
    ) -> ImagePipelineOutput | tuple:
        """Repaint parts of pictures.

        Args:
            prompt: What is to be seen in the part that is looked at, which is the whole picture
                unless `padding_mask_crop` says otherwise: one text, or one for each picture.
            image: What to repaint: one picture, or several of one size.
            mask_image: White where to repaint: one mask of the size of the pictures, or one for
                each. Gray is white from 128 of 255 on.
            border: Pixels around the mask over which new and old pixels are blended, 0 or more.
                Farther away, all stays as it was.
            padding_mask_crop: Look at the box around the mask and this many pixels on each side
                of it alone, enlarged to the size that the model was trained at: for small parts
                of large pictures. In a batch, the largest box says how much is looked at. None
                looks at the whole picture, which small pictures need: see
                `benchmarks/tasks_editing.py`.
            generator: The source of noise, or a list with one for each picture.
            output_type: "pil", "np", "pt", or "latent" for what the VAE would decode: of the part
                that is looked at, and with what is kept as the VAE sees it.
            return_dict: Return an object with `images`, else a tuple with them.
            sampling: All other settings, which are the fields of `Sampling`.

        Raises:
            LuminaError: If pictures and masks differ in size or number, nothing of a mask is
                white, the whole picture is looked at and a side is no multiple of 16, or the
                solver adds noise.
        """
        if border < 0:
            raise LuminaError(f"the border is {border} pixels", hint="allowed: 0 and above")
        refuse_noise(self.scheduler, "inpainting")
        settings = self._settings(sampling)
        prompts, (pictures, masks) = pair_up(prompt, image=image, mask_image=mask_image)
        whole = _common_size([*pictures, *masks])
        mask = torch.cat([as_mask(mask) for mask in masks])
        pixels = as_pixels(pictures, whole)
        if padding_mask_crop is None:
            windows = [Window(0, 0, *whole)] * len(prompts)
            size = choose_size(pictures[0], width=None, height=None)
        else:
            windows = find_windows(mask, context=padding_mask_crop)
            border = min(border, padding_mask_crop)  # behind that, nothing new is painted
            size = self._working_size(windows[0])
        velocity = self._encode_for(prompts, size, settings)
        device = self._execution_device
        timesteps = self._begin(settings.num_inference_steps, *size, device, settings.sigmas)
        seen = resize(_cut(pixels, windows), size)
        hole = (resize(_cut(mask, windows), size) > HARD).float()
        data = encode_pixels(self.vae, fill_hole(seen, hole)).to(device)
        dtype = self.transformer.dtype
        noise = self.prepare_latents(
            len(prompts), data.shape[1], size.height, size.width, dtype, device, generator
        ).float()
        hole = functional.max_pool2d(hole, self.vae_scale_factor).to(device)
        free = in_float32(velocity.at, dtype)
        x = self._follow(
            noise,
            timesteps,
            repaint(free, hole, data - noise),
            generator,
            self._after_step(velocity),
        )
        if output_type == "latent":
            return self._finish(x, output_type=output_type, return_dict=return_dict)
        new = self._decode(x).float().cpu()
        images = self._postprocess(
            put_back(new, pixels, windows, soften(mask, border)), output_type
        )
        self.maybe_free_model_hooks()
        return ImagePipelineOutput(images=cast(Any, images)) if return_dict else (images,)

    def _working_size(self, window: Window) -> Size:
        """The trained size in the shape of a window, or that of the window if it is larger."""
        area = window.width * window.height
        scale = max(1.0, self.default_image_size / math.sqrt(area))
        return Size(*nearest_size(window.width * scale, window.height * scale))


HARD = 0.05
"""Share of a mask in a resized pixel from which on the pixel belongs to it."""


def repaint(
    velocity_at: VelocityAt,
    hole: Float[Tensor, "b 1 rows cols"],
    keep: Float[Tensor, "b c rows cols"],
) -> VelocityAt:
    """Velocities that are free in a hole, and lead to known data around it.

    Args:
        velocity_at: The free velocities.
        hole: Ones where to follow them.
        keep: The way from the noise of the sample to the known data, which every solver follows
            exactly since it is straight.
    """

    def at(time: float) -> Velocity:
        velocity = velocity_at(time)
        return lambda x, t: torch.where(hole > 0, velocity(x, t), keep)

    return at


def find_windows(mask: Float[Tensor, "b 1 height width"], *, context: int) -> list[Window]:
    """The part around each mask, all of one size.

    Args:
        mask: Ones where to repaint.
        context: Pixels to look at on each side.
    """
    height, width = mask.shape[-2:]
    spans = [(_span(one.amax((0, 1))), _span(one.amax((0, 2)))) for one in mask]
    wide = max(end - start for (start, end), _ in spans) + 2 * context
    high = max(end - start for _, (start, end) in spans) + 2 * context
    wide, high = max(wide, high // LONGEST), max(high, wide // LONGEST)
    windows = []
    for across, down in spans:
        left, columns = _around(across, wide, width)
        top, rows = _around(down, high, height)
        windows.append(Window(left, top, columns, rows))
    return windows


def put_back(
    new: Float[Tensor, "b 3 h w"],
    pixels: Float[Tensor, "b 3 height width"],
    windows: list[Window],
    share: Float[Tensor, "b 1 height width"],
) -> Float[Tensor, "b 3 height width"]:
    """Blend what was painted into the pictures.

    Args:
        new: What windows show now, at any size.
        pixels: The pictures.
        windows: Where in them.
        share: How much of each pixel is new.
    """
    new = resize(new, Size(windows[0].width, windows[0].height)).clamp(-1, 1)
    result = pixels.clone()
    for picture, part, window, alpha in zip(result, new, windows, share, strict=True):
        rows, cols = window.place
        picture[:, rows, cols].lerp_(part, alpha[:, rows, cols])
    return result


def extend_canvas(
    image: Image.Image, size: Size | tuple[int, int], at: tuple[int, int] | None = None
) -> tuple[Image.Image, Image.Image]:
    """A larger canvas with a picture on it, and the mask of what is to be painted around it.

    Args:
        image: The picture.
        size: Width and height of the canvas, multiples of 16.
        at: Where the left upper corner of the picture goes. None: in the middle.

    Raises:
        LuminaError: If the picture does not fit, or covers the canvas.
    """
    width, height = size
    left, top = at or ((width - image.width) // 2, (height - image.height) // 2)
    if min(left, top) < 0 or left + image.width > width or top + image.height > height:
        raise LuminaError(
            f"a picture of {image.width}x{image.height} pixels at {left},{top} does not fit"
            f" {width}x{height}",
            hint="choose a larger canvas or another place",
        )
    if (width, height) == image.size:
        raise LuminaError("the picture covers the whole canvas", hint="choose a larger size")
    canvas, mask = Image.new("RGB", (width, height)), Image.new("L", (width, height), "white")
    canvas.paste(image, (left, top))
    mask.paste(0, (left, top, left + image.width, top + image.height))
    return canvas, mask


def resize(pixels: Float[Tensor, "b c h w"], size: Size) -> Float[Tensor, "b c height width"]:
    """Pixels at another size; those that have it already are left alone."""
    if pixels.shape[-2:] == (size.height, size.width):
        return pixels
    return functional.interpolate(pixels, (size.height, size.width), mode="bicubic", antialias=True)


def _cut(pixels: Tensor, windows: list[Window]) -> Tensor:
    return torch.stack(
        [
            picture[(slice(None), *window.place)]
            for picture, window in zip(pixels, windows, strict=True)
        ]
    )


def _common_size(pictures: list[Picture]) -> Size:
    sizes = {size_of(picture) for picture in pictures}
    if len(sizes) > 1:
        raise LuminaError(
            f"pictures and masks are {' and '.join(f'{w}x{h}' for w, h in sorted(sizes))} pixels",
            hint="bring them to one size first",
        )
    return sizes.pop()


def _span(is_white: Float[Tensor, " n"]) -> tuple[int, int]:
    """Where the first white begins, and the last one ends."""
    places = is_white.nonzero()
    return int(places[0]), int(places[-1]) + 1


def _around(span: tuple[int, int], length: int, canvas: int) -> tuple[int, int]:
    """Start and length of a stretch around a span, moved and shortened to fit the canvas."""
    length = min(length, canvas)
    start = (sum(span) - length) // 2
    return min(max(start, 0), canvas - length), length
