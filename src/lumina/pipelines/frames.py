"""What pipelines of clips and of views share: pictures of one size, the first of them known."""

from collections.abc import Callable, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lumina.backbones.transformer import FlowTransformer
from lumina.errors import LuminaError
from lumina.media import see_on
from lumina.modalities import Scaling
from lumina.modalities.image import latent_factor, scaling_of
from lumina.modalities.video import VideoCodec
from lumina.pipelines import checks
from lumina.pipelines.media import MediaPipeline
from lumina.requests import read_axes

Frames = UInt8[np.ndarray, "frames height width 3"]
TellKnown = Callable[[Tensor, int], Tensor]


class FramesPipeline(MediaPipeline):
    """Several pictures at a time, each decoded by itself. Its parts are those of `TextPipeline`."""

    @classmethod
    def around(
        cls,
        network: FlowTransformer,
        text_encoder: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        autoencoder: Path,
        size: Sequence[int],
    ) -> Any:
        """A pipeline around a network that was trained, and media of a size."""
        vae: Any = AutoencoderKL.from_pretrained(autoencoder, torch_dtype=network.dtype)
        made: Any = cls
        return made(
            network,
            FlowMatchEulerDiscreteScheduler(),
            vae,
            text_encoder,
            tokenizer,
            usual_size="x".join(map(str, size)),
        )

    @property
    def codec(self) -> VideoCodec:
        """Decodes each picture."""
        return VideoCodec(self.vae)

    @property
    def scaling(self) -> Scaling:
        """That of the image autoencoder."""
        return scaling_of(self.vae.config)

    def _grid(self, size: tuple[int, int, int]) -> tuple[int, int, int]:
        """Axes of the latents of a width, a height and a number of pictures."""
        factor = latent_factor(self.vae.config)
        return size[2], size[1] // factor, size[0] // factor

    def _size(
        self, width: int | None, height: int | None, count: int | None, *, called: str, most: int
    ) -> tuple[int, int, int]:
        """Width, height and number of pictures, as given or usual.

        Args:
            width: Pixels. None is the usual one, as for the others.
            height: Pixels.
            count: How many pictures.
            called: What these are called.
            most: How many there may be.

        Raises:
            LuminaError: If they are out of range.
        """
        usual = read_axes(self.config["usual_size"])
        width = usual[0] if width is None else width
        height = usual[1] if height is None else height
        count = usual[2] if count is None else count
        multiple = latent_factor(self.vae.config) * self.network.patch_size
        for name, side in (("width", width), ("height", height)):
            if not isinstance(side, Integral) or side < 1 or side % multiple:
                raise LuminaError(
                    f"{name} is {side!r}, and such pictures cannot be made",
                    hint=f"choose multiples of {multiple}",
                )
        checks.number(called, count, least=1, most=most)
        return width, height, count

    def _encode_known(
        self, pictures: Sequence[Image.Image] | Frames, size: tuple[int, int, int]
    ) -> Float[Tensor, "c known rows cols"]:
        """Latents of the first pictures.

        Raises:
            LuminaError: If they have another size, or are all that is asked for.
        """
        checks.pictures("what is known", pictures)
        known = [pixels_of(one) for one in pictures]
        if not 0 < len(known) < size[2]:
            raise LuminaError(
                f"{len(known)} pictures are known of {size[2]}",
                hint="give one or more, and leave at least one to make",
            )
        for one in known:
            if one.shape[:2] != (size[1], size[0]):
                raise LuminaError(
                    f"what is known is {one.shape[1]}x{one.shape[0]} pixels, and what is asked for"
                    f" {size[0]}x{size[1]}",
                    hint="resize it, or ask for its size",
                )
        return self.scaling.scale(self.codec.encode([np.stack(known)]).mean[0])


def pixels_of(picture: Image.Image | UInt8[np.ndarray, "height width 3"]) -> np.ndarray:
    """Bytes of a picture, on white where it is transparent."""
    return np.asarray(see_on(picture) if isinstance(picture, Image.Image) else picture)


def hints_of(
    known: Float[Tensor, "c known rows cols"] | None, grid: tuple[int, int, int], tell: TellKnown
) -> Float[Tensor, "1 hints n rows cols"] | None:
    """What a network is told where the first pictures are known.

    Args:
        known: Their latents. None: nothing is told.
        grid: Axes of the latents of all pictures.
        tell: Makes hints of latents, of which so many are known.
    """
    if known is None:
        return None
    whole = known.new_zeros(len(known), *grid)
    whole[:, : known.shape[1]] = known
    return tell(whole, known.shape[1])[None]
