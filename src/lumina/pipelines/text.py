"""What all pipelines of text share: prompts, their velocity, and how a picture begins and ends."""

import inspect
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from diffusers import AutoencoderKL, ImagePipelineOutput, LuminaNextDiT2DModel
from diffusers.schedulers import SchedulerMixin
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lumina.backbones.flag_dit import FlagDiT
from lumina.backbones.next_dit import NextDiT
from lumina.backbones.transformer import FlowTransformer
from lumina.encoders.cleaning import clean_caption as cleaned
from lumina.encoders.text import (
    FEATURE_LAYER,
    PLACE,
    encode_texts,
    fill_template,
    pad_features,
)
from lumina.errors import LuminaError, UnknownNameError
from lumina.pipelines import checks
from lumina.pipelines.adoption import adopt
from lumina.pipelines.images import ImagePipeline
from lumina.pipelines.pictures import encode_pixels
from lumina.pipelines.sampling import USUAL, Sampling, sampling_of
from lumina.pipelines.single_file import load_single_file
from lumina.pipelines.velocity import Condition, TextVelocity, as_guidance_scale, repeat_rows
from lumina.requests import SIZE_MULTIPLE
from lumina.types import Size

if TYPE_CHECKING:
    from lumina.pipelines.media import MediaVelocity

_OURS = (NextDiT.__module__, NextDiT.__name__)
_PUBLISHED = ("diffusers", LuminaNextDiT2DModel.__name__)
_PARTS = ("transformer", "scheduler", "vae", "text_encoder", "tokenizer")
_DEFAULTS = {"text_layer": FEATURE_LAYER, "prompt_template": PLACE, "preset": None}


