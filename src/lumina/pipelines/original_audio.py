"""Sounds and music by the models that were released, from the files as they were released."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from diffusers import ModelMixin
from diffusers.schedulers import SchedulerMixin
from jaxtyping import Float
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase, T5EncoderModel

from lumina.backbones.flag_dit import FlagDiT
from lumina.catalog import OF_SOUND, find_part
from lumina.checkpoints.sound import (
    CLAP,
    find_beside,
    find_checkpoint,
    load_original_audio,
    load_original_clap,
)
from lumina.encoders.audio_text import ClapTextEncoder, encode_for_music, encode_for_sound
from lumina.encoders.text import FEATURE_LAYER, PLACE, fill_template
from lumina.errors import LuminaError
from lumina.flow.scheduler import FlowSolverScheduler
from lumina.modalities.sound.autoencoder import MelAutoencoder
from lumina.modalities.sound.released import count_times
from lumina.pipelines import checks
from lumina.pipelines.audio import LuminaAudioPipeline
from lumina.pipelines.media import USUAL_GUIDANCE, USUAL_STEPS

USUAL_FRAMES = 624
"""Frames of 16 ms of a sound of the original demos: ten seconds."""

_NUDGE = 1e-6  # times come from sums, and those that are whole thousandths stay so


class OriginalAudioPipeline(LuminaAudioPipeline):
    """Make sounds or music as the original release does.

    Models of sound read a caption by CLAP, and by T5 as events in time; those of music by T5
    alone. Texts are read as they are, and cut at 77 tokens. Steps are Euler's on equal times.
    Guidance has an effect, which it had not for music in the original code, where the unguided
    features were those of the prompt.

    Args:
        transformer: A Flag-DiT of sound, as `load_original_audio` gives it.
        scheduler: Any flow scheduler. None: Euler's steps.
        vae: Decodes latents to mel spectrograms.
        vocoder: Turns these into waveforms.
        text_encoder: The encoder of FLAN-T5 large for music, of T5 v1.1 large for sound.
        tokenizer: Of the text encoder.
        text_layer: Has no effect: features are what T5 gives.
        prompt_template: As in `TextPipeline`.
        preset: None: there is none of media.
        usual_size: Frames of 16 ms of a sound where nothing else is asked for.
        clap: Reads captions besides, for sound.
        clap_tokenizer: That of bert-base-uncased.
        usual_steps: Steps where nothing else is asked for.
        usual_guidance: Guidance where nothing else is asked for.

    Source:
        `lumina_audio` and `lumina_music` of the original code, whose steps count both ends: one
        more than the steps here.
    """

    _optional_components: ClassVar[list[str]] = ["vae", "clap", "clap_tokenizer"]
    _without_effect: ClassVar[set[str]] = {
        *LuminaAudioPipeline._without_effect,
        "clean_caption",
        "max_sequence_length",
    }
    model_cpu_offload_seq = "text_encoder->clap->transformer->vae->vocoder"

    def __init__(
        self,
        transformer: FlagDiT | None,
        scheduler: SchedulerMixin | None,
        vae: MelAutoencoder | None,
        vocoder: ModelMixin | None,
        text_encoder: PreTrainedModel | None,
        tokenizer: PreTrainedTokenizerBase | None,
        text_layer: int = FEATURE_LAYER,
        prompt_template: str = PLACE,
        preset: str | None = None,
        usual_size: str = str(USUAL_FRAMES),
        clap: ClapTextEncoder | None = None,
        clap_tokenizer: PreTrainedTokenizerBase | None = None,
        usual_steps: int = USUAL_STEPS,
        usual_guidance: float = USUAL_GUIDANCE,
    ):
        super().__init__(
            transformer,
            scheduler or FlowSolverScheduler(solver="euler"),
            vae,
            vocoder,
            text_encoder,
            tokenizer,
            text_layer,
            prompt_template,
            preset,
            usual_size,
            usual_steps,
            usual_guidance,
        )
        self.register_modules(clap=clap, clap_tokenizer=clap_tokenizer)

    @classmethod
    def from_release(
        cls,
        path: str | Path,
        *,
        text_encoder: str | Path | None = None,
        clap_tokenizer: str | Path | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> "OriginalAudioPipeline":
        """Load the files of the release.

        Args:
            path: As in `load_original_audio`. It is a model of sound where there is
                `CLAP/CLAP_weights_2022.pth` beside the vocoder, else one of music.
            text_encoder: A folder or hub id of T5. None is the folder `text_encoder` beside the
                vocoder, or the model of the hub that it was trained with.
            clap_tokenizer: The same of the tokenizer of bert-base-uncased.
            dtype: Of the transformer and the text encoders; what decodes stays in float32.

        Raises:
            LuminaError: If a part is missing, damaged, or not on this machine.
        """
        checkpoint = find_checkpoint(Path(path))
        clap_file = find_beside(checkpoint, CLAP)
        usual = "t5-v1.1-large" if clap_file else "flan-t5-large"
        name = text_encoder or find_beside(checkpoint, "text_encoder") or usual
        words = find_part(name, OF_SOUND, kind="text encoder", flag="text_encoder=")
        clap: Any = None
        reader = None
        if clap_file is not None:
            beside = find_beside(checkpoint, "clap_tokenizer")
            source = clap_tokenizer or beside or "bert-base-uncased"
            folder = find_part(source, OF_SOUND, kind="tokenizer", flag="clap_tokenizer=")
            clap, reader = load_original_clap(clap_file), AutoTokenizer.from_pretrained(folder)
        models = load_original_audio(path)
        if models.vocoder is None:
            raise LuminaError(
                f"there is no vocoder beside {path}",
                hint="put the folder bigvnat of the release beside the checkpoint",
            )
        made: Any = cls
        network: Any = models.transformer  # whose type misleads about `to`
        return made(
            network.to(dtype),
            None,
            models.autoencoder,
            models.vocoder,
            T5EncoderModel.from_pretrained(words, dtype=dtype).eval(),
            AutoTokenizer.from_pretrained(words),
            clap=None if clap is None else clap.to(dtype),
            clap_tokenizer=reader,
        )

    def encode_prompt(
        self,
        prompt: str | list[str] | None,
        do_classifier_free_guidance: bool = True,
        negative_prompt: str | list[str] | None = None,
        **_: Any,
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """Features of prompts and of negative prompts, all of the same length."""
        prompts = [prompt] if isinstance(prompt, str) else list(prompt or ())
        features, mask = self._read(prompts)
        if not do_classifier_free_guidance:
            return features, mask, None, None
        return (
            features,
            mask,
            *self._read(checks.negative_prompts(negative_prompt, prompts, len(prompts))),
        )

    def _read(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        device, parts = self._execution_device, self.components
        texts = [fill_template(self.config["prompt_template"], text) for text in texts]
        t5 = {"tokenizer": parts["tokenizer"], "encoder": parts["text_encoder"]}
        if parts["clap"] is None:
            features, mask = encode_for_music(texts, **t5)
        else:
            features, mask = encode_for_sound(
                texts, clap_tokenizer=parts["clap_tokenizer"], clap=parts["clap"], **t5
            )
        return features.to(device), mask.to(device)

    def _network_times(self, times: Float[Tensor, " b"]) -> Tensor:
        return count_times(times + _NUDGE)
