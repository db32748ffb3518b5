"""A network of pictures as the start of one of clips or views, which knows all that it knew."""

from collections.abc import Mapping
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor

from lumina.backbones.next_dit import NextDiT
from lumina.backbones.transformer import FlowTransformer
from lumina.errors import LuminaError

GROWING = ("in_channels", "out_channels", "rope_lent")
"""Settings that may change."""


def grow(network: FlowTransformer, settings: Mapping[str, Any]) -> FlowTransformer:
    """A network with more channels to read, and channels of its heads lent to frames.

    At first it ignores the new channels, which come last, and gives the first channels of what it
    gave. On one frame, rows and columns that were lent make a difference: they turn no more.

    Args:
        network: What to start from. It is left as it is.
        settings: What to change, of `GROWING`; others are ignored. Where nothing changes, the
            network itself comes back.

    Raises:
        LuminaError: If it has more channels than are wanted, or is no Next-DiT.
    """
    wanted = {name: settings[name] for name in GROWING if name in settings}
    if all(network.config[name] == value for name, value in wanted.items()):
        return network
    if not isinstance(network, NextDiT):
        raise LuminaError(
            "a Flag-DiT reads its tokens as one sequence, and does not grow",
            hint="start from a Next-DiT, or train a new network",
        )
    # What begins with a line is a note of diffusers, of which one has it take defaults again.
    plain = {name: value for name, value in network.config.items() if not name.startswith("_")}
    grown: Any = cast(NextDiT, NextDiT.from_config({**plain, **wanted}))
    device = next(network.parameters()).device
    weights = network.state_dict()
    reader, writer = "patch_embedder.proj.weight", "norm_out.linear_2"
    values = network.patch_size**2
    weights[reader] = _with_zeros(weights[reader], columns=values * grown.config["in_channels"])
    for name in (f"{writer}.weight", f"{writer}.bias"):
        weights[name] = _first_channels(weights[name], values=values, channels=grown.out_channels)
    if device.type == "meta":
        return grown.to("meta")
    grown.load_state_dict(weights)
    # Diffusers' own `to` warns of a dtype whenever one is given.
    torch.nn.Module.to(grown, device, next(network.parameters()).dtype)
    return grown


def _with_zeros(weight: Float[Tensor, "d values"], *, columns: int) -> Float[Tensor, "d columns"]:
    """Columns of the channels that were there, which come first, then zeros."""
    missing = columns - weight.shape[1]
    if missing < 0:
        raise LuminaError(
            f"the network reads {weight.shape[1]} values of a patch, more than {columns}",
            hint="start from a network with fewer channels",
        )
    return torch.nn.functional.pad(weight, (0, missing))


def _first_channels(
    rows: Float[Tensor, "old *rest"], *, values: int, channels: int
) -> Float[Tensor, "new *rest"]:
    """Of each place in a patch, the first channels of the output."""
    places = rows.unflatten(0, (values, -1))
    if channels > places.shape[1]:
        raise LuminaError(
            f"the network gives {places.shape[1]} channels, and {channels} are wanted",
            hint="start from a network with as many",
        )
    return places[:, :channels].flatten(0, 1)
