"""Sets of pictures in one style: attention is shared among the pictures of a batch."""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import ImagePipelineOutput
from jaxtyping import Int
from torch import Tensor

from lumina.backbones.blocks import Attends
from lumina.backbones.next_dit import NextDiT
from lumina.errors import LuminaError, UnknownNameError
from lumina.nn.shared_attention import frame_tokens, share_attention
from lumina.pipelines import checks
from lumina.pipelines.text import TextPipeline
from lumina.requests import SIZE_MULTIPLE
from lumina.types import Attend, Size, Velocity

SHARED = ("frame", "all")
SOURCES = ("first", "all")


class LuminaStylePipeline(TextPipeline):
    """Make sets of pictures that look alike. Its parts are those of `TextPipeline`."""

    _network = NextDiT

    @torch.no_grad()
    def __call__(
        self,
        prompts: Sequence[str],
        sharing: float = 10.0,
        *,
        source: str = "first",
        shared: str = "frame",
        first_block: int | None = None,
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
            sharing: How many times a shared token counts in attention, where a picture's own
                count once. 0 makes independent pictures.
            source: "first" makes the first picture the one that the others follow, and leaves it
                as it is alone. With "all" each follows all others.
            shared: "frame" shares the tokens along the edges of a picture, which show its
                surroundings; what is in its middle is hardly carried over. "all" shares all.
            first_block: Share in the blocks of the network from this one on, counted from 0. None:
                in the second half. Before that, blocks lay out what is to be seen.
            interval: Share between these times.
            width: Pixels, a multiple of 16. None is the size that the model was trained at.
            height: Pixels, a multiple of 16. None is the size that the model was trained at.
            generator: The source of noise, or a list with one for each picture.
            latents: Noise to start from, instead of `generator`.
            output_type: As in `LuminaPipeline`.
            return_dict: As in `LuminaPipeline`.
            sampling: Fields of `Sampling`.

        Raises:
            UnknownNameError: If `source` or `shared` is none of these.
            LuminaError: If a setting is out of range, or there are no prompts.
            ValueError: If a size or the latents do not fit the model.

        Source:
            See `share_attention`.
        """
        size = Size(width or self.default_image_size, height or self.default_image_size)
        settings = self._settings(sampling)
        checks.size(*size)
        _check(prompts, sharing=sharing, source=source, shared=shared, interval=interval)
        tokens = _shared_tokens(shared, size)
        attends = None
        if sharing and len(prompts) > 1:
            sources = 1 if source == "first" else None
            attend = share_attention(len(prompts), tokens, sharing=sharing, sources=sources)
            attends = _in_blocks(attend, len(self.transformer.layers), first_block)
        velocity = self._encode_for(prompts, size, settings)

        def at(time: float) -> Velocity:
            is_shared = interval[0] <= time < interval[1]
            velocity.attend = attends if is_shared else None
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


def _shared_tokens(shared: str, size: Size) -> Int[Tensor, " shared"]:
    rows, cols = size.height // SIZE_MULTIPLE, size.width // SIZE_MULTIPLE
    return frame_tokens(rows, cols) if shared == "frame" else torch.arange(rows * cols)


def _in_blocks(attend: Attend, blocks: int, first: int | None) -> Attends:
    """Attention of each block: shared from the first one on.

    Raises:
        LuminaError: If there is no such block.
    """
    first = blocks // 2 if first is None else first
    if not 0 <= first < blocks:
        raise LuminaError(
            f"the first block that shares is {first}, and the network has {blocks}",
            hint=f"allowed: 0 to {blocks - 1}",
        )
    return [attend if number >= first else None for number in range(blocks)]


def _check(
    prompts: Sequence[str],
    *,
    sharing: float,
    source: str,
    shared: str,
    interval: tuple[float, float],
) -> None:
    if isinstance(prompts, str) or not prompts:
        raise LuminaError(
            "a set needs a list of prompts", hint='["a cat on a red background", "a dog"]'
        )
    if sharing < 0:
        raise LuminaError(f"sharing is {sharing}", hint="allowed: 0 and above")
    if source not in SOURCES:
        raise UnknownNameError.among(SOURCES, source, kind="source")
    if shared not in SHARED:
        raise UnknownNameError.among(SHARED, shared, kind="part to share")
    start, end = interval
    if not 0 <= start < end <= 1:
        raise LuminaError(
            f"pictures share from {start} to {end}", hint="give two times, 0 <= a < b <= 1"
        )
