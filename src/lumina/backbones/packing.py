"""Samples of different lengths, and of any number of axes, as tokens of one batch."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from lumina.nn.layers import PatchEmbed, unpatchify


class Packed(NamedTuple):
    """Tokens of samples padded to one length, and which of them are no padding (None: all)."""

    tokens: Shaped[Tensor, "b n *rest"]
    row: "Row | None"

    @property
    def mask(self) -> Bool[Tensor, "b n"] | None:
        """Which tokens are no padding. None: all."""
        return None if self.row is None else self.row.mask(self.tokens)


class Row(NamedTuple):
    """How the tokens of all samples lie in one row without padding."""

    lengths: tuple[int, ...]
    """How many tokens each sample has."""

    def mask(self, batch: Shaped[Tensor, "b n *rest"]) -> Bool[Tensor, "b n"]:
        """Which tokens of a padded batch are no padding."""
        numbers = torch.arange(batch.shape[1], device=batch.device)
        return numbers < torch.tensor(self.lengths, device=batch.device)[:, None]

    def join(self, batch: Shaped[Tensor, "b n *rest"]) -> Shaped[Tensor, "1 tokens *rest"]:
        """Leave padding out of a batch."""
        parts = [sample[:length] for sample, length in zip(batch, self.lengths, strict=True)]
        return torch.cat(parts).unsqueeze(0)

    def split(self, row: Shaped[Tensor, "1 tokens *rest"]) -> list[Shaped[Tensor, "1 _ *rest"]]:
        """The tokens of each sample, as a batch of one."""
        return list(row.split(self.lengths, dim=1))

    def part(self, row: Shaped[Tensor, "1 tokens *rest"]) -> Shaped[Tensor, "b n *rest"]:
        """Make a batch of a row, with zeros for padding."""
        return pad_sequence([sample[0] for sample in self.split(row)], batch_first=True)

    def spread(self, values: Shaped[Tensor, "b 1 *rest"]) -> Shaped[Tensor, "1 tokens *rest"]:
        """Give each token what is that of its sample."""
        lengths = torch.tensor(self.lengths, device=values.device)
        return (
            values.squeeze(1)
            .repeat_interleave(lengths, dim=0, output_size=sum(self.lengths))
            .unsqueeze(0)
        )


def pack(parts: list[Shaped[Tensor, "_ *rest"]]) -> Packed:
    """Put tokens of samples of any lengths into one batch."""
    return Packed(pad_sequence(parts, batch_first=True), Row(tuple(map(len, parts))))


def pack_each(
    data: Tensor | list[Tensor], embed: Callable[[Tensor], Shaped[Tensor, "b n *rest"]]
) -> Packed:
    """Tokens of a batch, or of a list of samples that differ in size."""
    if isinstance(data, list):
        return pack([embed(sample.unsqueeze(0))[0] for sample in data])
    return Packed(embed(data), None)


def unpack_each(
    packed: Packed,
    data: Tensor | list[Tensor],
    restore: Callable[[Shaped[Tensor, "b n *rest"], Tensor], Tensor],
) -> Tensor | list[Tensor]:
    """Data of the same sizes from what became of its tokens.

    Args:
        packed: The tokens.
        data: What they were made of by `pack_each`.
        restore: Takes tokens of a batch and data of the size to make.
    """
    if not isinstance(data, list):
        return restore(packed.tokens, data)
    if packed.row is None:
        raise ValueError("tokens of a batch cannot be told apart by a list of samples")
    rows = zip(packed.tokens, packed.row.lengths, data, strict=True)
    return [restore(row[None, :length], sample[None])[0] for row, length, sample in rows]


class Grid(NamedTuple):
    """Patches of a sample along each axis: sequences are one row, and pictures one frame."""

    frames: int
    rows: int
    cols: int

    @classmethod
    def of(cls, data: Tensor, *, axes: int, patch_size: int) -> "Grid":
        """Patches of data whose last axes are those of its grid.

        Args:
            data: Latents.
            axes: 1 for sequences, 2 for pictures, 3 for frames of pictures.
            patch_size: Height and width of a patch; a patch never spans frames.

        Raises:
            ValueError: If the latents do not fill whole patches.
        """
        frames, height, width = (*[1] * (3 - axes), *data.shape[-axes:])
        if height % patch_size or width % patch_size:
            raise ValueError(
                f"latents of {height} x {width} do not divide into patches of "
                f"{patch_size} x {patch_size}"
            )
        return cls(frames, height // patch_size, width // patch_size)


def embed_frames(
    data: Float[Tensor, "b c *grid"], embed: PatchEmbed
) -> Float[Tensor, "b frames n d"]:
    """Tokens of each frame, row by row."""
    video = _as_video(data)
    patches = embed(video.transpose(1, 2).flatten(0, 1))
    return patches.unflatten(0, (-1, video.shape[2]))


def restore_frames(
    values: Float[Tensor, "b frames n values"], like: Float[Tensor, "b c *grid"], patch_size: int
) -> Float[Tensor, "b out *grid"]:
    """Data of the grid of `like` from the values of its patches."""
    grid = Grid.of(like, axes=like.ndim - 2, patch_size=patch_size)
    pictures = unpatchify(
        values.flatten(0, 1), patch_size=patch_size, rows=grid.rows, cols=grid.cols
    )
    video = pictures.unflatten(0, (-1, grid.frames)).transpose(1, 2)
    return video.reshape(len(like), -1, *like.shape[2:])


def _as_video(data: Float[Tensor, "b c *grid"]) -> Float[Tensor, "b c frames height width"]:
    while data.ndim < 5:
        data = data.unsqueeze(2)
    return data
