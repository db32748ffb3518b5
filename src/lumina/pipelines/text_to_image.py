"""Text to image: `LuminaPipeline`, call- and checkpoint-compatible with diffusers'."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
from diffusers import AutoencoderKL, ImagePipelineOutput, LuminaNextDiT2DModel
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from diffusers.schedulers import SchedulerMixin
from diffusers.utils.torch_utils import is_compiled_module
from jaxtyping import Float, Shaped
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lumina.backbones.blocks import FlowTransformer, StepCache
from lumina.backbones.flag_dit import FlagDiT
from lumina.backbones.next_dit import NextDiT
from lumina.encoders.cleaning import clean_caption as cleaned
from lumina.encoders.text import (
    FEATURE_LAYER,
    PLACE,
    encode_texts,
    fill_template,
    pad_features,
)
from lumina.flow.guidance import guide, guide_across
from lumina.flow.sample import flow_times
from lumina.pipelines import checks
from lumina.pipelines.adapters import LoraMixin
from lumina.pipelines.adoption import adopt
from lumina.pipelines.images import GUIDED_CHANNELS, ImagePipeline
from lumina.pipelines.single_file import load_single_file
from lumina.requests import SIZE_MULTIPLE
from lumina.types import Velocity

_OURS = (NextDiT.__module__, NextDiT.__name__)
_PUBLISHED = ("diffusers", LuminaNextDiT2DModel.__name__)
_USUAL = {"text_layer": FEATURE_LAYER, "prompt_template": PLACE}


class LuminaPipeline(ImagePipeline, LoraMixin):
    """Make pictures from text with a Next-DiT.

    Args:
        transformer: The backbone. Diffusers' `LuminaNextDiT2DModel` is taken over into ours,
            sharing its weights.
        scheduler: Any flow scheduler of diffusers, or one with `use_flow_sigmas`.
        vae: Decoder from latents to pixels.
        text_encoder: A decoder-only language model, such as Gemma.
        tokenizer: The tokenizer of the text encoder. It decides on which side texts are padded.
        text_layer: Which hidden states of the text encoder are read, as in `encode_texts`.
        prompt_template: What every prompt is put into, at "{prompt}".

    Raises:
        ValueError: If the template has no place for the prompt.
    """

    model_cpu_offload_seq = "text_encoder->transformer->vae"
    _callback_tensor_inputs = ["latents", "prompt_embeds"]
    _network: type[FlowTransformer] = NextDiT
    _makes_scheduler = False

    def __init__(
        self,
        transformer: NextDiT | FlagDiT | LuminaNextDiT2DModel | None,
        scheduler: SchedulerMixin | None,
        vae: AutoencoderKL | None,
        text_encoder: PreTrainedModel | None,
        tokenizer: PreTrainedTokenizerBase | None,
        text_layer: int = FEATURE_LAYER,
        prompt_template: str = PLACE,
    ):
        super().__init__()
        if PLACE not in prompt_template:
            raise ValueError(f"`prompt_template` has no {PLACE} in it: {prompt_template!r}")
        checks.network(adopt(transformer), self._network)
        checks.text_width(transformer, text_encoder)
        self.register_modules(
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            transformer=adopt(transformer),
            scheduler=scheduler,
        )
        self.register_to_config(text_layer=text_layer, prompt_template=prompt_template)
        self._prepare()
        self.max_sequence_length = 256

    @classmethod
    def from_single_file(
        cls,
        pretrained_model_link_or_path: str | Path,
        *,
        config: str | Path | None = None,
        dtype: torch.dtype | None = None,
        torch_dtype: torch.dtype | None = None,
        **parts: Any,
    ) -> "LuminaPipeline":
        """Load the transformer of one file, and put a pipeline around it.

        Args:
            pretrained_model_link_or_path: A file, or a folder of the original release: whatever
                `lumina.load_backbone` reads. If it also holds a VAE, that is used.
            config: A pipeline in diffusers' layout, a folder or the id of one on the hub, which
                gives the parts that are not given. None needs all of them.
            dtype: Of the weights. None keeps those of the files.
            torch_dtype: An older name of `dtype`.
            parts: `text_encoder`, `tokenizer`, `vae` and `scheduler`.

        Raises:
            LuminaError: If the file holds no transformer of the family, or parts are missing.
        """
        return load_single_file(
            cls,
            pretrained_model_link_or_path,
            config=config,
            dtype=dtype or torch_dtype,
            parts=parts,
        )

    @classmethod
    def extract_init_dict(
        cls, config_dict: dict[str, Any], **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        """Choose our class for the transformer of a published checkpoint."""
        components, unused, hidden = super().extract_init_dict(config_dict, **kwargs)
        if tuple(components.get("transformer", ())) == _PUBLISHED:
            components["transformer"] = _OURS
        return components, unused, hidden

    def register_to_config(self, **kwargs: Any) -> None:
        """Name the published class for our transformer, so that diffusers loads what we save."""
        if kwargs.get("transformer") == _OURS:
            kwargs["transformer"] = _PUBLISHED
        super().register_to_config(**kwargs)

    def to_json_string(self) -> str:
        """The index of a saved pipeline: it names our class for what diffusers' cannot be."""
        index = json.loads(super().to_json_string())
        if isinstance(self.transformer, NextDiT) and not self.transformer.fits_diffusers:
            index["transformer"] = list(_OURS)
        for name, usual in _USUAL.items():
            if index.get(name) == usual:  # diffusers' own class knows no such setting
                del index[name]
        return json.dumps(index, indent=2, sort_keys=True) + "\n"

    @property
    def _opens_in_diffusers(self) -> bool:
        is_usual = all(self.config[name] == usual for name, usual in _USUAL.items())
        network = getattr(self.transformer, "_orig_mod", self.transformer)
        fits = not isinstance(network, NextDiT) or network.fits_diffusers
        return is_usual and fits and type(self) is LuminaPipeline

    @torch.no_grad()
    def __call__(
        self,
        prompt=None,  # noqa: ANN001  (a wrong type is refused by `check_inputs`, by name)
        width: int | None = None,
        height: int | None = None,
        num_inference_steps: int = 30,
        guidance_scale: float = 4.0,
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
    ) -> ImagePipelineOutput | tuple:
        """Make pictures.

        Args:
            prompt: What to draw: a text, or a list of texts.
            width: Pixels, a multiple of 16. None or 0 is the size that the model was trained at.
            height: Pixels, a multiple of 16. None or 0 is the size that the model was trained at.
            num_inference_steps: Steps from noise to picture, 1 or more.
            guidance_scale: How closely to follow the prompt. 1 or less does not guide, in half
                the time.
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

        Returns:
            The pictures, those of the first prompt first.

        Raises:
            ValueError: If arguments contradict each other, or a size or shape does not fit.
        """
        height = height or self.default_image_size
        width = width or self.default_image_size
        if isinstance(callback_on_step_end, PipelineCallback | MultiPipelineCallbacks):
            callback_on_step_end_tensor_inputs = callback_on_step_end.tensor_inputs
        self.check_inputs(
            prompt,
            height,
            width,
            negative_prompt,
            prompt_embeds=prompt_embeds,
            negative_prompt_embeds=negative_prompt_embeds,
            prompt_attention_mask=prompt_attention_mask,
            negative_prompt_attention_mask=negative_prompt_attention_mask,
            callback_on_step_end_tensor_inputs=callback_on_step_end_tensor_inputs,
            max_sequence_length=max_sequence_length,
        )
        self._guidance_scale = guidance_scale
        self._interrupt = False
        device = self._execution_device

        features, mask, away, away_mask = self.encode_prompt(
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
        pictures = len(features)
        if self.do_classifier_free_guidance:
            features = torch.cat([features, cast(Tensor, away)])
            mask = torch.cat([mask, cast(Tensor, away_mask)])
        condition = _Condition(features.to(self.transformer.dtype), mask)

        timesteps = self._begin(num_inference_steps, width, height, device, sigmas)
        x = self.prepare_latents(
            pictures,
            self.transformer.config.in_channels,
            height,
            width,
            condition.features.dtype,
            device,
            generator,
            latents,
        )
        times = flow_times(self.scheduler, timesteps)
        scaling = self._scale_positions(times, width, height, scaling_watershed)
        attention = {"base_sequence_length": self._trained_tokens} if proportional_attn else {}

        def velocity(index: int) -> Velocity:
            part = condition.part(pictures, guided=self.do_classifier_free_guidance)
            group = self._guidance_group
            if self.do_classifier_free_guidance and group is not None:
                part = part.half(dist.get_rank(group))
            plain = partial(self._velocity, part, attention, scaling[index])
            if not self.do_classifier_free_guidance:
                return plain
            if group is None:
                return guide(plain, self.guidance_scale, channels=GUIDED_CHANNELS)
            return guide_across(plain, self.guidance_scale, group=group, channels=GUIDED_CHANNELS)

        def after_step(index: int, timestep: Tensor, x: Tensor) -> Tensor:
            nonlocal condition
            if callback_on_step_end is None:
                return x
            tensors = {"latents": x, "prompt_embeds": condition.features}
            tensors = {name: tensors[name] for name in callback_on_step_end_tensor_inputs}
            changed: dict[str, Tensor] = callback_on_step_end(self, index, timestep, tensors) or {}
            # It may also have written into the features, which the cache would not show.
            if "prompt_embeds" in tensors:
                features = changed.pop("prompt_embeds", condition.features)
                condition = condition.replace(features)
            return changed.pop("latents", x)

        x = self._follow(x, timesteps, velocity, generator, after_step)

        images = x
        if output_type != "latent":
            images = self.image_processor.postprocess(
                self._decode(x), output_type=cast(str, output_type)
            )
        self.maybe_free_model_hooks()
        # Diffusers allows for lists and arrays alone, and puts tensors there as well.
        return ImagePipelineOutput(images=cast(Any, images)) if return_dict else (images,)

    def encode_prompt(
        self,
        prompt: str | list[str] | None,
        do_classifier_free_guidance: bool = True,
        negative_prompt: str | list[str] | None = None,
        num_images_per_prompt: int = 1,
        device: torch.device | None = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        prompt_attention_mask: Tensor | None = None,
        negative_prompt_attention_mask: Tensor | None = None,
        clean_caption: bool = True,
        max_sequence_length: int = 256,
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """Encode prompts and negative prompts to features of one length.

        The arguments are those of a call. Features that are passed in stay as they are, but for
        padding; all are repeated for each picture of a prompt.

        Returns:
            Features and mask of the prompts, then of the negative prompts. The latter are as
            passed in when there is no guidance.

        Raises:
            TypeError: If `negative_prompt` is neither a text nor a list like `prompt`.
            ValueError: If prompts and negative prompts are not equally many.
        """
        device = device or self._execution_device
        prompts = [prompt] if isinstance(prompt, str) else prompt
        texts = list(cast(list[str], prompts)) if prompt_embeds is None else []
        count = len(texts) if prompt_embeds is None else len(prompt_embeds)
        encodes_negative = do_classifier_free_guidance and negative_prompt_embeds is None
        if encodes_negative:
            texts += checks.negative_prompts(negative_prompt, prompts, count)
        if texts:
            texts = [cleaned(text) for text in texts] if clean_caption else texts
            features, mask = encode_texts(
                [fill_template(self.config["prompt_template"], text) for text in texts],
                self.tokenizer,
                self.text_encoder,
                max_tokens=max_sequence_length,
                layer=self.config["text_layer"],
                device=device,
            )
            if prompt_embeds is None:
                prompt_embeds, prompt_attention_mask = features[:count], mask[:count]
            if encodes_negative:
                negative_prompt_embeds = features[-count:]
                negative_prompt_attention_mask = mask[-count:]

        # Features that were passed in have their mask, which `check_inputs` sees to.
        prompt_embeds = cast(Tensor, prompt_embeds)
        prompt_attention_mask = cast(Tensor, prompt_attention_mask)
        repeat = partial(_repeat, times=num_images_per_prompt, device=device)
        if negative_prompt_embeds is not None:
            checks.one_for_each(negative_prompt_embeds, count)
            tokens = max(prompt_embeds.shape[1], negative_prompt_embeds.shape[1])
            prompt_embeds, prompt_attention_mask = pad_features(
                prompt_embeds, prompt_attention_mask, tokens
            )
            negative_prompt_embeds, negative_prompt_attention_mask = map(
                repeat,
                pad_features(
                    negative_prompt_embeds, cast(Tensor, negative_prompt_attention_mask), tokens
                ),
            )
        prompt_embeds = repeat(prompt_embeds)
        prompt_attention_mask = repeat(prompt_attention_mask)
        return (
            prompt_embeds,
            prompt_attention_mask,
            negative_prompt_embeds,
            negative_prompt_attention_mask,
        )

    def check_inputs(
        self,
        prompt,  # noqa: ANN001
        height: int,
        width: int,
        negative_prompt: str | list[str] | None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        prompt_attention_mask: Tensor | None = None,
        negative_prompt_attention_mask: Tensor | None = None,
        callback_on_step_end_tensor_inputs: list[str] | None = None,
        max_sequence_length: int = 256,
    ) -> None:
        """Refuse what does not fit together, in the words of diffusers."""
        checks.size(width, height)
        checks.sequence_length(max_sequence_length)
        checks.callback_tensors(callback_on_step_end_tensor_inputs, self._callback_tensor_inputs)
        checks.prompt(prompt, prompt_embeds, prompt_attention_mask)
        checks.negative_prompt(
            negative_prompt, negative_prompt_embeds, negative_prompt_attention_mask
        )
        if prompt_embeds is not None and negative_prompt_embeds is not None:
            checks.equal_shapes("embeds", prompt_embeds, negative_prompt_embeds)
            checks.equal_shapes(
                "attention_mask",
                cast(Tensor, prompt_attention_mask),
                cast(Tensor, negative_prompt_attention_mask),
            )

    @property
    def _trained_tokens(self) -> int:
        """Tokens of a picture of the usual size."""
        return (self.default_image_size // SIZE_MULTIPLE) ** 2

    def _velocity(
        self,
        condition: "_Condition",
        attention: dict[str, int],
        scaling: dict[str, float],
        x: Float[Tensor, "b c rows cols"],
        t: Float[Tensor, ""],
    ) -> Float[Tensor, "b c rows cols"]:
        output = self.transformer(
            hidden_states=x,
            timestep=t.expand(len(x)),
            encoder_hidden_states=condition.features,
            encoder_mask=condition.mask,
            cross_attention_kwargs=attention,
            cache=self._cache(condition),
            return_dict=False,
            **scaling,
        )[0]
        # Channels past those of the data are a variance that the flow does not use.
        return output[:, : x.shape[1]]

    def _cache(self, condition: "_Condition") -> StepCache | None:
        # CUDA graphs, which `mode="max-autotune"` makes, write over what earlier calls returned.
        has_graphs = is_compiled_module(self.transformer) and self.device.type == "cuda"
        return None if has_graphs else condition.cache

    def _scale_positions(
        self, times: Float[Tensor, " s"], width: int, height: int, watershed: float | None
    ) -> list[dict[str, float]]:
        """How to read positions at each time, for a size other than the trained one.

        Source:
            Time-aware scaling of Lumina-Next, arXiv:2406.18583, section 2.3.
        """
        scale = math.sqrt(width * height / self.default_image_size**2)
        linear, ntk = {"rope_linear": scale}, {"rope_ntk": scale}
        if watershed is None:
            return [linear] * len(times)
        return [linear if early else ntk for early in (times < watershed).tolist()]


@dataclass
class _Condition:
    """Features of the prompts, followed by those of the negative prompts if there is guidance."""

    features: Float[Tensor, "b m d"]
    mask: Shaped[Tensor, "b m"]
    cache: StepCache = field(default_factory=StepCache)
    halves: "dict[int, _Condition]" = field(default_factory=dict)
    """Prompts and negative prompts alone, once a step has needed them."""

    def replace(self, features: Float[Tensor, "rows m d"]) -> "_Condition":
        """The same mask with other features, of which nothing is cached yet."""
        return _Condition(features, self.mask[: len(features)])

    def part(self, pictures: int, *, guided: bool) -> "_Condition":
        """The rows that a step needs: all of them, or those of the prompts where none guide."""
        if guided == (len(self.features) > pictures):
            return self
        if guided:
            raise ValueError(
                "Guidance was turned on after sampling began without it, when no negative prompt"
                " was encoded. Please start with `guidance_scale` above 1."
            )
        return self.half(0)

    def half(self, index: int) -> "_Condition":
        """The rows of the prompts alone (0), or of the negative prompts (1)."""
        if index not in self.halves:
            features, mask = self.features.chunk(2)[index], self.mask.chunk(2)[index]
            self.halves[index] = _Condition(features, mask)
        return self.halves[index]


def _repeat(rows: Tensor, *, times: int, device: torch.device) -> Tensor:
    return rows.to(device).repeat_interleave(times, dim=0)