class TextPipeline(ImagePipeline):
    """Pictures from prompts, whatever is done with them.

    Args:
        transformer: The backbone. Diffusers' `LuminaNextDiT2DModel` is taken over into ours,
            sharing its weights.
        scheduler: Any flow scheduler of diffusers, or one with `use_flow_sigmas`.
        vae: Decoder from latents to pixels.
        text_encoder: A decoder-only language model, such as Gemma.
        tokenizer: The tokenizer of the text encoder. It decides on which side texts are padded.
        text_layer: Which hidden states of the text encoder are read, as in `encode_texts`.
        prompt_template: What every prompt is put into, at "{prompt}".
        preset: Which settings are usual: those of diffusers for None, or those of the original
            release.

    Raises:
        ValueError: If the template has no place for the prompt.
    """

    model_cpu_offload_seq = "text_encoder->transformer->vae"
    _callback_tensor_inputs = ["latents", "prompt_embeds"]
    _network: type[FlowTransformer] | None = None
    _has_presets = True
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
        preset: str | None = None,
    ):
        super().__init__()
        if PLACE not in prompt_template:
            raise ValueError(f"`prompt_template` has no {PLACE} in it: {prompt_template!r}")
        if preset is not None and not self._has_presets:
            raise LuminaError(f"{type(self).__name__} has no preset", hint="leave it out")
        if preset not in USUAL:
            raise UnknownNameError.among([n for n in USUAL if n], str(preset), kind="preset")
        checks.network(adopt(transformer), self._network)
        checks.text_width(transformer, text_encoder)
        self.register_modules(
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            transformer=adopt(transformer),
            scheduler=scheduler,
        )
        self.register_to_config(
            text_layer=text_layer, prompt_template=prompt_template, preset=preset
        )
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
    ) -> Any:
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
    def from_pipe(cls, pipeline: Any, **kwargs: Any) -> Any:
        """Make a pipeline of another task from the parts of one, which both share.

        Args:
            pipeline: Any pipeline of text, diffusers' own included.
            kwargs: Other parts or settings; `dtype` turns the parts of both into it. (Where it is
                left out, diffusers' method turns them into float32, and this one into nothing.)
        """
        dtype = kwargs.pop("dtype", kwargs.pop("torch_dtype", None))
        known = {**pipeline.config, **pipeline.components}
        names = inspect.signature(cls.__init__).parameters
        shared = {name: known[name] for name in names if known.get(name) is not None}
        made = cls(**{**dict.fromkeys(_PARTS), **shared, **kwargs})
        return made if dtype is None else made.to(dtype)

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
        for name, usual in _DEFAULTS.items():
            if index.get(name) == usual:  # diffusers' own class knows no such setting
                del index[name]
        return json.dumps(index, indent=2, sort_keys=True) + "\n"

    @property
    def has_usual_settings(self) -> bool:
        """Whether diffusers' own class would compute the same with these parts."""
        fits = not isinstance(self.network, NextDiT) or self.network.fits_diffusers
        return fits and all(self.config[name] == usual for name, usual in _DEFAULTS.items())

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
            texts = [self._spell(text) for text in texts]
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
        repeat = partial(repeat_rows, times=num_images_per_prompt, device=device)
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
    def network(self) -> Any:
        """The transformer itself, where a compiler has wrapped it."""
        return getattr(self.transformer, "_orig_mod", self.transformer)

    @property
    def trained_tokens(self) -> int:
        """Tokens of a picture of the usual size."""
        side = self.default_image_size // SIZE_MULTIPLE
        # The original code counts two tokens more for each row, though one ends it.
        return side**2 + 2 * side * isinstance(self.network, FlagDiT)

    def _spell(self, text: str) -> str:
        """A prompt in the spelling that the model knows."""
        return text

    def _settings(self, given: dict[str, Any]) -> Sampling:
        """All settings of a call that begins: those that were given, and what is usual here."""
        self._begin_call()
        return sampling_of(self, USUAL[self.config["preset"]] | given)

    def _make_velocity(
        self,
        features: tuple[Tensor, Tensor, Tensor | None, Tensor | None],
        size: Size,
        sampling: Sampling,
    ) -> TextVelocity:
        """The velocity of prompts that `encode_prompt` encoded, once guidance is set."""
        prompts, mask, away, away_mask = features
        pictures = len(prompts)
        if self.do_classifier_free_guidance:
            prompts = torch.cat([prompts, cast(Tensor, away)])
            mask = torch.cat([mask, cast(Tensor, away_mask)])
        condition = Condition(prompts.to(self.transformer.dtype), mask)
        return TextVelocity(self, condition, pictures, size, sampling)

    def _encode_for(
        self, prompts: Sequence[str], size: Size, sampling: Sampling, *, pictures: int | None = None
    ) -> TextVelocity:
        """Set the guidance of a call, and the velocity of its prompts.

        Args:
            prompts: One for each picture.
            size: Of the pictures, in pixels.
            sampling: All settings.
            pictures: How many there are, if not one for each prompt.
        """
        checks.size(*size)
        checks.sequence_length(sampling.max_sequence_length)
        checks.callback_tensors(sampling.callback_tensors, self._callback_tensor_inputs)
        checks.prompt(list(prompts), None, None)
        self._guide(sampling, len(prompts) if pictures is None else pictures)
        features = self.encode_prompt(
            list(prompts),
            self.do_classifier_free_guidance,
            negative_prompt=sampling.negative_prompt,
            clean_caption=sampling.clean_caption,
            max_sequence_length=sampling.max_sequence_length,
        )
        return self._make_velocity(features, size, sampling)

    def _guide(self, sampling: Sampling, pictures: int) -> None:
        """Set the guidance of so many pictures."""
        self._guidance = sampling.guidance
        self._guidance_scale = as_guidance_scale(sampling.guidance_scale, pictures)

    def _after_step(
        self, velocity: "TextVelocity | MediaVelocity"
    ) -> Callable[[int, Tensor, Tensor], Tensor]:
        """What calls the callback, and takes over what it changed."""
        callback = cast(Any, velocity.sampling.callback_on_step_end)
        names = velocity.sampling.callback_tensors

        def after_step(index: int, timestep: Tensor, x: Tensor) -> Tensor:
            if callback is None:
                return x
            tensors = {"latents": x, "prompt_embeds": velocity.condition.features}
            tensors = {name: tensors[name] for name in names}
            changed: dict[str, Tensor] = callback(self, index, timestep, tensors) or {}
            # It may also have written into the features, which the cache would not show.
            if "prompt_embeds" in tensors:
                features = changed.pop("prompt_embeds", velocity.condition.features)
                velocity.condition = velocity.condition.replace(features)
            return changed.pop("latents", x)

        return after_step

    def _finish(
        self, x: Float[Tensor, "b c rows cols"], *, output_type: str | None, return_dict: bool
    ) -> ImagePipelineOutput | tuple:
        """Decode latents into what a call returns."""
        if output_type == "latent":
            return self._hand_over(x, return_dict=return_dict)
        return self._finish_pixels(
            self._decode(x), output_type=output_type, return_dict=return_dict
        )

    def _finish_pixels(
        self,
        pixels: Float[Tensor, "b 3 height width"],
        *,
        output_type: str | None,
        return_dict: bool,
    ) -> ImagePipelineOutput | tuple:
        """Turn pixels from -1 to 1 into what a call returns."""
        images = self._postprocess(pixels, output_type)
        return self._hand_over(images, return_dict=return_dict)

    def _finish_picture(
        self,
        pixels: Float[Tensor, "b 3 height width"],
        output_type: str | None,
        *,
        return_dict: bool,
    ) -> ImagePipelineOutput | tuple:
        """As `_finish_pixels`, and latents of the pixels for those who want latents."""
        if output_type == "latent":
            return self._hand_over(encode_pixels(self.vae, pixels), return_dict=return_dict)
        return self._finish_pixels(pixels, output_type=output_type, return_dict=return_dict)

    def _hand_over(self, images: Any, *, return_dict: bool) -> ImagePipelineOutput | tuple:
        self.maybe_free_model_hooks()
        # Diffusers allows for lists and arrays alone, and puts tensors there as well.
        return ImagePipelineOutput(images=cast(Any, images)) if return_dict else (images,)
