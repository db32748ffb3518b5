"""A trained network as a checkpoint: a whole pipeline, or adapters alone."""

import copy
import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import torch
from peft import get_peft_model_state_dict
from torch import nn

from lumina.checkpoints.difference import cut_rank, difference_of, save_difference
from lumina.checkpoints.folder import INDEX, MADE_BY, PARTS_OF
from lumina.pipelines.assembly import assemble, text_encoder_folder, vae_folder
from lumina.pipelines.speech import vocoder_folder
from lumina.pipelines.text_to_image import LuminaPipeline
from lumina.training.recipes import FlowRecipe


class Sizes(NamedTuple):
    """Axes of media, such as width, height and frames.

    Args:
        usual: Of what a model makes where nothing else is asked for.
        largest: The most that is trained on along each axis.
    """

    usual: tuple[int, ...]
    largest: tuple[int, ...]


def make_pipeline(recipe: FlowRecipe, network: Any, sizes: Sizes) -> Any:
    """A pipeline around the network of a run, on its device."""
    pipeline = assemble(
        network,
        text_encoder=recipe.text_encoder or None,
        vae=recipe.autoencoder or None,
        modality=recipe.modality,
        size=sizes.usual,
    )
    settings = {
        "usual_steps": recipe.usual_steps,
        "usual_guidance": recipe.usual_guidance,
        "trained_frames": sizes.largest[-1],
    }
    known = {name: value for name, value in settings.items() if value and name in pipeline.config}
    pipeline.register_to_config(**known)
    if network.device.type != "cpu":
        pipeline.to(network.device)
    return pipeline


def export(recipe: FlowRecipe, network: Any, folder: Path, sizes: Sizes) -> None:
    """Write the adapters, or a checkpoint that `lumina.load` reads (diffusers too, if whole)."""
    dtype = getattr(torch, recipe.save_dtype)
    is_adapted = bool(recipe.lora_rank and not recipe.lora_merge)
    if is_adapted and recipe.parts_of:
        pipeline = make_pipeline(recipe, network, sizes)
        _save_own_parts(recipe, pipeline, folder)
        difference = difference_of(network, scale=recipe.lora_scale)
        if recipe.save_rank:
            difference = cut_rank(difference, recipe.save_rank)
        config = network.to_json_string()
        save_difference(folder / "transformer", config, difference, dtype=dtype)
        return
    if is_adapted:
        _export_adapters(network, folder, dtype)
        return
    network = copy.deepcopy(network)
    if recipe.lora_rank:
        network.fuse_lora()
        network.unload_lora()
    pipeline = make_pipeline(recipe, network, sizes)
    for part in pipeline.components.values():
        if isinstance(part, nn.Module):
            nn.Module.to(part, dtype)  # diffusers' own would warn, of nothing
    if recipe.parts_of:
        _save_own_parts(recipe, pipeline, folder)
        pipeline.transformer.save_pretrained(folder / "transformer")
    else:
        pipeline.save_pretrained(folder)
    if (folder / "text_encoder").is_dir():
        _read_as_float32(folder / "text_encoder" / "config.json")
    _tell_origins(recipe, folder)


def _save_own_parts(recipe: FlowRecipe, pipeline: Any, folder: Path) -> None:
    """Write all but the network and the parts that another model has, which the index names."""
    folder.mkdir(parents=True, exist_ok=True)
    index = json.loads(pipeline.to_json_string())
    (folder / INDEX).write_text(json.dumps(index | {PARTS_OF: recipe.parts_of}, indent=2) + "\n")
    others = {"transformer"}
    if is_part_of(recipe.text_encoder, recipe.parts_of):
        others |= {"text_encoder", "tokenizer"}
    if is_part_of(recipe.autoencoder, recipe.parts_of):
        others |= {"vae", "vocoder"}
    for name, part in pipeline.components.items():
        if part is not None and name not in others:
            part.save_pretrained(folder / name)


def is_part_of(source: str, name: str) -> bool:
    """Whether a part that a recipe names, by the model that has it, is of the model of a name."""
    return bool(source) and Path(source).name == name


def _export_adapters(network: Any, folder: Path, dtype: torch.dtype) -> None:
    weights = get_peft_model_state_dict(network)
    (settings,) = network.peft_config.values()
    LuminaPipeline.save_lora_weights(
        folder,
        transformer_lora_layers={name: weight.to(dtype) for name, weight in weights.items()},
        transformer_lora_adapter_metadata=settings.to_dict(),
    )


def _tell_origins(recipe: FlowRecipe, folder: Path) -> None:
    """Put beside each part what made it."""
    origins = {}
    if recipe.autoencoder:
        origin = vae_folder(recipe.autoencoder)
        origins = {"vae": origin, "vocoder": vocoder_folder(origin)}
    if recipe.text_encoder:
        origins["text_encoder"] = text_encoder_folder(recipe.text_encoder)
    for part, origin in origins.items():
        if not (folder / part).is_dir():
            continue
        # A run keeps what made it beside the folders of its parts.
        for made_by in (origin / MADE_BY, origin.parent / MADE_BY):
            if made_by.exists():
                shutil.copy(made_by, folder / part / MADE_BY)
                break


def _read_as_float32(config: Path) -> None:
    """Make transformers load a model as diffusers loads the others where no dtype is asked for.

    Else features come in the dtype of the file, and diffusers' transformer refuses them.
    """
    settings = json.loads(config.read_text())
    config.write_text(json.dumps(settings | {"dtype": "float32"}, indent=2) + "\n")
