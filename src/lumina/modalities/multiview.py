"""Views of one thing: pictures from around it, each told where its camera is."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from lumina.backbones.flag_dit import FlagDiT
from lumina.media import put_side_by_side, stack
from lumina.modalities import Modality, Scaling
from lumina.modalities import video as clips
from lumina.nn.extrapolation import RopeScaling
from lumina.worlds.items import azimuths_around, relative_poses

MOST_VIEWS = 8

KNOWN_SHARE = 0.3
"""Share of examples of training whose first view is told."""

POSE = 2
"""Channels that tell a pose."""


class MultiViewModality(Modality):
    """Views from evenly spaced directions around a thing, of which the first may be known.

    A network reads, beside the noisy latents, those of the first view if it is known (zeros
    otherwise), which view is known, and the pose of each camera: the sine and the cosine of its
    azimuth, counted from the first camera, in every place of the view. So any direction may be the
    first, and views of any number have the same pose where they look from the same direction.

    Source:
        Views as frames and relative poses: MV-Next-DiT of Lumina-Next, arXiv:2406.18583. How the
        original tells poses is not published; this way is ours.
    """

    needs_autoencoder = True

    def open(self, autoencoder: Path, device: torch.device) -> clips.VideoCodec:
        """Load the image autoencoder."""
        return clips.MODALITY.open(autoencoder, device)

    def scaling(self, autoencoder: Path) -> Scaling:
        """That of the image autoencoder."""
        return clips.MODALITY.scaling(autoencoder)

    def network(self, autoencoder: Path, size: Sequence[int]) -> dict[str, Any]:
        """That of clips, with channels for poses."""
        settings = clips.MODALITY.network(autoencoder, size)
        return settings | {"in_channels": settings["in_channels"] + POSE}

    def grid(self, autoencoder: Path, size: Sequence[int]) -> tuple[int, ...]:
        """Views, rows and columns."""
        return clips.MODALITY.grid(autoencoder, size)

    def draw_hints(
        self,
        latents: Float[Tensor, "c views rows cols"],
        generator: torch.Generator,
        caption: str = "",
    ) -> Float[Tensor, "hints views rows cols"]:
        """All poses, and in some examples the first view, where it is not the only one."""
        is_told = torch.rand((), generator=generator) < KNOWN_SHARE
        return tell_views(latents, int(is_told and latents.shape[1] > 1))

    def enter(
        self,
        x: Float[Tensor, "b c views rows cols"],
        times: Float[Tensor, " b"],
        hints: Float[Tensor, "b hints views rows cols"] | None,
    ) -> Float[Tensor, "b channels views rows cols"]:
        """Latents, then what is known."""
        if hints is None:
            hints = torch.stack([tell_views(x[0], 0)] * len(x))
        return torch.cat([x, hints.to(x)], dim=1)

    def positions(self, network: Any, x: Tensor) -> dict[str, Any]:
        """Views by eighths of a turn; rows and columns as the pictures that the network grew from.

        So a direction has one rotary angle, however many views there are.
        """
        if isinstance(network, FlagDiT):
            return {}
        views, rows, cols = x.shape[-3:]
        scale = (rows * cols) ** 0.5 / network.config["sample_size"]
        return {"rope": RopeScaling(linear=(views / MOST_VIEWS, scale, scale))}

    def show(
        self, medium: UInt8[np.ndarray, "views height width 3"], *, small: bool = True
    ) -> Image.Image:
        """A contact sheet: up to four views in a row, more in two rows."""
        pictures = [Image.fromarray(view) for view in medium]
        columns = len(pictures) if len(pictures) <= MOST_VIEWS // 2 else -(-len(pictures) // 2)
        rows = range(0, len(pictures), columns)
        return stack([put_side_by_side(pictures[start : start + columns]) for start in rows])


MODALITY = MultiViewModality()


def tell_views(
    latents: Float[Tensor, "c views rows cols"], known: int
) -> Float[Tensor, "hints views rows cols"]:
    """Hints that tell the first views, as many as are known, and the pose of each."""
    views, rows, cols = latents.shape[1:]
    poses = torch.from_numpy(relative_poses(azimuths_around(views))).to(latents)
    planes = poses.T[:, :, None, None].expand(-1, -1, rows, cols)
    return torch.cat([clips.tell_frames(latents, known), planes])
