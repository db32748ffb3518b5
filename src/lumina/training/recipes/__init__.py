"""Training runs as typed settings, read from commented TOML files."""

import tomllib
from pathlib import Path
from typing import Any

from lumina.errors import LuminaError
from lumina.settings import from_table
from lumina.training.recipes.flow import FewStepsRecipe, FlowRecipe, ShapesRecipe
from lumina.training.recipes.parts import AlignmentRecipe, AutoencoderRecipe, LanguagesRecipe
from lumina.training.recipes.recipe import CHANGEABLE, Recipe
from lumina.training.recipes.recognition import RecognitionRecipe
from lumina.training.recipes.sound import MelAutoencoderRecipe, SoundRecipe, VocoderRecipe

__all__ = [
    "CHANGEABLE",
    "TASKS",
    "AlignmentRecipe",
    "AutoencoderRecipe",
    "FewStepsRecipe",
    "FlowRecipe",
    "LanguagesRecipe",
    "MelAutoencoderRecipe",
    "Recipe",
    "RecognitionRecipe",
    "ShapesRecipe",
    "SoundRecipe",
    "VocoderRecipe",
    "load",
]

TASKS: dict[str, type[Recipe]] = {
    kind.task: kind
    for kind in (
        AutoencoderRecipe,
        AlignmentRecipe,
        LanguagesRecipe,
        FlowRecipe,
        ShapesRecipe,
        FewStepsRecipe,
        RecognitionRecipe,
        MelAutoencoderRecipe,
        VocoderRecipe,
    )
}


def load(path: str | Path, overrides: list[str] | None = None) -> Recipe:
    """Read a recipe from a TOML file.

    Args:
        path: The file.
        overrides: Later settings as `key=value`, values written as in TOML (quotes optional).

    Raises:
        LuminaError: If the file cannot be read, or a setting is unknown or out of its range.
    """
    path = Path(path)
    try:
        values = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise LuminaError(f"no recipe at {path}", hint="recipes ship in recipes/") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise LuminaError(f"{path} is not valid TOML: {error}") from error
    for text in overrides or []:
        _override(values, text)
    task = values.pop("task", None)
    if task not in TASKS:
        raise LuminaError(f"task is {task!r}", hint=f"choose one of {', '.join(TASKS)}")
    recipe = from_table(TASKS[task], {"out": f"runs/{path.stem}"} | values)
    recipe.check()
    return recipe


def _override(values: dict[str, Any], text: str) -> None:
    """Set what `key=value` says; a dot leads into a table, as `data.0.path` does.

    Raises:
        LuminaError: If there is nothing at the key, or no value.
    """
    name, equals, written = text.partition("=")
    if not equals:
        raise LuminaError(f"{text!r} is not key=value")
    try:
        value = tomllib.loads(f"value = {written}")["value"]
    except tomllib.TOMLDecodeError:
        value = written
    *tables, last = name.split(".")
    place: Any = values
    for table in tables:
        place = _enter(place, table, name)
    if not isinstance(place, dict):
        raise LuminaError(f"{name} names no setting", hint="such as data.0.path=FOLDER")
    place[last] = value


def _enter(place: Any, key: str, name: str) -> Any:
    if isinstance(place, dict):
        return place.setdefault(key, {})
    if isinstance(place, list) and key.isdecimal() and int(key) < len(place):
        return place[int(key)]
    raise LuminaError(f"{name} names no setting: there is no {key}")
