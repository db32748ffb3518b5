"""Samples of different lengths in one batch."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Shaped
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


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
