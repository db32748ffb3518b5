"""Pictures in, labels out: pixels of any size as whole patches, and the classes that speak most."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor


class Guess(NamedTuple):
    """What a picture may show, and how probable that is by the network's own account."""

    label: str
    probability: float


def to_tensor(
    pixels: UInt8[np.ndarray, "rows cols 3"], *, patch_size: int
) -> Float[Tensor, "3 height width"]:
    """A picture in [-1, 1], as large as it is: its last row and column fill up the last patches."""
    room = [(0, -length % patch_size) for length in pixels.shape[:2]]
    whole = np.pad(pixels, (*room, (0, 0)), mode="edge")
    return torch.from_numpy(whole).permute(2, 0, 1).float() / 127.5 - 1


def rank(
    logits: Float[Tensor, "b classes"], labels: Sequence[str], *, top: int
) -> list[list[Guess]]:
    """The most probable classes of each picture, the first first."""
    shares, numbers = (part.tolist() for part in logits.float().softmax(-1).topk(top))
    return [
        [Guess(labels[int(number)], share) for number, share in zip(*row, strict=True)]
        for row in zip(numbers, shares, strict=True)
    ]
