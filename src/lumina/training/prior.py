"""Prior preservation: a network is also trained on what it drew before, so as not to forget it.

Source:
    DreamBooth, arXiv:2208.12242, section 3.3.
"""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from lumina.catalog import find, load
from lumina.training.data.sources import check_sources, read_sources
from lumina.training.recipes import FlowRecipe
from lumina.training.reporting import say
from lumina.training.sharding import in_turn

PRIOR = "prior"
"""Folder of a run, with a folder of pictures for each way to draw them."""

AT_ONCE = 8


def with_prior(recipe: FlowRecipe) -> FlowRecipe:
    """A recipe with what it draws before as one more source of data, drawn from half of the time.

    Pictures that an earlier start of the run drew from the same network in the same way are kept.

    Raises:
        LuminaError: If data are missing, which is found before anything is drawn.
    """
    check_sources(read_sources(recipe.data))
    if not recipe.prior_prompts:
        return recipe
    folder = Path(recipe.out) / PRIOR / _digest_of(recipe)
    in_turn(lambda: draw_prior(recipe, folder))
    weight = sum(table.get("weight", 1.0) for table in recipe.data)
    source = {
        "kind": "folder",
        "name": PRIOR,
        "path": str(folder),
        "weight": weight,
        "loss_weight": recipe.prior_weight,
    }
    return dataclasses.replace(recipe, data=(*recipe.data, source), prior_prompts=())


@torch.no_grad()
def draw_prior(recipe: FlowRecipe, folder: Path) -> None:
    """Draw what is missing of the pictures, each from its own seed, prompts in turn."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{number:05d}" for number in range(recipe.prior_pictures)]
    missing = [number for number, name in enumerate(names) if not _is_drawn(folder, name)]
    if not missing:
        return
    say([f"drawing {len(missing)} pictures of what the network can draw before"])
    pipeline: Any = load(recipe.start_from, device=recipe.device)
    pipeline.set_progress_bar_config(disable=True)
    side = recipe.crops.get("side")
    for start in range(0, len(missing), AT_ONCE):
        some = missing[start : start + AT_ONCE]
        prompts = [recipe.prior_prompts[number % len(recipe.prior_prompts)] for number in some]
        pictures = pipeline(
            prompts,
            width=side,
            height=side,
            num_inference_steps=recipe.preview_steps,
            guidance_scale=recipe.preview_guidance,
            generator=[torch.Generator().manual_seed(recipe.seed + number) for number in some],
        ).images
        for number, prompt, picture in zip(some, prompts, pictures, strict=True):
            picture.save(folder / f"{names[number]}.png")
            text = json.dumps({"caption": prompt})
            (folder / f"{names[number]}.json").write_text(text)  # last, as a sign that both are


def _digest_of(recipe: FlowRecipe) -> str:
    """Hash of all that the pictures, and their number, depend on."""
    parts = [
        find(recipe.start_from).fingerprint(),
        recipe.prior_prompts,
        recipe.prior_pictures,
        recipe.crops.get("side"),
        recipe.preview_steps,
        recipe.preview_guidance,
        recipe.seed,
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]


def _is_drawn(folder: Path, name: str) -> bool:
    return (folder / f"{name}.json").exists()
