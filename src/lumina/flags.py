"""Flags of the command line, made from the fields of requests."""

import argparse
import dataclasses
from collections.abc import Collection
from functools import partial
from typing import Any, get_type_hints

from lumina.settings import TEXTS, is_list, read_setting, without_none


class Texts(argparse.Action):
    """Adds a text to the several texts of a setting."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Take one more."""
        setattr(namespace, self.dest, (*getattr(namespace, self.dest, ()), *values))


Command = argparse.ArgumentParser | argparse._ArgumentGroup


def add_flags(
    command: Command,
    kind: type[Any],
    names: Collection[str],
    *,
    set_by_model: Collection[str] = (),
) -> None:
    """Give a command a flag for each of some fields of a dataclass of settings.

    What is not given is not among the options, so that a file or a model may say it.

    Args:
        command: Gets the flags.
        kind: The dataclass.
        names: Of the fields.
        set_by_model: Fields whose default is for each model to say.
    """
    hints = get_type_hints(kind)
    for field in dataclasses.fields(kind):
        if field.name in names:
            shown = describe(field, set_by_model=field.name in set_by_model)
            _add_flag(command, field, without_none(hints[field.name]), shown)


def describe(field: dataclasses.Field, *, set_by_model: bool = False) -> str:
    """What the help says about a field."""
    facts = field.metadata
    unit = f", in {facts['unit']}" if facts["unit"] else ""
    if set_by_model and field.default is not None:
        return f"{facts['help']}{unit} (default: what suits the model)"
    default = "" if field.default in (None, "", 0, ()) else f" (default: {field.default})"
    return f"{facts['help']}{unit}{default}"


def _add_flag(command: Command, field: dataclasses.Field, kind: Any, shown: str) -> None:
    facts: Any = field.metadata
    options: dict[str, Any] = {"default": argparse.SUPPRESS, "help": shown.replace("%", "%%")}
    if kind is not bool:
        options["metavar"] = facts["metavar"] or "|".join(facts["choices"] or ()) or "N"
        options["type"] = partial(read_setting, field, kind)
    if facts["is_word"]:
        options |= {"nargs": "*", "type": str} if is_list(kind) else {"nargs": "?"}
        command.add_argument(field.name, **options)
        return
    if kind is bool:
        options["action"] = argparse.BooleanOptionalAction
    if kind == TEXTS:
        options["action"] = Texts
    names = facts["flags"] or [f"--{field.name.replace('_', '-')}"]
    command.add_argument(*names, dest=field.name, **options)
