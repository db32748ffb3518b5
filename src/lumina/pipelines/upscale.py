"""Large pictures in two stages: first a small one, then a large one that is guided by it."""

import math
from typing import Any

import torch
from diffusers import ImagePipelineOutput
from jaxtyping import Float
from torch import Tensor

from lumina.errors import LuminaError
from lumina.flow.sample import flow_times
from lumina.pipelines.pictures import (
    Pictures,
    as_pixels,
    check_strength,
    encode_pixels,
    in_float32,
    pair_up,
    refuse_noise,
    refuse_step_cache,
    size_of,
    to_pil,
)
from lumina.pipelines.sampling import Sampling
from lumina.pipelines.text import TextPipeline
from lumina.requests import SIZE_MULTIPLE, STRENGTH, check_larger
from lumina.types import Size, Velocity, VelocityAt

Source = torch.Generator | list[torch.Generator] | None


class LuminaUpscalePipeline(TextPipeline):
    """Make large pictures from text or small pictures. Its parts are those of `TextPipeline`."""

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str],
        image: Pictures | None = None,
        *,
        width: int,
        height: int,
        strength: float = STRENGTH,
        hold: float = 1.0,
        generator: Source = None,
        output_type: str | None = "pil",
        return_dict: bool = True,
        **sampling: Any,
    ) -> ImagePipelineOutput | tuple:
        """Make large pictures.

        Args:
            prompt: What they show: a text, or a list of texts.
            image: The small picture, or one for each prompt. None: it is drawn first, at the size
                that the model was trained at and in the shape that is asked for.
            width: Pixels, a multiple of 16.
            height: Pixels, a multiple of 16.
            strength: Above 0 and up to 1, the share of the steps that the second stage takes. It
                begins as noisy as a sample is at that point.
            hold: From 0 to 1, how firmly the small picture is held to along the way. 0 only
                begins from it.
            generator: The source of noise, or a list with one for each picture.
            output_type: As in `LuminaPipeline`.
            return_dict: As in `LuminaPipeline`.
            sampling: Fields of `Sampling`.

        Raises:
            LuminaError: If strength or hold are out of range, pictures are not as many as prompts
                or not smaller than the size, none is given for a size that the model can draw at
                once, the solver adds noise or cannot take the steps that the strength leaves, or
                a step cache is enabled.
            ValueError: If the size does not fit.
        """
        check_strength(strength)
        check_hold(hold)
        refuse_step_cache(self.transformer, "a picture in two stages")
        refuse_noise(self.scheduler, "a picture in two stages")
        settings, size = self._settings(sampling), Size(width, height)
        late = (settings.num_inference_steps, size, settings.sigmas, strength)
        if image is None:
            prompts = [prompt] if isinstance(prompt, str) else list(prompt)
            first = first_size(size, trained=self.default_image_size)
            self._begin_late(*late)  # refuses what the second stage cannot do
            pixels = enlarge(self._draw_first(prompts, first, settings, generator), size)
            if self.interrupt:
                return self._finish_picture(pixels, output_type, return_dict=return_dict)
        else:
            prompts, (pictures,) = pair_up(prompt, image=image)
            for picture in pictures:
                check_larger(size_of(picture), size)
            pixels = as_pixels(pictures, size)
        velocity = self._encode_for(prompts, size, settings)
        timesteps = self._begin_late(*late)
        device = self._execution_device
        guide = encode_pixels(self.vae, pixels).to(device)
        noise = self.prepare_latents(
            len(prompts), guide.shape[1], height, width, torch.float32, device, generator
        )
        time = flow_times(self.scheduler, timesteps)[0]
        plain = in_float32(velocity.at, self.transformer.dtype)
        x = self._follow(
            (1 - time) * noise + time * guide,
            timesteps,
            hold_to(plain, guide, noise, hold=hold),
            generator,
            self._after_step(velocity),
        )
        return self._finish(x, output_type=output_type, return_dict=return_dict)

    def _draw_first(
        self,
        prompts: list[str],
        size: Size,
        settings: Sampling,
        generator: Source,
    ) -> Float[Tensor, "b 3 height width"]:
        """Draw small pictures, as text to image does."""
        velocity = self._encode_for(prompts, size, settings)
        device = self._execution_device
        timesteps = self._begin(settings.num_inference_steps, *size, device, settings.sigmas)
        x = self.prepare_latents(
            len(prompts),
            self.transformer.config["in_channels"],
            size.height,
            size.width,
            velocity.condition.features.dtype,
            device,
            generator,
        )
        x = self._follow(x, timesteps, velocity.at, generator, self._after_step(velocity))
        return self._decode(x).float()


def hold_to(
    velocity_at: VelocityAt,
    guide: Float[Tensor, "b c rows cols"],
    noise: Float[Tensor, "b c rows cols"],
    *,
    hold: float,
) -> VelocityAt:
    """Follow a velocity, but hold to a picture: firmly near noise, not at all at data.

    The velocity is taken where the sample lies when it is pulled toward the way from the noise to
    the picture, and leads from the sample to the data that is expected there.

    Args:
        velocity_at: The velocity to follow.
        guide: Latents of the picture.
        noise: What the sample began from.
        hold: From 0 to 1, how far the sample is pulled at noise. 0 leaves the velocity as it is.

    Source:
        `visual_anagrams/generate.py` of the original code, which pulls by (1 + cos(pi t)) / 2.
    """

    def at(time: float) -> Velocity:
        inner = velocity_at(time)

        def velocity(
            x: Float[Tensor, "b c rows cols"], t: Float[Tensor, ""]
        ) -> Float[Tensor, "b c rows cols"]:
            share = hold * (1 + torch.cos(math.pi * t)) / 2
            pull = share * (t * guide + (1 - t) * noise - x)
            # The pull ends before the sample does: (1 + cos(pi t)) / (1 - t) goes to 0 at data.
            rest = (1 - t).clamp(min=torch.finfo(torch.float32).eps)
            return inner(x + pull, t) + pull / rest

        return velocity

    return at


def first_size(size: Size, *, trained: int) -> Size:
    """The size to draw first: as many pixels as in training, in the shape of a larger size.

    Args:
        size: Of the picture that is wanted.
        trained: Pixels along each side of a picture in training.

    Raises:
        LuminaError: If the size is not larger.
    """
    scale = trained / math.sqrt(math.prod(size))
    if scale >= 1:
        raise LuminaError(
            f"{size.width}x{size.height} pixels are no more than the model draws at once",
            hint="use LuminaPipeline, or give a picture to begin from",
        )
    width, height = (max(1, round(side * scale / SIZE_MULTIPLE)) * SIZE_MULTIPLE for side in size)
    return Size(width, height)


def enlarge(
    pixels: Float[Tensor, "b 3 rows cols"], size: Size
) -> Float[Tensor, "b 3 height width"]:
    """Bring pictures, as values from -1 to 1, to a size with a Lanczos filter."""
    if pixels.shape[2:] == (size.height, size.width):
        return pixels
    return as_pixels(to_pil(pixels), size).to(pixels)


def check_hold(hold: float) -> None:
    """Refuse to hold to a picture by less than nothing, or by more than all.

    Raises:
        LuminaError: If `hold` is not in [0, 1].
    """
    if not 0 <= hold <= 1:
        raise LuminaError(f"hold is {hold}, which is out of range", hint="allowed: 0 to 1")
