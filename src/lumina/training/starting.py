"""The network of a run: new, taken from a checkpoint, or with adapters on it."""

import inspect
from math import isqrt, prod
from pathlib import Path
from typing import Any, cast

import torch
from transformers import AutoConfig

from lumina.backbones.flag_dit import FlagDiT
from lumina.backbones.growing import grow
from lumina.backbones.named import build_backbone
from lumina.backbones.next_dit import NextDiT
from lumina.backbones.transformer import FlowTransformer
from lumina.catalog import find
from lumina.checkpoints.backbone import load_backbone
from lumina.checkpoints.difference import take_up
from lumina.checkpoints.folder import DIFFERENCE, base_of, read_config
from lumina.checkpoints.network import find_network
from lumina.errors import LuminaError
from lumina.modalities import find_modality
from lumina.pipelines.assembly import text_encoder_folder, vae_folder
from lumina.training.data.dataset import crops_of
from lumina.training.data.sources import read_sources
from lumina.training.recipes import FlowRecipe


def make_network(
    recipe: FlowRecipe, *, is_shared: bool = False, is_empty: bool = False
) -> FlowTransformer:
    """What a recipe trains, in float32 but for the weights that adapters leave as they are.

    Args:
        recipe: Of the run.
        is_shared: Whether processes will share the weights, which then have one dtype.
        is_empty: Whether shapes and dtypes are all that is wanted; no weights are read then, and
            none are quantized.

    Raises:
        LuminaError: If a part is missing or does not fit.
    """
    if not recipe.start_from:
        network = _build(recipe)
    elif is_empty:
        network = _outline(_origin(recipe))
    else:
        network = _start(recipe)
    if recipe.start_from and recipe.modality != "image":
        start, network = network, grow(network, latent_settings(recipe))
        if network is not start and recipe.lora_rank and not (recipe.lora_merge or recipe.parts_of):
            raise LuminaError(
                f"{recipe.start_from} was grown to {recipe.modality}, and adapters alone do not say"
                " how",
                hint="set lora_merge = true, or parts_of",
            )
    elif recipe.start_from and (recipe.lora_merge or not recipe.lora_rank):
        # Adapters alone are used with the network that they were trained on, as it is.
        network.register_to_config(sample_size=latent_settings(recipe)["sample_size"])
    _check_fit(network, recipe)
    if recipe.lora_rank:
        _adapt(network, recipe, is_shared=is_shared)
        if recipe.goes_on and not is_empty:
            part = find(recipe.start_from).folder / "transformer"
            take_up(network, part, scale=recipe.lora_scale)
    return network.train()


def latent_settings(recipe: FlowRecipe) -> dict[str, Any]:
    """Settings of a network for the latents that a recipe trains on."""
    side = base_side(recipe) if recipe.modality == "image" else recipe.crops.get("side", 256)
    return find_modality(recipe.modality).network(_autoencoder(recipe), (side, side))


def base_side(recipe: FlowRecipe) -> int:
    """Side of the square that a recipe of pictures makes a network for, in pixels.

    That is the side of its `[crops]`, if such squares are trained on at the end of the run. Else it
    is that of a square with the area of the largest size there, in whole multiples.
    """
    sources = read_sources(recipe.data)
    end = max(source.until for source in sources)
    last = [crops_of(source, recipe.crops) for source in sources if source.until == end]
    sizes = [(prod(size), size, crops.multiple) for crops in last for size in crops.list_sizes()]
    side = recipe.crops.get("side")
    if side is not None and any(size == (side, side) for _, size, _ in sizes):
        return side
    area, _, multiple = max(sizes)
    return isqrt(area) // multiple * multiple


def _autoencoder(recipe: FlowRecipe) -> Path:
    return vae_folder(recipe.autoencoder) if recipe.autoencoder else Path()


def _build(recipe: FlowRecipe) -> FlowTransformer:
    config = latent_settings(recipe)
    if recipe.text_encoder:
        config["cross_attention_dim"] = _text_width(recipe.text_encoder)
    else:
        config["num_classes"] = recipe.classes
    if recipe.network:
        return build_backbone(recipe.network, **config)
    kind = {"next-dit": NextDiT, "flag-dit": FlagDiT}[recipe.backbone]
    known = inspect.signature(kind.__init__).parameters
    return kind(
        hidden_size=recipe.width,
        num_layers=recipe.depth,
        num_attention_heads=recipe.heads,
        num_kv_heads=recipe.kv_heads,
        multiple_of=recipe.multiple_of,
        # What the other network has is of no use to this one.
        **{name: value for name, value in config.items() if name in known},
    )


def _text_width(text_encoder: str) -> int:
    """Width of the features that a text encoder gives."""
    config: Any = AutoConfig.from_pretrained(text_encoder_folder(text_encoder))
    return config.hidden_size


