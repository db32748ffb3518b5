"""Model cards of trained folders, and putting such a folder on the Hugging Face hub."""

import json
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, ModelCard, ModelCardData, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError

from lumina.checkpoints.folder import INDEX, MADE_BY, OPENED_BY_US, read_json
from lumina.errors import LuminaError
from lumina.requests import OF_MODALITIES
from lumina.training.reporting import METRICS
from lumina.worlds.references import NOTICE

CARD = "README.md"
"""What the hub shows of a folder."""

_FIGURES = ("loss", "validation")
_TOLD = ("kind", "path", "name", "world")  # of each source of data

_LOADED = {
    "model_index.json": "import lumina\n\npipeline = lumina.load({folder!r})",
    "pytorch_lora_weights.safetensors": (
        "import lumina\n\npipeline = lumina.load({base!r})\npipeline.load_lora_weights({folder!r})"
    ),
}
"""How to load a folder that holds a file of this name."""


def write_card(folder: Path) -> Path:
    """Write the card of a folder that a run exported, from what the run left in and beside it.

    Args:
        folder: The folder, with the file of what made it; the log of the run is beside it.

    Raises:
        LuminaError: If the folder does not say what made it.
    """
    made_by = _read_made_by(folder)
    recipe = made_by["recipe"]
    tags = ["lumina", recipe["task"]] + (["lora"] if recipe.get("lora_rank") else [])
    is_pipeline = (folder / "model_index.json").exists()
    modality = recipe.get("modality") or _modality_of(folder)
    data = ModelCardData(
        library_name="diffusers" if is_pipeline and modality == "image" else "lumina",
        pipeline_tag=_pipeline_tag(recipe, modality) if is_pipeline else None,
        tags=tags,
    )
    sections = [
        f"# {Path(recipe['out']).name}",
        f"Trained by the task `{recipe['task']}` of Lumina.",
        *_how_to_load(folder, recipe),
        *_training(made_by),
        *_figures(folder.parent / METRICS),
        *_data(folder, recipe),
        f"## Recipe\n\n```json\n{json.dumps(recipe, indent=2, ensure_ascii=False)}\n```",
    ]
    path = folder / CARD
    path.write_text(f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(sections) + "\n", "utf-8")
    return path


def push(folder: Path, repo: str, *, private: bool = False) -> str:
    """Put a folder on the hub, and return the address of what was put there.

    Args:
        folder: What a run exported, card included.
        repo: Where to, such as "name/model"; it is made if it is not there.
        private: Whether a repository that is made can be seen by its owner alone.

    Raises:
        LuminaError: If there is no card or token, the name is wrong, or the hub cannot be reached
            or refuses.
    """
    if not (folder / CARD).exists():
        raise LuminaError(
            f"{folder} has no {CARD}", hint="give the folder that a run wrote, such as runs/a/last"
        )
    ModelCard.load(folder / CARD)
    if get_token() is None:
        raise LuminaError(
            "there is no token of the Hugging Face hub on this machine",
            hint="run `hf auth login`, or set HF_TOKEN to a token that may write",
        )
    api = HfApi()
    try:
        made = api.create_repo(repo, private=private, exist_ok=True)
        return str(api.upload_folder(repo_id=made.repo_id, folder_path=folder))
    except HFValidationError as error:
        raise LuminaError(f"{repo!r} is no name of a repository", hint="use owner/name") from error
    except HfHubHTTPError as error:
        raise LuminaError(
            f"the hub refuses {repo}: {error}", hint="the token must be allowed to write there"
        ) from error
    except (HTTPError, OSError) as error:
        raise LuminaError(
            f"the hub cannot be reached: {error}", hint="try again with a network"
        ) from error


def _modality_of(folder: Path) -> str:
    """What a pipeline makes, where the recipe of its run does not say it."""
    index = read_json(folder / INDEX) if (folder / INDEX).is_file() else {}
    name = str(index.get("_class_name")).removesuffix(OPENED_BY_US)
    found = (one for one, kind in OF_MODALITIES.items() if kind.pipeline == name)
    return next(found, "image")


def _pipeline_tag(recipe: dict[str, Any], modality: str) -> str | None:
    if recipe["task"] == "recognition":
        return "image-classification"
    if modality in OF_MODALITIES:
        return OF_MODALITIES[modality].hub_task
    return None if recipe.get("classes") else "text-to-image"


def _read_made_by(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / MADE_BY).read_text("utf-8"))
    except FileNotFoundError as error:
        raise LuminaError(
            f"{folder} has no {MADE_BY}", hint="give the folder that a run wrote"
        ) from error


def _how_to_load(folder: Path, recipe: dict[str, Any]) -> list[str]:
    base = recipe.get("start_from", "")
    for name, code in _LOADED.items():
        if (folder / name).exists():
            lines = code.format(folder=str(folder), base=base)
            if recipe["task"] == "few_steps":
                steps = f"num_inference_steps={recipe['evaluations']}"
                lines += f'\npicture = pipeline("a cat", {steps}, guidance_scale=1).images[0]'
            return [f"## Use\n\n```python\n{lines}\n```"]
    return []


def _training(made_by: dict[str, Any]) -> list[str]:
    rows = {
        "steps": made_by["steps"],
        "minutes": made_by["minutes"],
        "machine": made_by["machine"],
        "processes": made_by.get("processes", 1),
        "torch": made_by["torch"],
    }
    lines = [f"- {name}: {value}" for name, value in rows.items()]
    before = made_by.get("before")
    while before:
        name = Path(before["recipe"]["out"]).name
        lines.append(f"- after {name}: {before['steps']} steps, {before['minutes']} minutes")
        before = before.get("before")
    return ["## Training\n\n" + "\n".join(lines)]


def _figures(metrics: Path) -> list[str]:
    """The last value of each figure in the log of a run."""
    if not metrics.exists():
        return []
    last: dict[str, tuple[float, int]] = {}
    for text in metrics.read_text("utf-8").splitlines():
        line = json.loads(text)
        last |= {name: (line[name], line["step"]) for name in _FIGURES if name in line}
    lines = [f"- {name}: {value:.4g} (step {step})" for name, (value, step) in last.items()]
    return ["## Figures\n\n" + "\n".join(lines)] if lines else []


def _data(folder: Path, recipe: dict[str, Any]) -> list[str]:
    lines = [f"- learned from the model {recipe['teacher']}"] if "teacher" in recipe else []
    for table in recipe.get("data", ()):
        lines.append(f"- {' '.join(str(table[key]) for key in _TOLD if key in table)}")
    text = "\n".join(lines)
    if (folder / NOTICE).exists():
        notice = (folder / NOTICE).read_text("utf-8").strip()
        text += f"\n\nNotice of the drawings:\n\n```text\n{notice}\n```"
    return [f"## Data\n\n{text.strip()}"] if text else []
