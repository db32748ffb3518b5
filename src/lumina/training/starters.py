"""Recipes that come with the library, printed with every setting that they leave as it is."""

import dataclasses
import json
import tomllib
from pathlib import Path
from typing import Any

from lumina.errors import LuminaError, UnknownNameError
from lumina.training.recipes import TASKS, Recipe

_INSTALLED = Path(__file__).parents[1] / "recipes"
_IN_CHECKOUT = Path(__file__).parents[3] / "recipes"


def recipes_folder() -> Path:
    """Where the recipes are: within the installed package, or in the checkout.

    Raises:
        LuminaError: If there are none.
    """
    for folder in (_INSTALLED, _IN_CHECKOUT):
        if folder.is_dir():
            return folder
    raise LuminaError("the recipes are not installed", hint="install lumina again")


def list_recipes() -> dict[str, str]:
    """What each recipe is, by name."""
    files = sorted(recipes_folder().glob("*.toml"))
    return {file.stem: _first_sentence(file.read_text()) for file in files}


def write_starter(name: str) -> str:
    """A recipe as it ships, and then, as comments, every other setting with its default.

    Raises:
        UnknownNameError: If there is none of this name.
    """
    known = list_recipes()
    if name not in known:
        raise UnknownNameError.among(known, name, kind="recipe")
    text = (recipes_folder() / f"{name}.toml").read_text()
    values = tomllib.loads(text)
    others = _comments(TASKS[values["task"]], set(values))
    # Settings stand before the first table, to which they would belong otherwise.
    head, table, tail = _split(text)
    return f"{head.rstrip()}\n\n# All other settings, with their defaults:\n{others}\n{table}{tail}"


def _comments(kind: type[Recipe], given: set[str]) -> str:
    fields = [field for field in dataclasses.fields(kind) if field.name not in given]
    return "".join(
        f"# {field.name} = {_toml(field.default)}  # {_help(field.metadata)}\n"
        for field in fields
        if field.default is not dataclasses.MISSING and field.metadata["check"] is None
    )


def _help(facts: Any) -> str:
    choices = f": {', '.join(map(repr, facts['choices']))}" if facts["choices"] else ""
    return f"{facts['help']}{choices}"


def _toml(value: Any) -> str:
    """A value as TOML writes it, which JSON does alike for text, numbers and lists."""
    return json.dumps(list(value) if isinstance(value, tuple) else value)


def _split(text: str) -> tuple[str, str, str]:
    lines = text.splitlines(keepends=True)
    first = next((i for i, line in enumerate(lines) if line.startswith("[")), len(lines))
    while first and lines[first - 1].startswith("#"):  # what is said of the table stays with it
        first -= 1
    return "".join(lines[:first]), "\n" if first < len(lines) else "", "".join(lines[first:])


def _first_sentence(text: str) -> str:
    comment = " ".join(
        line.removeprefix("#").strip()
        for line in text.partition("\n#\n")[0].splitlines()
        if line.startswith("#")
    )
    return comment.partition(". ")[0].rstrip(".")
