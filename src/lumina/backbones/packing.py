"""Samples of different lengths in one batch."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Shaped
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


class Packed(NamedTuple):
    """Tokens of samples padded to one length, and which of them are no padding (None: all)."""

    tokens: Shaped[Tensor, "b n *rest"]
    mask: Bool[Tensor, "b n"] | None


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
