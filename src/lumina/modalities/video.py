"""Clips: frames of pictures, each through an image autoencoder by itself, seen together."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageOps
from torch import Tensor

from lumina.backbones.flag_dit import FlagDiT
from lumina.errors import LuminaError
from lumina.media import put_side_by_side
from lumina.media.video import check_clip, read_first_frames
from lumina.modalities import Latents, Modality, Scaling
from lumina.modalities import image as images
from lumina.nn.extrapolation import RopeScaling
from lumina.requests.media import FRAME_RATE

LENT = 8
"""Channels of a head that rows and columns lend to frames."""

KNOWN_SHARE = 0.25
"""Share of clips of training whose first frames are told."""


class VideoCodec:
    """Clips and their latents, frame by frame.

    Args:
        vae: An image autoencoder.
    """

    def __init__(self, vae: Any):
        self._images = images.ImageCodec(vae)

    def encode(self, media: Sequence[UInt8[np.ndarray, "frames height width 3"]]) -> Latents:
        """Latents of clips of one size."""
        frames = [frame for clip in media for frame in clip]
        found = self._images.encode(frames)
        mean, std = (
            part.unflatten(0, (len(media), -1)).transpose(1, 2).contiguous() for part in found
        )
        return Latents(mean, std)

    def decode(
        self, latents: Float[Tensor, "b c frames rows cols"]
    ) -> list[UInt8[np.ndarray, "frames height width 3"]]:
        """Clips from latents."""
        frames = self._images.decode(latents.transpose(1, 2).flatten(0, 1))
        count = latents.shape[2]
        return [np.stack(frames[at : at + count]) for at in range(0, len(frames), count)]


class VideoModality(Modality):
    """Clips of any size and length, of which the first frames may be known.

    A network reads, beside the noisy latents, those of the frames that are known (zeros for the
    others), and which are.
    """

    needs_autoencoder = True
    axes = ("width", "height", "frames")
    endings = (".mp4", ".mov", ".webm", ".mkv", ".avi", ".gif")

    def read(self, path: Path, size: Sequence[int]) -> UInt8[np.ndarray, "frames height width 3"]:
        """The middle of the first frames of a clip, `FRAME_RATE` a second."""
        width, height, count = size
        clip = read_first_frames(path, count, rate=FRAME_RATE)
        if len(clip) < count:
            raise LuminaError(
                f"{path} has {len(clip)} frames, {FRAME_RATE:.0f} a second, and {count} are needed",
                hint="ask for fewer frames",
            )
        frames = (Image.fromarray(frame) for frame in clip)
        fitted = (ImageOps.fit(one, (width, height), Image.Resampling.BICUBIC) for one in frames)
        return np.stack([np.asarray(one) for one in fitted])

    def check(self, path: Path, size: Sequence[int]) -> None:
        """Refuse what is no clip; how many frames it has is known once they are decoded."""
        check_clip(path)

    def open(self, autoencoder: Path, device: torch.device) -> VideoCodec:
        """Load the image autoencoder."""
        return VideoCodec(images.MODALITY.open(autoencoder, device).vae)

    def scaling(self, autoencoder: Path) -> Scaling:
        """That of the image autoencoder."""
        return images.MODALITY.scaling(autoencoder)

    def network(self, autoencoder: Path, size: Sequence[int]) -> dict[str, Any]:
        """That of pictures, with more channels to read, and channels of heads lent to frames."""
        settings = images.MODALITY.network(autoencoder, size)
        channels = settings["in_channels"]
        return settings | {
            "in_channels": 2 * channels + 1,
            "out_channels": channels,
            "rope_lent": LENT,
            "has_frame_token": True,  # of a Flag-DiT
        }

    def grid(self, autoencoder: Path, size: Sequence[int]) -> tuple[int, ...]:
        """Frames, rows and columns."""
        return size[2], *images.MODALITY.grid(autoencoder, size)

    def draw_hints(
        self,
        latents: Float[Tensor, "c frames rows cols"],
        generator: torch.Generator,
        caption: str = "",
    ) -> Float[Tensor, "hints frames rows cols"]:
        """In some clips of several frames the first, one to half of them."""
        most, count = latents.shape[1] // 2, 0
        if most and torch.rand((), generator=generator) < KNOWN_SHARE:
            count = int(torch.randint(1, most + 1, (), generator=generator))
        return tell_frames(latents, count)

    def enter(
        self,
        x: Float[Tensor, "b c frames rows cols"],
        times: Float[Tensor, " b"],
        hints: Float[Tensor, "b hints frames rows cols"] | None,
    ) -> Float[Tensor, "b channels frames rows cols"]:
        """Latents, then what is known."""
        if hints is None:
            hints = torch.zeros_like(x[:, :1]).repeat(1, x.shape[1] + 1, 1, 1, 1)
        return torch.cat([x, hints.to(x)], dim=1)

    def positions(self, network: Any, x: Tensor) -> dict[str, Any]:
        """Rows and columns as the pictures of the network that clips grew from."""
        if isinstance(network, FlagDiT):
            return {}
        rows, cols = x.shape[-2:]
        scale = (rows * cols) ** 0.5 / network.config["sample_size"]
        return {"rope": RopeScaling(linear=(1.0, scale, scale))}

    def show(
        self, medium: UInt8[np.ndarray, "frames height width 3"], *, small: bool = True
    ) -> Image.Image:
        """Up to eight frames side by side."""
        step = -(-len(medium) // 8)
        return put_side_by_side([Image.fromarray(frame) for frame in medium[::step]])


MODALITY = VideoModality()


def tell_frames(
    latents: Float[Tensor, "c frames rows cols"], count: int
) -> Float[Tensor, "hints frames rows cols"]:
    """Hints that tell the first frames of a clip: their latents, and where they are."""
    is_known = torch.zeros_like(latents[:1])
    is_known[:, :count] = 1
    return torch.cat([latents * is_known, is_known])
