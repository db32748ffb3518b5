"""Text to image: `LuminaPipeline`, call- and checkpoint-compatible with diffusers'."""

from collections.abc import Callable, Sequence
from typing import cast

import torch
from diffusers import ImagePipelineOutput
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from torch import Tensor

from lumina.backbones.next_dit import NextDiT
from lumina.pipelines.sampling import GUIDED_CHANNELS, Sampling, with_usual_settings
from lumina.pipelines.text import TextPipeline
from lumina.types import Size


class LuminaPipeline(TextPipeline):
    """Make pictures from text with a Next-DiT. Its parts are those of `TextPipeline`."""

    _network = NextDiT

    @property
    def _opens_in_diffusers(self) -> bool:
        return self.has_usual_settings and type(self) is LuminaPipeline

    @torch.no_grad()
    @with_usual_settings
    def __call__(
        self,
        prompt=None,  # noqa: ANN001  (a wrong type is refused by `check_inputs`, by name)
        width: int | None = None,
        height: int | None = None,
        num_inference_steps: int = 30,
        guidance_scale: float | Sequence[float] = 4.0,
        negative_prompt: str | list[str] | None = None,
        sigmas: list[float] | None = None,
        num_images_per_prompt: int = 1,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: Tensor | None = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        prompt_attention_mask: Tensor | None = None,
        negative_prompt_attention_mask: Tensor | None = None,
        output_type: str | None = "pil",
        return_dict: bool = True,
        clean_caption: bool = True,
        max_sequence_length: int = 256,
        scaling_watershed: float | None = 1.0,
        proportional_attn: bool | None = True,
        callback_on_step_end: Callable | PipelineCallback | MultiPipelineCallbacks | None = None,
        callback_on_step_end_tensor_inputs: list[str] = ["latents"],  # noqa: B006
        *,
        guidance_interval: tuple[float, float] = (0.0, 1.0),
        guidance_rescale: float = 0.0,
        guidance_normalization: bool = False,
        guided_channels: int | None = GUIDED_CHANNELS,
        extrapolation: str = "watershed",
        scale_by: str = "area",
        context_drop: str = "none",
    ) -> ImagePipelineOutput | tuple:
        """Make pictures.

        Args:
            prompt: What to draw: a text, or a list of texts.
            width: Pixels, a multiple of 16. None or 0 is the size that the model was trained at.
            height: Pixels, a multiple of 16. None or 0 is the size that the model was trained at.
            num_inference_steps: Steps from noise to picture, 1 or more.
            guidance_scale: How closely to follow the prompt: one number, or one for each picture.
                1 or less does not guide, in half the time.
            negative_prompt: What to keep away from: one text for all prompts, or one for each.
            sigmas: Shares of noise to stop at, decreasing from 1, instead of a number of steps.
            num_images_per_prompt: Pictures of each prompt. They follow each other in the result.
            generator: The source of noise, or a list with one for each picture.
            latents: Noise to start from, instead of `generator`.
            prompt_embeds: Features of the prompts from `encode_prompt`, instead of `prompt`.
            negative_prompt_embeds: Features instead of `negative_prompt`.
            prompt_attention_mask: Which tokens of `prompt_embeds` count.
            negative_prompt_attention_mask: Which tokens of `negative_prompt_embeds` count.
            output_type: "pil", "np", "pt", or "latent" for what the VAE would decode.
            return_dict: Return an object with `images`, else a tuple with them.
            clean_caption: Lower-case prompts and take out what web captions carry besides their
                words. False leaves them untouched.
            max_sequence_length: Where prompts are cut, in tokens, with a warning.
            scaling_watershed: The time from which positions at other sizes than the trained one
                change from linear interpolation to NTK scaling. None never changes.
            proportional_attn: Scale attention with the number of tokens, which keeps it as sharp
                at other sizes as at the trained one.
            callback_on_step_end: Called with the pipeline, the index of the step, its timestep
                and a dict of tensors after each step. What it returns replaces them.
            callback_on_step_end_tensor_inputs: Names of the tensors it gets: of "latents" and
                "prompt_embeds", which are the prompts' followed by the negative prompts'.
            guidance_interval: This and what follows: as in `Sampling`.
            guidance_rescale: How far to bring the spread of guided velocities back.
            guidance_normalization: Shorten guided velocities that got longer.
            guided_channels: How many of the leading latent channels are guided.
            extrapolation: How positions are read at other sizes than the trained one.
            scale_by: Whether other sizes are told by their "area", or by each "axis" alone.
            context_drop: In which blocks attention sees averages over 2 x 2 tokens.

        Returns:
            The pictures, those of the first prompt first.

        Raises:
            ValueError: If arguments contradict each other, or a size or shape does not fit.
        """
        height = height or self.default_image_size
        width = width or self.default_image_size
        sampling = Sampling(
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            negative_prompt=negative_prompt,
            sigmas=sigmas,
            clean_caption=clean_caption,
            max_sequence_length=max_sequence_length,
            guidance_interval=guidance_interval,
            guidance_rescale=guidance_rescale,
            guidance_normalization=guidance_normalization,
            guided_channels=guided_channels,
            extrapolation=extrapolation,
            scale_by=scale_by,
            scaling_watershed=scaling_watershed,
            proportional_attn=bool(proportional_attn),
            context_drop=context_drop,
            callback_on_step_end=callback_on_step_end,
            callback_on_step_end_tensor_inputs=callback_on_step_end_tensor_inputs,
        )
        self.check_inputs(
            prompt,
            height,
            width,
            negative_prompt,
            prompt_embeds=prompt_embeds,
            negative_prompt_embeds=negative_prompt_embeds,
            prompt_attention_mask=prompt_attention_mask,
            negative_prompt_attention_mask=negative_prompt_attention_mask,
            callback_on_step_end_tensor_inputs=sampling.callback_tensors,
            max_sequence_length=max_sequence_length,
        )
        prompts = 1 if isinstance(prompt, str) else len(prompt or cast(Tensor, prompt_embeds))
        pictures = prompts * num_images_per_prompt
        self._begin_call()
        self._guide(sampling, pictures)
        device = self._execution_device
        features = self.encode_prompt(
            prompt,
            self.do_classifier_free_guidance,
            negative_prompt=negative_prompt,
            num_images_per_prompt=num_images_per_prompt,
            device=device,
            prompt_embeds=prompt_embeds,
            negative_prompt_embeds=negative_prompt_embeds,
            prompt_attention_mask=prompt_attention_mask,
            negative_prompt_attention_mask=negative_prompt_attention_mask,
            clean_caption=clean_caption,
            max_sequence_length=max_sequence_length,
        )
        velocity = self._make_velocity(features, Size(width, height), sampling)
        timesteps = self._begin(num_inference_steps, width, height, device, sigmas)
        x = self.prepare_latents(
            pictures,
            self.transformer.config.in_channels,
            height,
            width,
            velocity.condition.features.dtype,
            device,
            generator,
            latents,
        )
        x = self._follow(x, timesteps, velocity.at, generator, self._after_step(velocity))
        return self._finish(x, output_type=output_type, return_dict=return_dict)
