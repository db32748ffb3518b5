"""Image to image: begin from a picture with noise on it, and end at one that fits a prompt."""

from typing import Any

import torch
from diffusers import ImagePipelineOutput
from jaxtyping import Float
from torch import Tensor

from lumina.flow.sample import flow_times
from lumina.pipelines.pictures import (
    Pictures,
    as_pixels,
    check_strength,
    choose_size,
    encode_pixels,
    in_float32,
    pair_up,
)
from lumina.pipelines.text import TextPipeline
from lumina.requests import STRENGTH


class LuminaImg2ImgPipeline(TextPipeline):
    """Change a picture toward a prompt. Its parts are those of `TextPipeline`."""

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str],
        image: Pictures,
        strength: float = STRENGTH,
        *,
        width: int | None = None,
        height: int | None = None,
        normalize_latents: bool = False,
        generator: torch.Generator | list[torch.Generator] | None = None,
        output_type: str | None = "pil",
        return_dict: bool = True,
        **sampling: Any,
    ) -> ImagePipelineOutput | tuple:
        """Change pictures.

        Args:
            prompt: What the picture is to show: one text, or one for each picture.
            image: What to begin from: one picture, or several.
            strength: How far to go back toward noise, above 0, where little changes, to 1, where
                nothing is left of the picture.
            width: Pixels to bring the picture to first, a multiple of 16. None: its own. More
                pixels give the picture detail that it did not have.
            height: The same for the other side.
            normalize_latents: Take mean and spread out of each latent channel of the picture
                first, which leaves its shapes and lets go of its colors.
            generator: The source of noise, or a list with one for each picture.
            output_type: "pil", "np", "pt", or "latent" for what the VAE would decode.
            return_dict: Return an object with `images`, else a tuple with them.
            sampling: All other settings, which are the fields of `Sampling`.

        Raises:
            LuminaError: If the strength does not lie in (0, 1], a side is no multiple of 16,
                prompts and pictures are not equally many, or the solver cannot take the steps that
                the strength leaves.

        Source:
            SDEdit, arXiv:2108.01073, on the path of the flow, as in the high-resolution editing
            of Lumina-Next, arXiv:2406.18583, which also normalises the latents.
        """
        check_strength(strength)
        settings = self._settings(sampling)
        prompts, (pictures,) = pair_up(prompt, image=image)
        size = choose_size(pictures[0], width=width, height=height)
        velocity = self._encode_for(prompts, size, settings)
        device = self._execution_device
        timesteps = self._begin_late(settings.num_inference_steps, size, settings.sigmas, strength)
        data = encode_pixels(self.vae, as_pixels(pictures, size)).to(device)
        if normalize_latents:
            data = normalize_channels(data)
        dtype = self.transformer.dtype
        noise = self.prepare_latents(
            len(prompts), data.shape[1], size.height, size.width, dtype, device, generator
        ).float()
        time = flow_times(self.scheduler, timesteps)[0]
        x = self._follow(
            (1 - time) * noise + time * data,
            timesteps,
            in_float32(velocity.at, dtype),
            generator,
            self._after_step(velocity),
        )
        return self._finish(x, output_type=output_type, return_dict=return_dict)


def normalize_channels(data: Float[Tensor, "b c rows cols"]) -> Float[Tensor, "b c rows cols"]:
    """Give each channel of each picture the mean 0 and the spread 1."""
    mean = data.mean((-2, -1), keepdim=True)
    return (data - mean) / data.std((-2, -1), keepdim=True).clamp(min=1e-6)
