"""A network as what makes it differ from another one, in products of thin matrices.

A model that was grown from lumina-mini and adapted ships so in a quarter of its size: matrices that
adapters were trained on as their two factors, other trained weights whole, and the rest not at all.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor

from lumina.backbones.growing import grow
from lumina.backbones.next_dit import NextDiT
from lumina.checkpoints.folder import DIFFERENCE, base_of, read_config
from lumina.errors import LuminaError

UP, DOWN = ".up", ".down"
"""What stands behind the name of a weight for its factors: what is added is their product."""


def difference_of(network: Any, *, scale: float) -> dict[str, Float[Tensor, "*shape"]]:
    """Trained weights of a network with adapters, by the names that it has without them.

    Args:
        network: Of diffusers, with one adapter of peft.
        scale: Factor on the product of the adapter's matrices.
    """
    return {
        name: weight.detach() * scale if name.endswith(UP) else weight.detach()
        for name, weight in _trained(network).items()
    }


def take_up(network: Any, folder: Path, *, scale: float) -> None:
    """Put what `save_difference` wrote into a network with new adapters, which go on from it.

    Args:
        network: As in `difference_of`; of the base, with what else is trained whole.
        folder: The part "transformer" of the pipeline that was written.
        scale: Factor on the product of the adapter's matrices.

    Raises:
        LuminaError: If something differs there that is not trained here, at a higher rank, or of
            another shape.
    """
    trained, where = _trained(network), folder / DIFFERENCE
    with torch.no_grad():
        for name, value in load_file(where).items():
            if name not in trained:
                raise LuminaError(
                    f"{where} changes {name}, which is not trained here",
                    hint="set lora_layers and lora_whole as in the recipe that wrote it",
                )
            weight = trained[name]
            if name.endswith(UP):
                value, weight = value.float() / scale, weight[:, : value.shape[1]]
            elif name.endswith(DOWN):
                weight = weight[: len(value)]
            if weight.shape != value.shape:
                own, given = list(trained[name].shape), list(value.shape)
                raise LuminaError(
                    f"{where} has {name} as {given}, and it is {own} here",
                    hint="set lora_rank at least as high, modality and parts as in the recipe that"
                    " wrote it",
                )
            weight.copy_(value)


def _trained(network: Any) -> dict[str, Float[Tensor, "*shape"]]:
    """Weights that are trained, by the names that a difference has for them."""
    found = {}
    for name, weight in network.named_parameters():
        if not weight.requires_grad:
            continue
        if ".lora_A." in name:
            name = name.split(".lora_A.")[0] + f".weight{DOWN}"
        elif ".lora_B." in name:
            name = name.split(".lora_B.")[0] + f".weight{UP}"
        found[name.replace(".base_layer", "")] = weight
    return found


def cut_rank(difference: Mapping[str, Tensor], rank: int) -> dict[str, Tensor]:
    """The same with products of at most a rank, each the nearest that there is to the whole one."""
    cut = dict(difference)
    for name, up in difference.items():
        if not name.endswith(UP):
            continue
        below = name.removesuffix(UP) + DOWN
        left, inner = torch.linalg.qr(up.float())
        right, outer = torch.linalg.qr(difference[below].float().mT)
        first, strength, second = torch.linalg.svd(inner @ outer.mT, full_matrices=False)
        root = strength[:rank].sqrt()
        cut[name] = left @ first[:, :rank] * root
        cut[below] = root[:, None] * (second[:rank] @ right.mT)
    return cut


def save_difference(
    folder: Path, config: str, difference: Mapping[str, Tensor], *, dtype: torch.dtype
) -> None:
    """Write a part of a pipeline: a configuration and a difference.

    Args:
        folder: Where the part goes.
        config: The configuration of the model, as `to_json_string` gives it.
        difference: What `difference_of` gave.
        dtype: Of the numbers in the file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(config)
    tensors = {name: weight.to(dtype).contiguous().cpu() for name, weight in difference.items()}
    save_file(tensors, folder / DIFFERENCE)


def load_difference(folder: Path, *, dtype: torch.dtype) -> NextDiT:
    """The network that a folder tells the difference of.

    Args:
        folder: The part "transformer" of a pipeline.
        dtype: Of its weights.

    Raises:
        LuminaError: If the base is not there, or the file does not fit it.
    """
    origin = base_of(folder.parent) / "transformer"
    base: Any
    if (origin / DIFFERENCE).is_file():
        base = load_difference(origin, dtype=torch.float32)
    else:
        base = NextDiT.from_pretrained(origin, torch_dtype=torch.float32)
    network: Any = grow(base, read_config(folder))
    network.separate_queries()
    add_difference(network, load_file(folder / DIFFERENCE), where=folder, origin=origin)
    network.share_queries()
    torch.nn.Module.to(network, dtype)  # diffusers' own warns of any dtype
    return network


@torch.no_grad()
def add_difference(
    model: torch.nn.Module, difference: Mapping[str, Tensor], *, where: Path, origin: Path
) -> None:
    """Make of a base what differs from it so.

    Args:
        model: The base, in float32.
        difference: What `difference_of` gave.
        where: Where it is from, for errors.
        origin: Where the base is from, for errors.

    Raises:
        LuminaError: If the difference does not fit the base.
    """
    weights = dict(model.named_parameters())
    for name, change in difference.items():
        bare = name.removesuffix(UP).removesuffix(DOWN)
        own = weights.get(bare)
        if name.endswith(DOWN) and bare + UP in difference:
            continue
        if name.endswith(UP) and bare + DOWN in difference:
            change = change.float() @ difference[bare + DOWN].float()
        if own is None or change.shape != own.shape:
            raise LuminaError(
                f"{where / DIFFERENCE} changes {name}, which {origin} does not have",
                hint="the base is another one than it was trained from; download both again",
            )
        own.copy_(own + change if name.endswith(UP) else change)
