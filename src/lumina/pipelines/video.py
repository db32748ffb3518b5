"""Text to video: clips of any size and length, from prompts, first frames, or between prompts."""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import AutoencoderKL
from diffusers.schedulers import SchedulerMixin
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lumina.backbones.next_dit import NextDiT
from lumina.encoders.text import FEATURE_LAYER, PLACE
from lumina.errors import LuminaError
from lumina.modalities.video import tell_frames
from lumina.pipelines.frames import Frames, FramesPipeline, hints_of
from lumina.pipelines.media import USUAL_GUIDANCE, USUAL_STEPS, MediaOutput, Source
from lumina.pipelines.sampling import Sampling
from lumina.types import Velocity

MOST_FRAMES = 128


class LuminaVideoPipeline(FramesPipeline):
    """Clips from prompts.

    Args:
        transformer: A network that `lumina.modalities.video` describes.
        scheduler: As in `TextPipeline`, like the following ones.
        vae: An image autoencoder, which decodes each frame.
        text_encoder: Reads the prompts.
        tokenizer: Of the text encoder.
        text_layer: As in `TextPipeline`.
        prompt_template: As in `TextPipeline`.
        preset: None: there is none of media.
        usual_size: Width, height and frames of a clip where nothing else is asked for: "96x96x8".
        frame_rate: Frames a second.
        usual_steps: Steps where nothing else is asked for.
        usual_guidance: Guidance where nothing else is asked for.
        trained_frames: Of the longest clips of training: longer ones move more slowly. 0 is not
            known, and all move as fast.
    """

    _modality = "video"
    _number_for_each = "num_videos_per_prompt"

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
        usual_size: str = "96x96x8",
        frame_rate: float = 8.0,
        usual_steps: int = USUAL_STEPS,
        usual_guidance: float = USUAL_GUIDANCE,
        trained_frames: int = 0,
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
        self.register_to_config(frame_rate=frame_rate, trained_frames=trained_frames)

    @property
    def file_facts(self) -> dict[str, Any]:
        """The frame rate."""
        return {"frame_rate": self.config["frame_rate"]}

    def _positions(
        self, x: Float[Tensor, "b c frames rows cols"], hints: Tensor | None
    ) -> dict[str, Any]:
        """Frames of a longer clip than in training are read as close together as fit into one.

        Else what moves would arrive where that ends, and turn back. Known frames keep their speed.
        """
        positions, trained = super()._positions(x, hints), self.config["trained_frames"]
        if hints is not None or not 0 < trained < x.shape[2] or "rope" not in positions:
            return positions
        _, rows, cols = positions["rope"].linear
        longer = x.shape[2] / trained
        return positions | {"rope": positions["rope"]._replace(linear=(longer, rows, cols))}

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str],
        width: int | None = None,
        height: int | None = None,
        frames: int | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | Sequence[float] | None = None,
        negative_prompt: str | list[str] | None = None,
        num_videos_per_prompt: int = 1,
        generator: Source = None,
        latents: Tensor | None = None,
        output_type: str = "np",
        return_dict: bool = True,
        *,
        first_frames: Sequence[Image.Image] | Frames | None = None,
        to_prompt: str | None = None,
        **sampling: Any,
    ) -> MediaOutput | tuple:
        """Make clips.

        Args:
            prompt: What happens: a text, or a list of texts.
            width: Pixels, a multiple of 16. None is the usual one, like the following ones.
            height: Pixels, a multiple of 16.
            frames: How many there are, 1 to 128.
            num_inference_steps: Steps from noise to data, 1 or more. None is what suits the model.
            guidance_scale: How closely to follow the prompt; 1 or less does not guide. None is what
                suits the model.
            negative_prompt: What to keep away from.
            num_videos_per_prompt: Clips of each prompt. They follow each other in the result.
            generator: The source of noise, or a list with one for each clip.
            latents: Noise to start from, instead.
            output_type: "np" for bytes, or "latent".
            return_dict: Return an object with `media`, else a tuple with them.
            first_frames: Pictures that the clips begin with, of the size asked for. They come back
                as the autoencoder has them, which makes them as sharp as what follows.
            to_prompt: What happens in the end, after a seamless transition from the prompt. It goes
                with no `first_frames`, and callbacks are given no "prompt_embeds".
            sampling: Other fields of `Sampling`, but for those that are for pictures alone.

        Returns:
            Clips as bytes (frames, height, width, 3).

        Raises:
            LuminaError: If a size, the number of frames or what they begin with is out of range,
                or a transition cannot be made.
        """
        size = self._size(width, height, frames, called="frames", most=MOST_FRAMES)
        sampling |= {
            "num_inference_steps": num_inference_steps,
            "guidance_scale": guidance_scale,
            "negative_prompt": negative_prompt,
        }
        prompts, settings = self._ask(prompt, num_videos_per_prompt, output_type, sampling)
        grid = self._grid(size)
        known = None if first_frames is None else self._encode_known(first_frames, size)
        blend = None
        if to_prompt is not None:
            _check_transition(to_prompt, size[2], settings, has_beginning=known is not None)
            prompts, blend = self._ends(prompts, to_prompt), _blend_over(size[2])
        x = self._sample(
            prompts,
            grid,
            settings,
            channels=self.vae.config["latent_channels"],
            generator=generator,
            latents=latents,
            hints=hints_of(known, grid, tell_frames),
            blend=blend,
        )
        if known is not None:
            x[:, :, : known.shape[1]] = known.to(x)
        return self._hand_out(x, output_type, return_dict=return_dict)

    @staticmethod
    def _ends(prompts: list[str], to_prompt: str) -> list[str]:
        if len(prompts) != 1:
            raise LuminaError(
                f"there are {len(prompts)} clips and one transition",
                hint="give one prompt, and one clip of it",
            )
        return [prompts[0], to_prompt]


def _check_transition(
    to_prompt: Any, frames: int, sampling: Sampling, *, has_beginning: bool
) -> None:
    """Refuse a transition to nothing, or one that something else that was given rules out."""
    if not isinstance(to_prompt, str) or not to_prompt.strip():
        raise LuminaError(
            f"to_prompt is {to_prompt!r}, which says nothing", hint="give a text, or leave it out"
        )
    if has_beginning:
        raise LuminaError(
            "first frames and a transition cannot both decide how a clip begins",
            hint="leave first_frames or to_prompt out",
        )
    if frames == 1:
        raise LuminaError(
            "a clip of one frame has no room for what to_prompt asks for",
            hint="ask for two frames or more",
        )
    if "prompt_embeds" in sampling.callback_tensors:
        raise LuminaError(
            "a transition has features of two prompts, and a callback takes prompt_embeds of one",
            hint='leave "prompt_embeds" out of callback_on_step_end_tensor_inputs',
        )


def _blend_over(frames: int) -> Any:
    """One velocity of two: of the first prompt in the first frames, of the second in the last."""

    def blend(each: list[Velocity]) -> Velocity:
        first, last = each

        def velocity(x: Tensor, t: Tensor) -> Tensor:
            share = torch.linspace(0, 1, frames, device=x.device, dtype=x.dtype)
            # Both hold still for a quarter of the clip.
            share = ((share - 0.25) * 2).clamp(0, 1)[:, None, None]
            return first(x, t) * (1 - share) + last(x, t) * share

        return velocity

    return blend
