"""Ways to look at a picture, each of which can be undone."""

from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lumina.errors import LuminaError, UnknownNameError
from lumina.types import Size

Look = Callable[[Tensor], Tensor]
"""Takes pictures or latents of shape (b, c, rows, cols), and returns as many values."""

PARTS = 4
"""Parts along each side that "permute" puts in another order. They grow with the picture, so that
a view of a small picture is the same view of a large one."""


class View:
    """A way to look at a picture.

    Args:
        name: As `find_view` reads it.
        see: What the viewer sees.
        undo: The picture that a viewer sees so.
    """

    def __init__(self, name: str, see: Look, undo: Look):
        self.name, self.see, self.undo = name, see, undo

    @property
    def needs_square(self) -> bool:
        """Whether a picture that is not square comes out in another size."""
        return self.name in ("rotate90", "rotate270")

    @property
    def needs_pixels(self) -> bool:
        """Whether this means something on pixels alone: colors are not channels of latents."""
        return self.name == "negative"

    @property
    def multiple(self) -> int:
        """What both sides of a picture have to be multiples of, in latent pixels."""
        return PARTS if self.name.startswith("permute:") else 1


def find_view(name: str) -> View:
    """The view of a name.

    Args:
        name: "identity", "flip-x" (left and right change places), "flip-y", "rotate90",
            "rotate180", "rotate270" (counterclockwise), "negative" (of pixels from -1 to 1), or
            "permute:SEED", which puts 4 x 4 equal parts in an order drawn from a seed.

    Raises:
        UnknownNameError: If there is none.
        LuminaError: If the seed is no number.
    """
    if name.startswith("permute:"):
        return _permutation(name)
    if name not in _VIEWS:
        raise UnknownNameError.among([*_VIEWS, "permute:SEED"], name, kind="view")
    return View(name, *_VIEWS[name])


def check_view(view: View, size: Size, *, scale: int, on_pixels: bool) -> None:
    """Refuse a view that a picture of this size does not have.

    Args:
        view: The view.
        size: In pixels.
        scale: Pixels along the side of a latent pixel.
        on_pixels: Whether pixels are viewed, and not latents.

    Raises:
        LuminaError: If it does not.
    """
    if view.needs_square and size.width != size.height:
        raise LuminaError(
            f"{view.name} of {size.width}x{size.height} pixels has another size",
            hint="ask for a square, or for rotate180",
        )
    if view.needs_pixels and not on_pixels:
        raise LuminaError(
            f"{view.name} is a view of pixels: latents turned negative show another picture",
            hint='have the views come together through "pixels", as they usually do',
        )
    unit = view.multiple * scale
    if size.width % unit or size.height % unit:
        raise LuminaError(
            f"{view.name} needs {PARTS} x {PARTS} equal parts, which {size.width}x{size.height}"
            " pixels do not have",
            hint=f"use multiples of {unit}",
        )


def _permutation(name: str) -> View:
    seed = name.removeprefix("permute:")
    if not seed.isdecimal():
        raise LuminaError(f"the seed of {name!r} is no number", hint="for example: permute:7")
    order = torch.randperm(PARTS**2, generator=torch.Generator().manual_seed(int(seed)))
    return View(name, partial(_reorder, order), partial(_reorder, order.argsort()))


def _reorder(
    order: Int[Tensor, " parts"], x: Float[Tensor, "b c rows cols"]
) -> Float[Tensor, "b c rows cols"]:
    cells = x.unflatten(3, (PARTS, -1)).unflatten(2, (PARTS, -1)).transpose(3, 4)
    cells = cells.flatten(2, 3)[:, :, order.to(x.device)].unflatten(2, (PARTS, PARTS))
    return cells.transpose(3, 4).flatten(4, 5).flatten(2, 3)


def _turn(quarters: int, x: Float[Tensor, "b c rows cols"]) -> Float[Tensor, "b c _ _"]:
    return x.rot90(quarters, (2, 3))


def _flip(axis: int, x: Float[Tensor, "b c rows cols"]) -> Float[Tensor, "b c rows cols"]:
    return x.flip(axis)


def _same(x: Tensor) -> Tensor:
    return x


def _negate(x: Tensor) -> Tensor:
    return -x


_VIEWS: dict[str, tuple[Look, Look]] = {
    "identity": (_same, _same),
    "flip-x": (partial(_flip, 3), partial(_flip, 3)),
    "flip-y": (partial(_flip, 2), partial(_flip, 2)),
    "rotate90": (partial(_turn, 1), partial(_turn, 3)),
    "rotate180": (partial(_turn, 2), partial(_turn, 2)),
    "rotate270": (partial(_turn, 3), partial(_turn, 1)),
    "negative": (_negate, _negate),
}
