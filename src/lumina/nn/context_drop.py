"""Context drop: attention to fewer keys and values, averaged over small windows of the grid."""

from collections.abc import Sequence
from functools import partial

from jaxtyping import Float
from torch import Tensor, nn

from lumina.errors import UnknownNameError
from lumina.nn.attention import fused_attend
from lumina.requests import CONTEXT_DROPS
from lumina.types import Attend

WINDOW = 2
"""Rows and columns that are averaged: three quarters of all keys and values are dropped."""


def pooled_attend(
    grid: tuple[int, int],
    *,
    window: int = WINDOW,
    attend: Attend = fused_attend,
) -> Attend:
    """Attend to averages over windows of a grid; queries stay as they are.

    Args:
        grid: Rows and columns of the tokens.
        window: Rows and columns of a window. Those at the end may be smaller.
        attend: What attends to the averages.

    Source:
        Context drop of Lumina-Next, arXiv:2406.18583, section 2.3, which does not tell whether
        keys are averaged before or after rotation. Here it is after.
    """
    pool = partial(pool_grid, grid=grid, window=window)

    def attend_pooled(
        query: Float[Tensor, "b n h k"],
        key: Float[Tensor, "b n g k"],
        value: Float[Tensor, "b n g k"],
        *,
        mask: Tensor | None = None,
        scale: float | None = None,
    ) -> Float[Tensor, "b n h k"]:
        if mask is not None:
            raise ValueError("windows of a grid cannot be averaged where a mask hides tokens")
        return attend(query, pool(key), pool(value), scale=scale)

    return attend_pooled


def pool_grid(
    tokens: Float[Tensor, "b n h k"], *, grid: tuple[int, int], window: int = WINDOW
) -> Float[Tensor, "b m h k"]:
    """Averages over windows of a grid, those at its end over what is left of them."""
    pictures = tokens.unflatten(1, grid).flatten(3).movedim(-1, 1)
    pooled = nn.functional.avg_pool2d(pictures, window, ceil_mode=True, count_include_pad=False)
    return pooled.movedim(1, -1).flatten(1, 2).unflatten(-1, tokens.shape[2:])


def drop_in_blocks(
    mode: str, attends: Sequence[Attend], *, time: float
) -> Sequence[Attend | None] | None:
    """Attention of each block: with fewer keys and values in some of them.

    Args:
        mode: "none"; "all" blocks; or "time-aware": from all at noise to none at data, where the
            last blocks go on the longest.
        attends: For each block, what attends to fewer of them.
        time: Between 0 (noise) and 1 (data).

    Raises:
        UnknownNameError: If there is no such mode.

    Source:
        Time-aware context drop of Lumina-Next, arXiv:2406.18583, section 2.3, which tells what
        happens at both ends of time, and not in between.
    """
    if mode not in CONTEXT_DROPS:
        raise UnknownNameError.among(CONTEXT_DROPS, mode, kind="context drop")
    if mode == "none":
        return None
    first = 0.0 if mode == "all" else time * len(attends)
    return [attend if number >= first else None for number, attend in enumerate(attends)]
