"""Samples of different lengths in one batch."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


class Packed(NamedTuple):
    """Tokens of samples padded to one length, and which of them are no padding (None: all)."""

    tokens: Shaped[Tensor, "b n *rest"]
    mask: Bool[Tensor, "b n"] | None


class Row(NamedTuple):
    """How the tokens of all samples lie in one row without padding, and where in a batch."""

    places: Int[Tensor, " n"]
    """Of each token: its number among those of the batch, padding included."""
    samples: int
    length: int
    """How many tokens each sample of the batch has, padding included."""

    def join(self, batch: Shaped[Tensor, "b n *rest"]) -> Shaped[Tensor, "1 tokens *rest"]:
        """Leave padding out of a batch."""
        return batch.flatten(0, 1)[self.places].unsqueeze(0)

    def part(self, row: Shaped[Tensor, "1 tokens *rest"]) -> Shaped[Tensor, "b n *rest"]:
        """Make a batch of a row, with zeros for padding."""
        batch = row.new_zeros(self.samples * self.length, *row.shape[2:])
        return batch.index_copy(0, self.places, row[0]).unflatten(0, (self.samples, self.length))

    def spread(self, values: Shaped[Tensor, "b 1 *rest"]) -> Shaped[Tensor, "1 tokens *rest"]:
        """Give each token what is that of its sample."""
        return values[self.places // self.length, 0].unsqueeze(0)


def row_of(mask: Bool[Tensor, "b n"]) -> Row:
    """The row of the tokens that are no padding."""
    return Row(mask.flatten().nonzero().squeeze(1), *mask.shape)


def pack(parts: list[Shaped[Tensor, "_ *rest"]]) -> Packed:
    """Put tokens of samples of any lengths into one batch."""
    lengths = torch.tensor([len(part) for part in parts], device=parts[0].device)
    tokens = pad_sequence(parts, batch_first=True)
    mask = torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]
    return Packed(tokens, mask)


def unpack(
    tokens: Shaped[Tensor, "b n *rest"], mask: Bool[Tensor, "b n"]
) -> list[Shaped[Tensor, "_ *rest"]]:
    """Take the tokens of each sample out of a batch."""
    return [rows[: int(is_token.sum())] for rows, is_token in zip(tokens, mask, strict=True)]
