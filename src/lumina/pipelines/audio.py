"""Text to sound of any length."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, ModelMixin
from diffusers.schedulers import SchedulerMixin
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lumina.backbones.flag_dit import FlagDiT
from lumina.backbones.next_dit import NextDiT
from lumina.backbones.transformer import FlowTransformer
from lumina.checkpoints.folder import read_config, worlds_of
from lumina.encoders.text import FEATURE_LAYER, PLACE
from lumina.errors import LuminaError, UnknownNameError
from lumina.modalities import Scaling
from lumina.modalities.sound.autoencoder import MelAutoencoder
from lumina.modalities.sound.mel import SAMPLE_RATE, frames_of
from lumina.modalities.sound.modality import SoundCodec, latents_of
from lumina.modalities.sound.spectral import SpectralVocoder
from lumina.modalities.sound.vocoder import BigVGAN
from lumina.pipelines import checks
from lumina.pipelines.media import USUAL_GUIDANCE, USUAL_STEPS, MediaOutput, MediaPipeline, Source
from lumina.worlds.music_keys import spell_keys

LONGEST = 60.0
"""Seconds."""

VOCODERS: dict[str, Any] = {"SpectralVocoder": SpectralVocoder, "BigVGAN": BigVGAN}


class LuminaAudioPipeline(MediaPipeline):
    """Sounds from prompts.

    Args:
        transformer: A network that `lumina.modalities.sound.modality` describes.
        scheduler: As in `TextPipeline`, like the following ones.
        vae: Decodes latents to mel spectrograms.
        vocoder: Turns these into waveforms.
        text_encoder: Reads the prompts.
        tokenizer: Of the text encoder.
        text_layer: As in `TextPipeline`.
        prompt_template: As in `TextPipeline`.
        preset: None: there is none of media.
        usual_size: Frames of 16 ms of a sound where nothing else is asked for.
        usual_steps: Steps where nothing else is asked for.
        usual_guidance: Guidance where nothing else is asked for.
    """

    _modality = "sound"
    _number_for_each = "num_sounds_per_prompt"
    model_cpu_offload_seq = "text_encoder->transformer->vae->vocoder"

    def __init__(
        self,
        transformer: FlagDiT | NextDiT | None,
        scheduler: SchedulerMixin | None,
        vae: MelAutoencoder | None,
        vocoder: ModelMixin | None,
        text_encoder: PreTrainedModel | None,
        tokenizer: PreTrainedTokenizerBase | None,
        text_layer: int = FEATURE_LAYER,
        prompt_template: str = PLACE,
        preset: str | None = None,
        usual_size: str = "192",
        usual_steps: int = USUAL_STEPS,
        usual_guidance: float = USUAL_GUIDANCE,
    ):
        super().__init__(
            transformer,
            scheduler,
            None,
            text_encoder,
            tokenizer,
            text_layer,
            prompt_template,
            preset,
            usual_size,
            usual_steps,
            usual_guidance,
        )
        self.register_modules(vae=vae, vocoder=vocoder)

    @classmethod
    def around(
        cls,
        network: FlowTransformer,
        text_encoder: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        autoencoder: Path,
        size: Sequence[int],
    ) -> "LuminaAudioPipeline":
        """A pipeline around a network that was trained, with the vocoder beside the autoencoder.

        Raises:
            LuminaError: If there is no vocoder.
        """
        vae: Any = MelAutoencoder.from_pretrained(autoencoder, torch_dtype=network.dtype)
        vocoder = load_vocoder(autoencoder.parent / "vocoder", dtype=network.dtype)
        kept: Any = network
        scheduler = FlowMatchEulerDiscreteScheduler()
        return cls(kept, scheduler, vae, vocoder, text_encoder, tokenizer, usual_size=str(size[0]))

    @property
    def codec(self) -> SoundCodec:
        """Decodes by the autoencoder and the vocoder."""
        return SoundCodec(self.vae, self.components["vocoder"])

    @property
    def scaling(self) -> Scaling:
        """What the autoencoder's settings say."""
        return Scaling(factor=self.vae.config["scaling_factor"])

    @property
    def file_facts(self) -> dict[str, Any]:
        """The rate of the samples."""
        return {"sample_rate": SAMPLE_RATE}

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str],
        seconds: float | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | Sequence[float] | None = None,
        negative_prompt: str | list[str] | None = None,
        num_sounds_per_prompt: int = 1,
        generator: Source = None,
        latents: Tensor | None = None,
        output_type: str = "np",
        return_dict: bool = True,
        **sampling: Any,
    ) -> MediaOutput | tuple:
        """Make sounds.

        Args:
            prompt: What is heard: a text, or a list of texts.
            seconds: How long each sound is, above 0 and up to 60. None is the usual length.
            num_inference_steps: Steps from noise to data, 1 or more. None is what suits the model.
            guidance_scale: How closely to follow the prompt; 1 or less does not guide. None is what
                suits the model.
            negative_prompt: What to keep away from.
            num_sounds_per_prompt: Sounds of each prompt. They follow each other in the result.
            generator: The source of noise, or a list with one for each sound.
            latents: Noise to start from, instead.
            output_type: "np" for waveforms, or "latent".
            return_dict: Return an object with `media`, else a tuple with it.
            sampling: Other fields of `Sampling`, but for those that are for pictures alone.

        Returns:
            Waveforms at 16 kHz, in [-1, 1].

        Raises:
            LuminaError: If the length is out of range.
        """
        frames = self._frames(seconds)
        sampling |= {
            "num_inference_steps": num_inference_steps,
            "guidance_scale": guidance_scale,
            "negative_prompt": negative_prompt,
        }
        prompts, settings = self._ask(prompt, num_sounds_per_prompt, output_type, sampling)
        x = self._sample(
            prompts,
            (latents_of(frames, self.vae.config),),
            settings,
            channels=self.vae.config["latent_channels"],
            generator=generator,
            latents=latents,
        )
        media: Any = self._hand_out(x, output_type, return_dict=False)[0]
        if output_type == "np" and seconds is not None:
            samples = math.ceil(round(seconds * SAMPLE_RATE, 6))  # as `frames_of` does
            media = [one[:samples] for one in media]
        return MediaOutput(media=media) if return_dict else (media,)

    def _spell(self, text: str) -> str:
        """A prompt whose keys have the names that captions of music have for them."""
        folder = self.name_or_path
        is_of_music = folder is not None and "music" in worlds_of(Path(folder))
        return spell_keys(text) if is_of_music else text

    def _frames(self, seconds: float | None) -> int:
        if seconds is None:
            return int(self.config["usual_size"])
        checks.number(
            "seconds",
            seconds,
            least=1 / SAMPLE_RATE,
            most=LONGEST,
            is_whole=False,
            hint=f"a sample (1/{SAMPLE_RATE}) to {LONGEST:g}",
        )
        return frames_of(seconds)


def load_vocoder(folder: Path, *, dtype: torch.dtype) -> Any:
    """The vocoder in a folder, of whichever kind it is.

    Raises:
        LuminaError: If there is none, or it is of an unknown kind.
    """
    if not folder.is_dir():
        raise LuminaError(
            f"there is no vocoder {folder}", hint="put one beside the autoencoder, called vocoder"
        )
    name = read_config(folder).get("_class_name", "")
    if name not in VOCODERS:
        raise UnknownNameError.among(VOCODERS, name, kind="vocoder")
    return VOCODERS[name].from_pretrained(folder, torch_dtype=dtype).eval()
