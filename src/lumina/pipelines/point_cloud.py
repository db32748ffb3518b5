"""Text to point clouds of any number of points."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.schedulers import SchedulerMixin
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lumina.backbones.next_dit import NextDiT
from lumina.backbones.transformer import FlowTransformer
from lumina.encoders.text import FEATURE_LAYER, PLACE
from lumina.modalities import Scaling
from lumina.modalities.points import PointCodec, check_points, draw_noise
from lumina.pipelines.media import (
    USUAL_GUIDANCE,
    USUAL_STEPS,
    MediaOutput,
    MediaPipeline,
    Source,
    sources_of,
)

USUAL_POINTS = 2048


class LuminaPointCloudPipeline(MediaPipeline):
    """Point clouds from prompts.

    Args:
        transformer: A network that `lumina.modalities.points` describes.
        scheduler: As in `TextPipeline`, like the following ones.
        text_encoder: Reads the prompts.
        tokenizer: Of the text encoder.
        text_layer: As in `TextPipeline`.
        prompt_template: As in `TextPipeline`.
        preset: None: there is none of media.
        usual_size: Points of a cloud where nothing else is asked for.
        vae: There is none.
        usual_steps: Steps where nothing else is asked for.
        usual_guidance: Guidance where nothing else is asked for.
    """

    _modality = "points"
    _number_for_each = "num_clouds_per_prompt"

    def __init__(
        self,
        transformer: NextDiT | None,
        scheduler: SchedulerMixin | None,
        text_encoder: PreTrainedModel | None,
        tokenizer: PreTrainedTokenizerBase | None,
        text_layer: int = FEATURE_LAYER,
        prompt_template: str = PLACE,
        preset: str | None = None,
        usual_size: str = str(USUAL_POINTS),
        vae: None = None,
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

    @classmethod
    def around(
        cls,
        network: FlowTransformer,
        text_encoder: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        autoencoder: Path,
        size: Sequence[int],
    ) -> "LuminaPointCloudPipeline":
        """A pipeline around a network that was trained, and clouds of so many points."""
        kept: Any = network
        scheduler = FlowMatchEulerDiscreteScheduler()
        return cls(kept, scheduler, text_encoder, tokenizer, usual_size=str(size[0]))

    @property
    def codec(self) -> PointCodec:
        """Points are their own latents, but for their scale."""
        return PointCodec()

    @property
    def scaling(self) -> Scaling:
        """That of the codec is enough."""
        return Scaling()

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str],
        points: int | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | Sequence[float] | None = None,
        negative_prompt: str | list[str] | None = None,
        num_clouds_per_prompt: int = 1,
        generator: Source = None,
        latents: Tensor | None = None,
        output_type: str = "np",
        return_dict: bool = True,
        **sampling: Any,
    ) -> MediaOutput | tuple:
        """Make point clouds.

        Args:
            prompt: What to make: a text, or a list of texts.
            points: How many each has, 256 to 8,192. None is the usual number.
            num_inference_steps: Steps from noise to data, 1 or more. None is what suits the model.
            guidance_scale: How closely to follow the prompt; 1 or less does not guide. None is what
                suits the model.
            negative_prompt: What to keep away from.
            num_clouds_per_prompt: Clouds of each prompt. They follow each other in the result.
            generator: The source of noise, or a list with one for each cloud. A seed means the same
                shape at any number of points.
            latents: Noise to start from, instead.
            output_type: "np" for arrays, or "latent".
            return_dict: Return an object with `media`, else a tuple with it.
            sampling: Other fields of `Sampling`, but for those that are for pictures alone.

        Returns:
            Clouds as arrays (points, 3) within about 0.5 of the middle; z is up.

        Raises:
            LuminaError: If the number of points is out of range.
        """
        count = int(self.config["usual_size"]) if points is None else points
        check_points(count)
        sampling |= {
            "num_inference_steps": num_inference_steps,
            "guidance_scale": guidance_scale,
            "negative_prompt": negative_prompt,
        }
        prompts, settings = self._ask(prompt, num_clouds_per_prompt, output_type, sampling)
        if latents is None:
            latents = _noise(len(prompts), count, generator)
        x = self._sample(
            prompts, (count,), settings, channels=3, generator=generator, latents=latents
        )
        return self._hand_out(x, output_type, return_dict=return_dict)


def _noise(clouds: int, points: int, generator: Source) -> Float[Tensor, "b 3 n"]:
    """Noise of each cloud, from its generator."""
    return torch.stack([draw_noise(points, source) for source in sources_of(generator, clouds)])
