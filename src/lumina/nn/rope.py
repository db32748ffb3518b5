"""Rotary positions on grids of frames, rows and columns."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from lumina.nn.extrapolation import UNSCALED, PerAxis, RopeScaling, yarn_share


def grid_positions(
    *, frames: int = 1, rows: int, cols: int, device: torch.device | str | None = None
) -> Float[Tensor, "n 3"]:
    """Frame, row and column of each token of a grid, columns fastest."""
    axes = [torch.arange(count, device=device).float() for count in (frames, rows, cols)]
    return torch.cartesian_prod(*axes)


def rope_table(
    positions: Float[Tensor, "n axes"],
    *,
    channels: tuple[int, ...],
    theta: float = 10000.0,
    scaling: RopeScaling = UNSCALED,
    lent: int = 0,
    lent_theta: float = 100.0,
) -> Float[Tensor, "n half 2"]:
    """Cosine and sine of the angles by which `rotate` turns the channels of each token.

    The axes take turns, from high frequencies to low: row, column, row, column and so on.

    Args:
        positions: Where each token is, in patches along each axis.
        channels: How many channels of a head each axis turns: even numbers, 0 for an unused axis.
        theta: How much slower the last frequency of an axis turns than the first.
        scaling: How a larger grid than that of training is read.
        lent: How many of these channels turn by the first axis instead, which has none of its own:
            the last ones, which turn the slowest.
        lent_theta: How much slower the last frequency of lent channels turns than the first.

    Raises:
        ValueError: If the scaling has values for another number of axes.

    Source:
        Lumina-Next, arXiv:2406.18583, section 2.2. Two axes give the table of diffusers'
        `get_2d_rotary_pos_embed_lumina`, in the same float32 operations. Lending is ours.
    """
    device = positions.device
    turns = [torch.arange(count // 2, device=device) for count in channels]
    slowness = [2 * turn / count for turn, count in zip(turns, channels, strict=True)]
    owners = [torch.full_like(turn, axis) for axis, turn in enumerate(turns)]
    order = torch.cat(turns).argsort(stable=True)
    owner, slow = torch.cat(owners)[order], torch.cat(slowness)[order]
    bases: float | Tensor = theta
    if lent:
        bases = torch.full_like(slow, theta)
        owner[-lent // 2 :], bases[-lent // 2 :] = 0, lent_theta
        slow[-lent // 2 :] = 2 * torch.arange(lent // 2, device=device) / lent
    frequencies = _frequencies(slow, owner, bases, scaling, len(channels))
    angles = positions[:, owner] * frequencies
    return torch.stack([angles.cos(), angles.sin()], dim=-1)


def check_lent(lent: int, axes: tuple[int, ...]) -> None:
    """Refuse channels that rows and columns cannot lend to frames.

    Raises:
        ValueError: If frames have their own, or rows and columns have no such equal parts.
    """
    if not lent:
        return
    frames, rows, cols = axes
    if frames or rows != cols or lent % 4 or not 0 < lent <= rows + cols:
        raise ValueError(
            f"rows and columns with {rows} and {cols} channels cannot lend {lent} to frames with"
            f" {frames}: it takes a multiple of 4, equal parts, and frames without their own"
        )


def _frequencies(
    slow: Float[Tensor, " half"],
    owner: Int[Tensor, " half"],
    theta: float | Float[Tensor, " half"],
    scaling: RopeScaling,
    axes: int,
) -> Float[Tensor, " half"]:
    """Radians for each patch."""

    def each(value: PerAxis) -> float | Tensor:
        if isinstance(value, float | int):
            return value
        if len(value) != axes:
            raise ValueError(
                f"the scaling has values for {len(value)} axes, and positions have {axes}"
            )
        return torch.tensor(value, device=slow.device)[owner]

    frequencies = 1 / (theta * each(scaling.ntk)) ** slow / each(scaling.linear)
    if scaling.floor is not None:
        frequencies = frequencies.maximum(1 / theta**slow / each(scaling.floor))
    if scaling.kept_above is not None:
        plain = 1 / theta**slow
        kept = yarn_share(plain, each(scaling.kept_above))
        frequencies = frequencies + kept * (plain - frequencies)
    return frequencies


def crop_rope_table(
    table: Shaped[Tensor, "height width half"], *, rows: int, cols: int
) -> Float[Tensor, "n half 2"]:
    """Take a grid's corner from diffusers' table of complex (or real: no sine) rotations.

    Raises:
        ValueError: If the grid is larger than the table.
    """
    height, width, _ = table.shape
    if rows > height or cols > width:
        raise ValueError(
            f"image_rotary_emb covers {height} x {width} patches, but the latents have "
            f"{rows} x {cols}; pass a larger table, or none"
        )
    corner = table[:rows, :cols].flatten(0, 1)
    if corner.is_complex():
        return torch.view_as_real(corner).float()
    return torch.stack([corner, torch.zeros_like(corner)], dim=-1).float()


def rotate(
    x: Float[Tensor, "b n h k"], rope: Float[Tensor, "*b n half 2"]
) -> Float[Tensor, "b n h k"]:
    """Turn neighbouring pairs of channels by the angle of their token, or none of them."""
    if not rope.shape[-2]:
        return x
    rope = rope.unsqueeze(-3)
    pairs = x.to(torch.promote_types(x.dtype, torch.float32)).unflatten(-1, (-1, 2))
    if torch.compiler.is_compiling():
        return _rotate_parts(pairs, rope).flatten(-2).to(x.dtype)
    # Eager mode runs one complex product many times faster than its real parts; the compiler
    # fuses the parts, and has no code for complex numbers.
    turned = torch.view_as_complex(pairs) * torch.view_as_complex(rope)
    return torch.view_as_real(turned).flatten(-2).to(x.dtype)


def _rotate_parts(
    pairs: Float[Tensor, "b n h half 2"], rope: Float[Tensor, "*b n 1 half 2"]
) -> Float[Tensor, "b n h half 2"]:
    even, odd = pairs.unbind(-1)
    cos, sin = rope.unbind(-1)
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1)


def channels_of_axes(axes: Sequence[int] | None, *, head_width: int) -> tuple[int, ...]:
    """Channels of a head that are turned by frame, row and column.

    Args:
        axes: Even numbers that add up to the width of a head, or to nothing. None: rows and columns
            have half of it each.
        head_width: Channels of a head.

    Raises:
        ValueError: If they do not add up, or the width cannot be halved so.
    """
    if axes is None and head_width % 4 == 0:
        return (0, head_width // 2, head_width // 2)
    if axes is None:
        raise ValueError(f"rows and columns need a head width divisible by 4, got {head_width}")
    fits = len(axes) == 3 and sum(axes) in (0, head_width)
    if not fits or any(count % 2 or count < 0 for count in axes):
        raise ValueError(
            f"rope_axes must be 3 even numbers that add up to the head width {head_width}, or to 0,"
            f" got {tuple(axes)}"
        )
    return tuple(axes)
