"""Text to views: pictures of one thing from all around it, of which the first may be known."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from diffusers.schedulers import SchedulerMixin
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lumina.backbones.next_dit import NextDiT
from lumina.encoders.text import FEATURE_LAYER, PLACE
from lumina.modalities.multiview import MOST_VIEWS, tell_views
from lumina.pipelines.frames import FramesPipeline, hints_of, pixels_of
from lumina.pipelines.media import USUAL_GUIDANCE, USUAL_STEPS, MediaOutput, Source
from lumina.requests import read_axes

_log = logging.getLogger(__name__)

FRAME_RATE = 4.0
"""Views that a turntable shows a second."""


class LuminaMultiViewPipeline(FramesPipeline):
    """Views of things from prompts.

    Args:
        transformer: A network that `lumina.modalities.multiview` describes.
        scheduler: As in `TextPipeline`, like the following ones.
        vae: An image autoencoder, which decodes each view.
        text_encoder: Reads the prompts.
        tokenizer: Of the text encoder.
        text_layer: As in `TextPipeline`.
        prompt_template: As in `TextPipeline`.
        preset: None: there is none of media.
        usual_size: Width, height and number of views where nothing else is asked for: "64x64x4".
        usual_steps: Steps where nothing else is asked for.
        usual_guidance: Guidance where nothing else is asked for.
    """

    _modality = "multiview"
    _number_for_each = "num_things_per_prompt"

    def __init__(
        self,
        transformer: NextDiT | None,
        scheduler: SchedulerMixin | None,
        vae: AutoencoderKL | None,
        text_encoder: PreTrainedModel | None,
        tokenizer: PreTrainedTokenizerBase | None,
        text_layer: int = FEATURE_LAYER,
        prompt_template: str = PLACE,
        preset: str | None = None,
        usual_size: str = "64x64x4",
        usual_steps: int = USUAL_STEPS,
        usual_guidance: float = USUAL_GUIDANCE,
    ):
        super().__init__(
            transformer,
            scheduler,
            vae,
            text_encoder,
            tokenizer,
            text_layer,
            prompt_template,
            preset,
            usual_size,
            usual_steps,
            usual_guidance,
        )

    def pictures_beside(
        self, medium: UInt8[np.ndarray, "views height width 3"]
    ) -> list[Image.Image]:
        """The views."""
        return [Image.fromarray(view) for view in medium]

    @property
    def file_facts(self) -> dict[str, Any]:
        """How fast a turntable turns."""
        return {"frame_rate": FRAME_RATE}

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str],
        width: int | None = None,
        height: int | None = None,
        views: int | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | Sequence[float] | None = None,
        negative_prompt: str | list[str] | None = None,
        num_things_per_prompt: int = 1,
        generator: Source = None,
        latents: Tensor | None = None,
        output_type: str = "np",
        return_dict: bool = True,
        *,
        image: Image.Image | None = None,
        **sampling: Any,
    ) -> MediaOutput | tuple:
        """Make views of things.

        Args:
            prompt: What is seen: a text, or a list of texts.
            width: Pixels, a multiple of 16. None is the usual one, like the following ones.
            height: Pixels, a multiple of 16.
            views: How many there are, 1 to 8, from directions that are evenly spaced around the
                thing, counterclockwise from above.
            num_inference_steps: Steps from noise to data, 1 or more. None is what suits the model.
            guidance_scale: How closely to follow the prompt; 1 or less does not guide. None is what
                suits the model.
            negative_prompt: What to keep away from.
            num_things_per_prompt: Things of each prompt. They follow each other in the result.
            generator: The source of noise, or a list with one for each thing.
            latents: Noise to start from, instead.
            output_type: "np" for bytes, or "latent".
            return_dict: Return an object with `media`, else a tuple with them.
            image: The first view of all things, of the size asked for. In "np" it comes back as it
                is, in "latent" as the autoencoder has it.
            sampling: Other fields of `Sampling`, but for those that are for pictures alone.

        Returns:
            For each thing its views as bytes (views, height, width, 3).

        Raises:
            LuminaError: If a size, the number of views or the first view is out of range.
        """
        size = self._size(width, height, views, called="views", most=MOST_VIEWS)
        usual = read_axes(self.config["usual_size"])[:2]
        if size[:2] != usual:
            # Clips are trained at several sizes, and views at one.
            _log.warning("views are trained at %dx%d, and break at %dx%d", *usual, *size[:2])
        sampling |= {
            "num_inference_steps": num_inference_steps,
            "guidance_scale": guidance_scale,
            "negative_prompt": negative_prompt,
        }
        prompts, settings = self._ask(prompt, num_things_per_prompt, output_type, sampling)
        grid = self._grid(size)
        known = None if image is None else self._encode_known([image], size)
        x = self._sample(
            prompts,
            grid,
            settings,
            channels=self.vae.config["latent_channels"],
            generator=generator,
            latents=latents,
            hints=hints_of(known, grid, tell_views),
        )
        if known is not None:
            x[:, :, :1] = known.to(x)
        made = self._hand_out(x, output_type, return_dict=return_dict)
        if image is not None and output_type == "np":
            for shown in made[0]:
                shown[0] = pixels_of(image)
        return made
