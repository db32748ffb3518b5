"""Kinds of data: how each becomes latents that a flow is trained on, and comes back."""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lumina.errors import LuminaError, UnknownNameError
from lumina.requests import OF_MODALITIES

if TYPE_CHECKING:
    from PIL.Image import Image

    from lumina.backbones.transformer import FlowTransformer


class Latents(NamedTuple):
    """Means and spreads of the latents of some media, as an autoencoder gives them."""

    mean: Float[Tensor, "b c *grid"]
    std: Float[Tensor, "b c *grid"]


class Scaling(NamedTuple):
    """From latents as an autoencoder gives them to those of about unit spread, and back."""

    shift: float = 0.0
    factor: float = 1.0

    def scale(self, latents: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Latents as a flow has them."""
        return (latents - self.shift) * self.factor

    def unscale(self, latents: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Latents as the autoencoder has them."""
        return latents / self.factor + self.shift


@runtime_checkable
class Codec(Protocol):
    """What turns media into latents and back."""

    def encode(self, media: Sequence[np.ndarray]) -> Latents:
        """Latents of media of one size."""
        ...

    def decode(self, latents: Float[Tensor, "b c *grid"]) -> list[np.ndarray]:
        """Media from latents, as the autoencoder has them."""
        ...


@runtime_checkable
class Modality(Protocol):
    """What a kind of data is to a flow. It has no weights of its own.

    Methods take the folder of the autoencoder, which is empty where a modality needs none; sizes
    are those of `Medium`, such as width, height and frames.
    """

    needs_autoencoder: bool
    axes: Sequence[str] = ()
    """What the numbers of a size count."""
    endings: Sequence[str] = ()
    """How files end that it can be trained on; none where media come from worlds alone."""

    def read(self, path: Path, size: Sequence[int]) -> np.ndarray:
        """The part of a file that is trained on, as large as asked.

        Raises:
            LuminaError: If the file cannot be read, or is smaller than that.
        """
        raise LuminaError(f"{path} is no file that is trained on", hint="see `endings`")

    def check(self, path: Path, size: Sequence[int]) -> None:
        """Refuse a file that `read` would refuse, as far as its header tells.

        Raises:
            LuminaError: If it is refused.
        """
        raise LuminaError(f"{path} is no file that is trained on", hint="see `endings`")

    def open(self, autoencoder: Path, device: torch.device) -> Codec:
        """Load what encodes and decodes."""
        ...

    def scaling(self, autoencoder: Path) -> Scaling:
        """How far latents of an autoencoder are from unit spread, as its settings say."""
        ...

    def network(self, autoencoder: Path, size: Sequence[int]) -> dict[str, Any]:
        """Settings of a network for latents of an autoencoder, and media of about a size."""
        ...

    def grid(self, autoencoder: Path, size: Sequence[int]) -> tuple[int, ...]:
        """Axes of the latents of media of a size."""
        ...

    def draw_noise(
        self, latents: Float[Tensor, "c *grid"], generator: torch.Generator
    ) -> Float[Tensor, "c *grid"]:
        """Where the way to latents of training begins: noise, unless a modality says otherwise."""
        return torch.randn(latents.shape, generator=generator)

    def draw_hints(
        self, latents: Float[Tensor, "c *grid"], generator: torch.Generator, caption: str = ""
    ) -> Float[Tensor, "hints *grid"] | None:
        """What a sample of training is told besides its condition: nothing, or hints.

        It may be parts that are known, or the caption where it is not the condition; that is ""
        where it is not to be told.
        """
        return None

    def enter(
        self,
        x: Float[Tensor, "b c *grid"],
        times: Float[Tensor, " b"],
        hints: Float[Tensor, "b hints *grid"] | None,
    ) -> Float[Tensor, "b channels *grid"]:
        """What the network reads at a point of the way."""
        ...

    def positions(self, network: "FlowTransformer", x: Tensor) -> dict[str, Any]:
        """Arguments of the network that say how positions and attention are scaled."""
        ...

    def show(self, medium: np.ndarray, *, small: bool = True) -> "Image":
        """A medium as a picture: a small one beside others, as in grids and previews, or alone.

        What has pixels keeps them.
        """
        ...


MODALITIES = ("image", *OF_MODALITIES)


def find_modality(name: str) -> Modality:
    """The modality of a name: `MODALITY` in the module that is called so.

    Raises:
        UnknownNameError: If there is none.
    """
    if name not in MODALITIES:
        raise UnknownNameError.among(MODALITIES, name, kind="modality")
    return importlib.import_module(f"{__name__}.{name}").MODALITY
