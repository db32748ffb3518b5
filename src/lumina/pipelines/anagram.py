"""Visual anagrams: one picture that shows another thing when it is turned."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from diffusers import ImagePipelineOutput
from jaxtyping import Float
from torch import Tensor

from lumina.errors import LuminaError, UnknownNameError
from lumina.flow.sample import flow_times
from lumina.pipelines.pictures import (
    check_strength,
    encode_pixels,
    in_float32,
    refuse_noise,
    refuse_step_cache,
)
from lumina.pipelines.sampling import Sampling
from lumina.pipelines.text import TextPipeline
from lumina.pipelines.upscale import check_hold, enlarge, first_size, hold_to
from lumina.pipelines.views import View, check_view, find_view
from lumina.requests import STRENGTH
from lumina.types import Size, Velocity, VelocityAt

THROUGH = ("pixels", "latents")
Source = torch.Generator | list[torch.Generator] | None


class Guide(NamedTuple):
    """What a second stage follows: as in `LuminaUpscalePipeline`."""

    pixels: Float[Tensor, "b 3 height width"]
    strength: float
    hold: float


class LuminaAnagramPipeline(TextPipeline):
    """Make pictures that show a prompt in each of several views.

    Its parts are those of `TextPipeline`.
    """

    @torch.no_grad()
    def __call__(
        self,
        views: Sequence[tuple[str, str]],
        *,
        width: int | None = None,
        height: int | None = None,
        through: str = "pixels",
        two_stage: bool = False,
        strength: float = STRENGTH,
        hold: float = 1.0,
        num_images_per_prompt: int = 1,
        generator: Source = None,
        latents: Tensor | None = None,
        output_type: str | None = "pil",
        return_dict: bool = True,
        **sampling: Any,
    ) -> ImagePipelineOutput | tuple:
        """Make visual anagrams.

        Args:
            views: Names of views, as `find_view` reads them, each with a prompt.
            width: Pixels, a multiple of 16. None or 0 is the size that the model was trained at.
            height: The same.
            through: Where the views come together. "pixels": what is expected in each view is
                decoded, turned back, averaged and encoded again. "latents": velocities are turned
                back and averaged, without the VAE, for models whose latents can be turned.
            two_stage: Draw at the size of training first, and be guided by that at the size that
                is asked for, as `LuminaUpscalePipeline` is.
            strength: As in `LuminaUpscalePipeline`, of the second stage.
            hold: As in `LuminaUpscalePipeline`, of the second stage.
            num_images_per_prompt: How many pictures to make.
            generator: The source of noise, or a list with one for each picture.
            latents: Noise to start from instead, before it is seen in any view.
            output_type: As in `LuminaPipeline`.
            return_dict: As in `LuminaPipeline`.
            sampling: Fields of `Sampling`. Lists have one value for each picture of each view;
                those of the first view come first.

        Raises:
            LuminaError: If there are no views, one does not exist or does not fit the size, an
                argument is out of range, the solver adds noise or cannot take the steps that the
                strength leaves, or a step cache is enabled.
            ValueError: If the size does not fit the model.
        """
        settings = self._settings(sampling)
        size = Size(width or self.default_image_size, height or self.default_image_size)
        first = first_size(size, trained=self.default_image_size) if two_stage else size
        check_strength(strength)
        check_hold(hold)
        group = ViewGroup([find_view(name) for name, _ in views], through)
        group.check({size, first}, scale=self.vae_scale_factor)
        refuse_step_cache(self.transformer, "an anagram")
        refuse_noise(self.scheduler, "an anagram")
        if two_stage:  # refuses what the second stage cannot do
            self._begin_late(settings.num_inference_steps, size, settings.sigmas, strength)
        prompts = [prompt for _, prompt in views for _ in range(num_images_per_prompt)]
        pixels = self._draw(prompts, first, settings, group, generator, latents)
        if two_stage:
            guide = Guide(enlarge(pixels, size), strength, hold)
            pixels = guide.pixels
            if not self.interrupt:
                pixels = self._draw(prompts, size, settings, group, generator, guide=guide)
        return self._finish_picture(pixels, output_type, return_dict=return_dict)

    def _draw(
        self,
        prompts: list[str],
        size: Size,
        settings: Sampling,
        group: "ViewGroup",
        generator: Source,
        latents: Tensor | None = None,
        *,
        guide: Guide | None = None,
    ) -> Float[Tensor, "b 3 height width"]:
        """Follow the flows of all views side by side, each with a state of its own."""
        velocity = self._encode_for(prompts, size, settings)
        velocity = replace(velocity, views=len(group.views))
        velocity_at = in_float32(velocity.at, self.transformer.dtype)
        device = self._execution_device
        noise = self.prepare_latents(
            len(prompts) // len(group.views),
            self.transformer.config["in_channels"],
            size.height,
            size.width,
            torch.float32,
            device,
            generator,
            latents,
        )
        x = group.see(noise)
        strength = 1.0 if guide is None else guide.strength
        timesteps = self._begin_late(settings.num_inference_steps, size, settings.sigmas, strength)
        if guide is not None:
            data = encode_pixels(self.vae, group.see(guide.pixels)).to(device)
            velocity_at = hold_to(velocity_at, data, x, hold=guide.hold)
            time = flow_times(self.scheduler, timesteps)[0]
            x = (1 - time) * x + time * data
        agreed = self._agree(velocity_at, group)
        x = self._follow(x, timesteps, agreed, generator, self._after_step(velocity))
        if group.through == "latents":
            return self._decode(group.average(x)).float()
        return group.average(self._decode(x).float())

    def _agree(self, velocity_at: VelocityAt, group: "ViewGroup") -> VelocityAt:
        """The velocity of each view, brought together."""

        def at(time: float) -> Velocity:
            inner = velocity_at(time)

            def on_latents(x: Tensor, t: Float[Tensor, ""]) -> Tensor:
                return group.see(group.average(inner(x, t)))

            def on_pixels(x: Tensor, t: Float[Tensor, ""]) -> Tensor:
                velocity = inner(x, t)
                rest = 1 - t
                if rest == 0:  # there is no way left on which the views could come together
                    return velocity
                own = self._decode(x + rest * velocity).float()
                agreed = group.see(group.average(own))
                # Differences of encoded pictures, since decoding and encoding alone changes some.
                change = encode_pixels(self.vae, agreed) - encode_pixels(self.vae, own)
                return velocity + change.to(x.device) / rest

            return on_latents if group.through == "latents" else on_pixels

        return at


class ViewGroup:
    """Several views of the same pictures: rows of a batch, those of the first view first.

    Args:
        views: One or more.
        through: Where they come together: "pixels" or "latents".

    Raises:
        LuminaError: If there is none.
        UnknownNameError: If `through` is neither.
    """

    def __init__(self, views: Sequence[View], through: str):
        if not views:
            raise LuminaError("there are no views", hint='for example: [("rotate180", "a cat")]')
        if through not in THROUGH:
            raise UnknownNameError.among(THROUGH, through, kind="place where views agree")
        self.views, self.through = views, through

    def check(self, sizes: set[Size], *, scale: int) -> None:
        """Refuse sizes in pixels that a view does not fit; `scale` is that of the VAE.

        Raises:
            LuminaError: If there is one.
        """
        for view in self.views:
            for size in sizes:
                check_view(view, size, scale=scale, on_pixels=self.through == "pixels")

    def see(self, x: Float[Tensor, "b c rows cols"]) -> Float[Tensor, "all c rows cols"]:
        """What is seen of pictures in all views."""
        return torch.cat([view.see(x) for view in self.views])

    def average(self, seen: Float[Tensor, "all c rows cols"]) -> Float[Tensor, "b c rows cols"]:
        """The mean of the pictures that are seen so in all views."""
        parts = zip(self.views, seen.chunk(len(self.views)), strict=True)
        return torch.stack([view.undo(part) for view, part in parts]).mean(0)
