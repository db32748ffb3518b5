"""Sets of pictures in one style: attention is shared among the pictures of a batch."""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import ImagePipelineOutput
from torch import Tensor

from lumina.backbones.blocks import Attends
from lumina.backbones.next_dit import NextDiT
from lumina.errors import LuminaError, UnknownNameError
from lumina.nn.regional import UNNOTICED
from lumina.nn.shared_attention import frame_tokens, share_tokens, share_words
from lumina.pipelines import checks
from lumina.pipelines.text import TextPipeline
from lumina.pipelines.velocity import Condition, TextVelocity
from lumina.requests import SIZE_MULTIPLE
from lumina.types import Attend, Size, Velocity

SHARED = ("words", "frame", "all")


class LuminaStylePipeline(TextPipeline):
    """Make sets of pictures that look alike. Its parts are those of `TextPipeline`."""

    _network = NextDiT

    @torch.no_grad()
    def __call__(
        self,
        prompts: Sequence[str],
        sharing: float = 5.0,
        *,
        shared: str = "words",
        first_block: int = 0,
        interval: tuple[float, float] = (0.0, 1.0),
        width: int | None = None,
        height: int | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: Tensor | None = None,
        output_type: str | None = "pil",
        return_dict: bool = True,
        **sampling: Any,
    ) -> ImagePipelineOutput | tuple:
        """Make a set of pictures.

        Args:
            prompts: One for each picture.
            sharing: How many times a shared word or token counts in attention, where a picture's
                own count once. 0 makes independent pictures.
            shared: With "words", all pictures attend to those words of the first prompt that
                concern the surroundings in its picture, and so follow what it says of them. With
                "frame", they attend to the tokens along the edges of the first picture. In both,
                the first picture is what it would be alone. With "all", each picture attends to
                all tokens of all others, as in the paper.
            first_block: Share in the blocks of the network from this one on.
            interval: Share between these times.
            width: Pixels, a multiple of 16. None is the size that the model was trained at.
            height: Pixels, a multiple of 16. None is the size that the model was trained at.
            generator: The source of noise, or a list with one for each picture.
            latents: Noise to start from, instead of `generator`.
            output_type: As in `LuminaPipeline`.
            return_dict: As in `LuminaPipeline`.
            sampling: Fields of `Sampling`.

        Raises:
            UnknownNameError: If `shared` is none of these.
            LuminaError: If a setting is out of range, or there are no prompts.
            ValueError: If a size or the latents do not fit the model.

        Source:
            See `share_words` and `share_tokens`.
        """
        size = Size(width or self.default_image_size, height or self.default_image_size)
        settings = self._settings(sampling)
        checks.size(*size)
        blocks = len(self.transformer.layers)
        _check(prompts, sharing, shared, interval, first_block=first_block, blocks=blocks)
        velocity = self._encode_for(prompts, size, settings)
        is_on, is_off = _share(velocity, sharing=sharing, shared=shared)
        is_on = [is_on if number >= first_block else is_off for number in range(blocks)]

        def at(time: float) -> Velocity:
            attends: Attends = is_on if _is_in(time, interval) else is_off
            if shared == "words":
                velocity.attend_text = attends
            else:
                velocity.attend = attends
            return velocity.at(time)

        device = self._execution_device
        timesteps = self._begin(settings.num_inference_steps, *size, device, settings.sigmas)
        x = self.prepare_latents(
            len(prompts),
            self.transformer.config["in_channels"],
            size.height,
            size.width,
            self.transformer.dtype,
            device,
            generator,
            latents,
        )
        x = self._follow(x, timesteps, at, generator, self._after_step(velocity))
        return self._finish(x, output_type=output_type, return_dict=return_dict)


def _share(velocity: TextVelocity, *, sharing: float, shared: str) -> tuple[Attend, Attend | None]:
    """Attention that shares, and attention that does not, for what the velocity then reads."""
    rows, cols = velocity.size.height // SIZE_MULTIPLE, velocity.size.width // SIZE_MULTIPLE
    pictures = velocity.pictures
    if shared == "all":
        return share_tokens(pictures, torch.arange(rows * cols), sharing=sharing), None
    frame = frame_tokens(rows, cols)
    if shared == "frame":
        return share_tokens(pictures, frame, sharing=sharing, sources=1), None
    velocity.condition = _append_first(velocity.condition, pictures)
    words = [share_words(pictures, frame, sharing=amount) for amount in (sharing, 0.0)]
    return words[0], words[1]


def _append_first(texts: Condition, pictures: int) -> Condition:
    """Each text, followed by the first prompt, which those after it see in attention alone."""
    first = texts.features[:1].expand_as(texts.features)
    seen = torch.zeros_like(texts.mask, dtype=torch.float32)
    seen[1:pictures] = texts.mask[0] * UNNOTICED
    return Condition(
        torch.cat([texts.features, first], dim=1), torch.cat([texts.mask.float(), seen], dim=1)
    )


def _check(
    prompts: Sequence[str],
    sharing: float,
    shared: str,
    interval: tuple[float, float],
    *,
    first_block: int,
    blocks: int,
) -> None:
    if isinstance(prompts, str) or not prompts:
        raise LuminaError(
            "a set needs a list of prompts", hint='such as ["a cat on a red background", "a dog"]'
        )
    if sharing < 0:
        raise LuminaError(f"sharing is {sharing}", hint="allowed: 0 and above")
    if shared not in SHARED:
        raise UnknownNameError.among(SHARED, shared, kind="part to share")
    if not 0 <= first_block < blocks:
        raise LuminaError(
            f"the first block that shares is {first_block}, and the network has {blocks}",
            hint=f"allowed: 0 to {blocks - 1}",
        )
    start, end = interval
    if not 0 <= start < end <= 1:
        raise LuminaError(
            f"pictures share from {start} to {end}", hint="give two times, 0 <= a < b <= 1"
        )


def _is_in(time: float, interval: tuple[float, float]) -> bool:
    """Whether a time lies between two; the end counts where it is that of the flow."""
    start, end = interval
    return start <= time and (time < end or end == 1)