def _origin(recipe: FlowRecipe) -> Path:
    """The checkpoint whose weights are adapted, or trained."""
    folder = find(recipe.start_from).folder
    return base_of(folder) if recipe.goes_on else folder


def _outline(folder: Path) -> FlowTransformer:
    """The network of a checkpoint, without its weights."""
    if (part := folder / "transformer" / DIFFERENCE).is_file():
        return cast(FlowTransformer, NextDiT.from_config(read_config(part.parent)))
    outline = find_network(folder, {}).build()
    return cast(FlowTransformer, type(outline).from_config(outline.config))


def _start(recipe: FlowRecipe) -> FlowTransformer:
    folder = _origin(recipe)
    if not recipe.quantize:
        return load_backbone(folder, dtype=torch.float32)
    if (folder / "transformer" / DIFFERENCE).is_file():
        raise LuminaError(
            f"{folder} is stored as what it differs in from another model, and not quantized",
            hint="leave quantize out",
        )
    inner = folder / "transformer" if (folder / "transformer").is_dir() else folder
    return NextDiT.from_pretrained(
        inner, quantization_config=_quantization(recipe.quantize), torch_dtype=torch.bfloat16
    )


def _quantization(kind: str) -> Any:
    if kind == "nf4":
        from diffusers import BitsAndBytesConfig

        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=torch.bfloat16,
        )
    from diffusers import TorchAoConfig
    from torchao.quantization import Int8WeightOnlyConfig

    return TorchAoConfig(Int8WeightOnlyConfig())


def _check_fit(network: FlowTransformer, recipe: FlowRecipe) -> None:
    """Refuse a network that reads something else than the recipe gives it."""
    classes = network.config["num_classes"]
    if bool(recipe.text_encoder) == (classes is not None):
        reads = "texts" if classes is None else f"{classes} classes"
        raise LuminaError(
            f"the network reads {reads}, and the recipe gives it "
            + ("texts" if recipe.text_encoder else f"{recipe.classes} classes"),
            hint="set text_encoder for a network of texts, and leave it out for one of classes",
        )
    if classes is not None and recipe.classes > classes:
        raise LuminaError(
            f"the network reads {classes} classes, and the recipe gives it {recipe.classes}",
            hint=f"set classes = {classes}, or start from another network",
        )
    if recipe.text_encoder:
        given, read = _text_width(recipe.text_encoder), network.config["cross_attention_dim"]
        if given != read:
            raise LuminaError(
                f"the text encoder {recipe.text_encoder} is {given} wide, and the network reads"
                f" texts of width {read}",
                hint="set the text encoder that the network was trained with",
            )
    channels = latent_settings(recipe)["in_channels"]
    if channels != network.config["in_channels"]:
        raise LuminaError(
            f"{recipe.modality} by this autoencoder has {channels} channels, and the network takes"
            f" {network.config['in_channels']}",
            hint="set the autoencoder that the network was trained with",
        )


def _adapt(network: FlowTransformer, recipe: FlowRecipe, *, is_shared: bool) -> None:
    """Freeze the weights and add adapters, which alone are trained."""
    from peft import LoraConfig

    network.requires_grad_(False)
    if recipe.precision == "bf16" and not recipe.quantize and not is_shared:
        for weight in network.parameters():  # what is multiplied in bfloat16 is kept in it
            weight.data = weight.data.to(torch.bfloat16)
    names = [name for name, layer in network.named_modules() if _is_matrix(layer)]
    ends = recipe.lora_layers
    chosen = [name for name in names if any(_ends_with(name, end) for end in ends)]
    if not chosen:
        raise LuminaError(
            f"no layer's name ends in one of {', '.join(ends)}",
            hint=f"such as {', '.join(sorted({name.split('.', 2)[-1] for name in names})[:8])}",
        )
    scale = recipe.lora_scale * recipe.lora_rank
    network.add_adapter(
        LoraConfig(
            r=recipe.lora_rank,
            lora_alpha=scale,  # type: ignore[arg-type]  # peft divides it by the rank
            target_modules=chosen,
            init_lora_weights=True,
        )
    )
    for end in recipe.lora_whole:
        whole = [
            weight
            for name, weight in network.named_parameters()
            if _ends_with(name.rpartition(".")[0], end)
        ]
        if not whole:
            raise LuminaError(
                f"no layer without adapters has a name that ends in {end}, of lora_whole",
                hint="leave it out there, or take it out of lora_layers",
            )
        for weight in whole:
            weight.requires_grad_(True)
    for weight in network.parameters():
        if weight.requires_grad:
            weight.data = weight.data.float()


def _is_matrix(layer: torch.nn.Module) -> bool:
    return isinstance(layer, torch.nn.Linear) or "Linear" in type(layer).__name__


def _ends_with(name: str, end: str) -> bool:
    return name == end or name.endswith(f".{end}")
