"""How much memory a model takes, known before its weights are read."""

from dataclasses import dataclass
from pathlib import Path

from lumina.checkpoints.folder import count_parameters, part_folder, read_config
from lumina.requests import SIZE_MULTIPLE, read_size

_USUAL_AUTOENCODER = 83_653_863
"""Weights of the VAEs that released models take."""

_USUAL_CHANNELS = 256
"""Their channels where pictures are widest."""

_COPIES = 4
"""Pictures of the widest channels that a decoder holds at once."""

_TOKEN_COPIES = 12
"""Widths of a token that a block holds at once."""

_GUIDED = 2
"""Samples that are computed for one that is guided."""


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """How much memory a model takes."""

    parameters: int
    numbers_per_pixel: int
    """Numbers alive for each pixel while a picture is decoded, which takes more than a step."""
    numbers_per_step: float = 0.0
    """The same in a step of a network that has all frames or views before it at once."""

    @classmethod
    def around(cls, network: int, text_encoder: int = 0) -> "Footprint":
        """Memory of a network and a text encoder, by their weights, and of a VAE as usual."""
        return cls(
            parameters=network + text_encoder + _USUAL_AUTOENCODER,
            numbers_per_pixel=_COPIES * _USUAL_CHANNELS,
        )

    @classmethod
    def of_folder(cls, folder: Path) -> "Footprint":
        """Memory of a whole pipeline in diffusers' layout."""
        vae = part_folder(folder, "vae")
        channels = read_config(vae).get("block_out_channels") if vae.is_dir() else None
        # The last upsampling works on the channels of the block before it. Sounds and points have
        # none, and next to nothing is alive of them while they are decoded.
        widest = channels[min(1, len(channels) - 1)] if channels else 0
        hidden = read_config(folder / "transformer").get("hidden_size", 0)
        return cls(
            parameters=count_parameters(folder),
            numbers_per_pixel=_COPIES * widest,
            numbers_per_step=_GUIDED * _TOKEN_COPIES * hidden / SIZE_MULTIPLE**2,
        )

    @classmethod
    def of_recognizer(cls, folder: Path) -> "Footprint":
        """Memory of a network that works on pixels: all it holds at once of a token, by pixels."""
        config = read_config(folder / "transformer")
        return cls(
            parameters=count_parameters(folder),
            numbers_per_pixel=-(
                -_TOKEN_COPIES * config["hidden_size"] // config["patch_size"] ** 2
            ),
        )

    @classmethod
    def of_network(cls, path: Path) -> "Footprint":
        """Memory of a network that comes alone, and a VAE; a text encoder comes on top."""
        from lumina.checkpoints.network import find_network

        network = find_network(path, {}).build()
        return cls.around(sum(weight.numel() for weight in network.parameters()))

    def bytes(self, size: str, *, bytes_per_number: int, frames: int = 1) -> int:
        """Bytes that making a picture of this size takes, or so many at once; weights included."""
        width, height = read_size(size)
        each = max(self.numbers_per_pixel, round(frames * self.numbers_per_step))
        return (self.parameters + width * height * each) * bytes_per_number
