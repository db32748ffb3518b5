"""What pipelines of clips, sounds and other media share: noise of their grid, and decoding."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
import torch.distributed as dist
from diffusers.schedulers import SchedulerMixin
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lumina.encoders.text import FEATURE_LAYER, PLACE
from lumina.errors import LuminaError
from lumina.flow.guidance import guide
from lumina.flow.sample import begin_steps
from lumina.modalities import Codec, Modality, Scaling, find_modality
from lumina.pipelines import checks
from lumina.pipelines.pictures import refuse_step_cache
from lumina.pipelines.sampling import Sampling, sampling_of
from lumina.pipelines.text import TextPipeline
from lumina.pipelines.velocity import Condition, as_guidance_scale, cache_for
from lumina.types import Velocity

Source = torch.Generator | list[torch.Generator] | None

OUTPUT_TYPES = ("np", "latent")

USUAL_STEPS, USUAL_GUIDANCE = 30, 4.0


@dataclass
class MediaOutput(BaseOutput):
    """What a call returns.

    Args:
        media: One array for each prompt, as the modality has them; a tensor of latents where those
            were asked for.
    """

    media: list[np.ndarray] | Tensor


@dataclass
class MediaVelocity:
    """What a sampler follows: at each time a velocity, guided where that is asked for.

    Args:
        pipeline: Has the network, and the scale of the guidance, which callbacks may change.
        condition: The prompts.
        hints: What is known besides.
        sampling: All other settings.
        count: How many samples there are.
    """

    pipeline: "MediaPipeline"
    condition: Condition
    hints: Float[Tensor, "b hints *grid"] | None
    sampling: Sampling
    count: int

    def at(self, time: float) -> Velocity:
        """The velocity to follow at a time."""
        guidance = self.pipeline.guidance
        guided = guidance.is_on_at(time)
        part = self.condition.part(self.count, guided=guided)
        group = self.pipeline._guidance_group
        if guided and group is not None:
            part = part.half(dist.get_rank(group))
        plain = partial(self._compute, part, guided)
        return guide(plain, guidance, group=group) if guided else plain

    def _compute(
        self,
        condition: Condition,
        guided: bool,
        x: Float[Tensor, "b c *grid"],
        t: Float[Tensor, ""],
    ) -> Float[Tensor, "b c *grid"]:
        pipeline, hints = self.pipeline, self.hints
        pipeline._count(guided=guided)
        if hints is not None:
            hints = torch.cat([hints] * (len(x) // len(hints)))
        times = t.expand(len(x))
        output = pipeline.transformer(
            pipeline.modality.enter(x, times, hints).to(pipeline.transformer.dtype),
            pipeline._network_times(times),
            condition.features,
            condition.mask,
            cache=cache_for(pipeline, condition),
            return_dict=False,
            **pipeline._positions(x, hints),
        )[0]
        return output[:, : x.shape[1]].to(x.dtype)


class MediaPipeline(TextPipeline):
    """Media from prompts. Subclasses name their modality, and say how an autoencoder decodes.

    Args:
        transformer: As in `TextPipeline`, like the following ones.
        scheduler: As there.
        vae: As there.
        text_encoder: As there.
        tokenizer: As there.
        text_layer: As there.
        prompt_template: As there.
        preset: None: there is none of media.
        usual_size: Axes of what is made where nothing else is asked for, such as "64x64x8".
        usual_steps: Steps where nothing else is asked for.
        usual_guidance: Guidance where nothing else is asked for.
    """

    _modality: ClassVar[str]
    _number_for_each: ClassVar[str]
    """What a call names the number of samples of each prompt."""
    _has_presets = False
    # How positions and attention of pictures are read.
    _without_effect: ClassVar[set[str]] = {
        "context_drop",
        "extrapolation",
        "proportional_attn",
        "scale_by",
        "scaling_watershed",
    }
    _optional_components: ClassVar[list[str]] = ["vae"]

    def __init__(
        self,
        transformer: Any,
        scheduler: SchedulerMixin | None,
        vae: Any,
        text_encoder: PreTrainedModel | None,
        tokenizer: PreTrainedTokenizerBase | None,
        text_layer: int = FEATURE_LAYER,
        prompt_template: str = PLACE,
        preset: str | None = None,
        usual_size: str = "",
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
        )
        self.register_to_config(
            usual_size=usual_size, usual_steps=usual_steps, usual_guidance=usual_guidance
        )

    @property
    def modality(self) -> Modality:
        """What is made."""
        return find_modality(self._modality)

    @property
    def codec(self) -> Codec:
        """What decodes latents."""
        raise NotImplementedError

    @property
    def scaling(self) -> Scaling:
        """How far latents are from unit spread."""
        raise NotImplementedError

    def as_pictures(self, media: Sequence[np.ndarray], *, small: bool = True) -> list[Image.Image]:
        """What media look like."""
        return [self.modality.show(medium, small=small) for medium in media]

    def pictures_of(self, latents: Float[Tensor, "b c *grid"]) -> list[Image.Image]:
        """What latents look like."""
        return self.as_pictures(self.codec.decode(self.scaling.unscale(latents)))

    def _positions(self, x: Float[Tensor, "b c *grid"], hints: Tensor | None) -> dict[str, Any]:
        """How the network is to read positions."""
        return self.modality.positions(self.network, x)

    def _network_times(self, times: Float[Tensor, " b"]) -> Tensor:
        """Times in [0, 1] as the network counts them."""
        return times

    def _ask(
        self, prompt: str | list[str], each: int, output_type: str, settings: dict[str, Any]
    ) -> tuple[list[str], Sampling]:
        """A prompt for each sample, and all settings of a call.

        Args:
            prompt: One or several.
            each: Samples of each.
            output_type: What is to come out.
            settings: Fields of `Sampling`. Where they say nothing of it, or None, all channels are
                guided, and the rest is what is usual.

        Raises:
            LuminaError: If a setting has no effect, or the output is of no known type.
        """
        if output_type not in OUTPUT_TYPES:
            raise LuminaError(
                f"output_type is {output_type!r}", hint=f"allowed: {', '.join(OUTPUT_TYPES)}"
            )
        for name in self._without_effect & settings.keys():
            raise LuminaError(f"{name} has no effect in {type(self).__name__}", hint="leave it out")
        prompts = checks.prompts(prompt)
        checks.number(self._number_for_each, each, least=1)
        given = {name: value for name, value in settings.items() if value is not None}
        away = given.get("negative_prompt")
        if isinstance(away, list):
            given["negative_prompt"] = [one for one in away for _ in range(each)]
        repeated = [one for one in prompts for _ in range(each)]
        usual = {
            "guided_channels": None,
            "num_inference_steps": self.config["usual_steps"],
            "guidance_scale": self.config["usual_guidance"],
        }
        checks.sigmas(given.get("sigmas"))
        return repeated, sampling_of(self, usual | given)

    @torch.no_grad()
    def _sample(
        self,
        prompts: Sequence[str],
        grid: tuple[int, ...],
        sampling: Sampling,
        *,
        channels: int,
        generator: Source,
        latents: Tensor | None = None,
        hints: Float[Tensor, "_ hints *grid"] | None = None,
        blend: Callable[[list[Velocity]], Velocity] | None = None,
    ) -> Float[Tensor, "b c *grid"]:
        """Latents of samples, one for each prompt.

        Args:
            prompts: What to make.
            grid: Axes of the latents.
            sampling: All settings.
            channels: Of the latents.
            generator: The source of noise.
            latents: Noise to start from, instead.
            hints: What is known of each sample, or in one row of all.
            blend: Makes one velocity of those of all prompts, for one sample of them all.
        """
        if blend is not None:
            refuse_step_cache(self.transformer, "a transition")
        count = len(prompts) if blend is None else 1
        velocities = self._velocities(prompts, sampling, hints, together=blend is None)
        device = self._execution_device
        tokens = int(np.prod(grid)) // self.network.patch_size**2
        timesteps = begin_steps(
            self.scheduler,
            sampling.num_inference_steps,
            sigmas=sampling.sigmas,
            tokens=tokens,
            device=device,
        )
        self._num_timesteps = len(timesteps)
        x = self._noise((count, channels, *grid), device, generator, latents)

        def at(time: float) -> Velocity:
            each = [velocity.at(time) for velocity in velocities]
            return each[0] if blend is None else blend(each)

        return self._follow(x, timesteps, at, generator, self._after_step(velocities[0]))

    def _velocities(
        self,
        prompts: Sequence[str],
        sampling: Sampling,
        hints: Tensor | None,
        *,
        together: bool,
    ) -> list[MediaVelocity]:
        """One velocity of all prompts, or one of each."""
        checks.sequence_length(sampling.max_sequence_length)
        checks.callback_tensors(sampling.callback_tensors, self._callback_tensor_inputs)
        groups = [list(prompts)] if together else [[prompt] for prompt in prompts]
        self._begin_call()
        self._guidance = sampling.guidance
        self._guidance_scale = as_guidance_scale(sampling.guidance_scale, len(groups[0]))
        return [self._velocity(group, sampling, hints) for group in groups]

    def _velocity(
        self, prompts: list[str], sampling: Sampling, hints: Tensor | None
    ) -> MediaVelocity:
        checks.prompt(prompts, None, None)
        features, mask, away, away_mask = self.encode_prompt(
            prompts,
            self.do_classifier_free_guidance,
            negative_prompt=sampling.negative_prompt,
            clean_caption=sampling.clean_caption,
            max_sequence_length=sampling.max_sequence_length,
        )
        if away is not None and away_mask is not None and mask is not None:
            features, mask = torch.cat([features, away]), torch.cat([mask, away_mask])
        condition = Condition(features.to(self.transformer.dtype), mask)
        return MediaVelocity(self, condition, hints, sampling, len(prompts))

    def _noise(
        self,
        shape: tuple[int, ...],
        device: torch.device,
        generator: Source,
        latents: Tensor | None,
    ) -> Float[Tensor, "b c *grid"]:
        """Noise to start from, drawn or given: in float32, also for networks in other numbers.

        Raises:
            LuminaError: If generators are not as many as samples, or the noise is no tensor, or of
                another shape.
        """
        sources_of(generator, shape[0])
        if latents is None:
            return randn_tensor(shape, generator=generator, device=device)
        if not isinstance(latents, Tensor):
            raise LuminaError(
                f"latents are {type(latents).__name__}, which is no tensor",
                hint="give torch.as_tensor(latents)",
            )
        if latents.shape != shape:
            raise LuminaError(
                f"latents have the shape {tuple(latents.shape)}, and the samples {shape}",
                hint="leave latents out, or give them this shape",
            )
        return latents.to(device, torch.float32)

    def _hand_out(
        self, x: Float[Tensor, "b c *grid"], output_type: str, *, return_dict: bool
    ) -> MediaOutput | tuple:
        """Decode latents into what a call returns."""
        media: Any = x if output_type == "latent" else self.codec.decode(self.scaling.unscale(x))
        self.maybe_free_model_hooks()
        return MediaOutput(media=media) if return_dict else (media,)


def sources_of(generator: Source, count: int) -> Sequence[torch.Generator | None]:
    """The source of noise of each of so many samples.

    Raises:
        LuminaError: If there are several, and not one for each.
    """
    sources = generator if isinstance(generator, list) else [generator] * count
    for one in sources:
        if not isinstance(one, torch.Generator | None):
            raise LuminaError(
                f"generator has {one!r}, which is no source of noise",
                hint="such as torch.Generator().manual_seed(3), or None",
            )
    if len(sources) != count:
        raise LuminaError(
            f"there are {len(sources)} generators for {count} samples",
            hint="give one, or one for each",
        )
    return sources
