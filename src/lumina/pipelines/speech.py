"""Text to speech, of any sentence, in the voices that a model was trained on."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from diffusers import FlowMatchEulerDiscreteScheduler, ModelMixin
from diffusers.schedulers import SchedulerMixin
from diffusers.utils.torch_utils import randn_tensor
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from lumina.backbones.flag_dit import FlagDiT
from lumina.backbones.next_dit import NextDiT
from lumina.backbones.transformer import FlowTransformer
from lumina.checkpoints.folder import read_config
from lumina.errors import LuminaError, UnknownNameError
from lumina.flow.guidance import Guidance, guide
from lumina.flow.sample import begin_steps
from lumina.modalities.sound.mel import MELS, SAMPLE_RATE
from lumina.modalities.speech import MODALITY, SCALING, SpeechCodec, tell
from lumina.pipelines import checks
from lumina.pipelines.audio import VOCODERS, load_vocoder
from lumina.pipelines.images import Evaluations, ImagePipeline
from lumina.pipelines.media import MediaOutput, Source, sources_of
from lumina.pipelines.velocity import read_guidance_scale
from lumina.spelling import SPEEDS, VOICES, count_frames, read_letters
from lumina.types import Velocity

REST = 16
"""Frames of silence after a sentence: some time to end in, as there was in training."""


class LuminaSpeechPipeline(ImagePipeline):
    """Speech from sentences.

    Args:
        transformer: A network that `lumina.modalities.speech` describes, of as many classes as
            there are voices.
        scheduler: Any flow scheduler of diffusers, or one with `use_flow_sigmas`.
        vocoder: Turns mel spectrograms into waveforms.
        usual_steps: Steps where nothing else is asked for.
        usual_guidance: Guidance where nothing else is asked for.
    """

    _modality = "speech"
    model_cpu_offload_seq = "transformer->vocoder"

    def __init__(
        self,
        transformer: FlagDiT | NextDiT | None,
        scheduler: SchedulerMixin | None,
        vocoder: ModelMixin | None,
        usual_steps: int = 16,
        usual_guidance: float = 3.0,
    ):
        super().__init__()
        self.register_modules(transformer=transformer, scheduler=scheduler, vocoder=vocoder)
        self.register_to_config(usual_steps=usual_steps, usual_guidance=usual_guidance)
        self._prepare()

    @classmethod
    def around(
        cls,
        network: FlowTransformer,
        text_encoder: None,
        tokenizer: None,
        autoencoder: Path,
        size: Sequence[int],
    ) -> "LuminaSpeechPipeline":
        """A pipeline around a network that was trained, with its vocoder.

        Raises:
            LuminaError: If there is no vocoder.
        """
        kept: Any = network
        vocoder = load_vocoder(vocoder_folder(autoencoder), dtype=network.dtype)
        return cls(kept, FlowMatchEulerDiscreteScheduler(), vocoder)

    @property
    def codec(self) -> SpeechCodec:
        """Decodes by the vocoder."""
        return SpeechCodec(self.components["vocoder"])

    @property
    def file_facts(self) -> dict[str, Any]:
        """The rate of the samples."""
        return {"sample_rate": SAMPLE_RATE}

    def as_pictures(self, media: Sequence[Any], *, small: bool = True) -> list[Image.Image]:
        """Spectrograms."""
        return [MODALITY.show(medium, small=small) for medium in media]

    def pictures_of(self, latents: Float[Tensor, "b c frames"]) -> list[Image.Image]:
        """What latents look like."""
        return self.as_pictures(self.codec.decode(SCALING.unscale(latents)))

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str],
        voice: str = VOICES[0],
        speed: float = 1.0,
        num_inference_steps: int | None = None,
        guidance_scale: float | Sequence[float] | None = None,
        negative_prompt: str | list[str] | None = None,
        num_sounds_per_prompt: int = 1,
        generator: Source = None,
        output_type: str = "np",
        return_dict: bool = True,
        callback_on_step_end: Callable | None = None,
        callback_on_step_end_tensor_inputs: list[str] | None = None,
    ) -> MediaOutput | tuple:
        """Say sentences. Each takes its own time, so that one is made after the other.

        Args:
            prompt: What is said: a text, or a list of texts.
            voice: Who says it, a name in `lumina.spelling.VOICES`.
            speed: How much faster than usual, 0.8 to 1.25.
            num_inference_steps: Steps from noise to speech, 1 or more. None is what suits the
                model.
            guidance_scale: How closely to follow text and voice; 1 or less does not guide. One for
                all sounds, or one for each. None is what suits the model.
            negative_prompt: What to keep away from sounding like, in the same time: one text for
                all prompts, or one for each.
            num_sounds_per_prompt: Sounds of each prompt. They follow each other in the result.
            generator: The source of noise, or a list with one for each sound.
            output_type: "np" for waveforms, or "mel" for their spectrograms, as
                `lumina.modalities.sound.mel` makes them.
            return_dict: Return an object with `media`, else a tuple with it.
            callback_on_step_end: Called with the pipeline, the index of the step, its timestep and
                a dict of "latents" after each step of each sound. What it returns replaces them.
            callback_on_step_end_tensor_inputs: ["latents"], which is usual, or [].

        Returns:
            Waveforms at 16 kHz, in [-1, 1], or spectrograms (80, frames).

        Raises:
            LuminaError: If a text cannot be said, or the voice or the speed does not exist.
        """
        said = checks.prompts(prompt)
        checks.number("num_sounds_per_prompt", num_sounds_per_prompt, least=1)
        texts = [read_letters(text) for text in said for _ in range(num_sounds_per_prompt)]
        away = _read_each(negative_prompt, len(texts), num_sounds_per_prompt)
        self._check(voice, speed, output_type)
        sources = sources_of(generator, len(texts))
        steps = self.config["usual_steps"] if num_inference_steps is None else num_inference_steps
        scale = self.config["usual_guidance"] if guidance_scale is None else guidance_scale
        scales = read_guidance_scale(scale, len(texts))
        scales = scales if isinstance(scales, list) else [scales] * len(texts)
        after_step = self._take_over(callback_on_step_end, callback_on_step_end_tensor_inputs)
        self._guidance = Guidance(channels=None)
        self._begin_call()
        media = []
        for text, other, source, own in zip(texts, away, sources, scales, strict=True):
            if self.interrupt:
                break
            self._guidance_scale = own
            self._evaluations = Evaluations()
            frames = count_frames(text, voice, speed=speed)
            total = frames + REST
            hints = torch.stack([tell(one, total, spoken=frames) for one in (text, other)])
            x = self._say(hints, voice, steps, source, after_step)
            mel = SCALING.unscale(x)
            media += (
                self.codec.decode(mel) if output_type == "np" else list(mel.float().cpu().numpy())
            )
        self.maybe_free_model_hooks()
        return MediaOutput(media=media) if return_dict else (media,)

    def _check(self, voice: str, speed: float, output_type: str) -> None:
        known = VOICES[: self.transformer.config["num_classes"]]
        if voice not in known:
            raise UnknownNameError.among(known, voice, kind="voice")
        checks.number("speed", speed, least=SPEEDS[0], most=SPEEDS[1], is_whole=False)
        if output_type not in ("np", "mel"):
            raise LuminaError(f"output_type is {output_type!r}", hint="allowed: np, mel")

    def _say(
        self,
        hints: Float[Tensor, "2 hints frames"],
        voice: str,
        steps: int,
        generator: torch.Generator | None,
        after_step: Callable[[int, Tensor, Tensor], Tensor],
    ) -> Float[Tensor, "1 c frames"]:
        """The spectrogram of one sentence, as the flow has it."""
        device, frames = self._execution_device, hints.shape[-1]
        timesteps = begin_steps(self.scheduler, steps, sigmas=None, tokens=frames, device=device)
        self._num_timesteps = len(timesteps)
        nobody = self.transformer.config["num_classes"]
        labels = torch.tensor([VOICES.index(voice), nobody], device=device)
        hints, group = hints.to(device), self._guidance_group

        def at(time: float) -> Velocity:
            is_guided = self.do_classifier_free_guidance
            self._count(guided=is_guided)
            own = slice(2 if is_guided else 1)
            if is_guided and group is not None:
                own = slice(rank := dist.get_rank(group), rank + 1)
            plain = partial(self._velocity, hints[own], labels[own])
            return guide(plain, self.guidance, group=group) if is_guided else plain

        x = randn_tensor((1, MELS, frames), generator=generator, device=device)
        return self._follow(x, timesteps, at, generator, after_step)

    def _velocity(
        self,
        hints: Float[Tensor, "rows hints frames"],
        labels: Int[Tensor, " rows"],
        x: Float[Tensor, "b c frames"],
        t: Float[Tensor, ""],
    ) -> Float[Tensor, "b c frames"]:
        times = t.expand(len(x))
        seen = MODALITY.enter(x, times, hints).to(self.transformer.dtype)
        return self.transformer(seen, times, class_labels=labels, return_dict=False)[0].to(x.dtype)


def _read_each(away: str | list[str] | None, texts: int, each: int) -> list[str]:
    """Letters of a negative prompt for each text; "" for none."""
    if isinstance(away, list):
        away = [one for one in away for _ in range(each)]
    return [read_letters(one) if one else "" for one in checks.negative_prompts(away, None, texts)]


def vocoder_folder(part: Path) -> Path:
    """The folder of a vocoder: that which is named, or one beside it, called vocoder.

    Raises:
        LuminaError: If a folder has no settings of a model.
    """
    is_vocoder = read_config(part).get("_class_name") in VOCODERS
    return part if is_vocoder else part.parent / "vocoder"
