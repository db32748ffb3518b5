"""Settings that vary: from `guidance=2,4,8` to every combination of values."""

import dataclasses
from collections.abc import Sequence
from itertools import product
from typing import Any, NamedTuple, get_type_hints

from lumina.errors import LuminaError, UnknownNameError
from lumina.requests import ImageRequest
from lumina.settings import read_setting, without_none


class Axis(NamedTuple):
    """A setting that varies."""

    name: str
    values: list[Any]
    labels: list[str]
    """Each value as it was written, with the name."""


def read_axis(text: str, kind: type[ImageRequest]) -> Axis:
    """The setting and the values of a text like `guidance=2,4,8`.

    Raises:
        LuminaError: If there is no such setting, or a value is missing or of another type.
    """
    name, _, listed = text.partition("=")
    name = name.strip().replace("-", "_")
    fields = {field.name: field for field in dataclasses.fields(kind)}
    if name not in fields:
        raise UnknownNameError.among(fields, name, kind="setting")
    separator = fields[name].metadata["separator"]
    values = [value.strip() for value in listed.split(separator)]
    if "" in values:
        raise LuminaError(
            f"--vary {text} lacks a value",
            hint=f"write values with {separator} between them: --vary guidance=2,4,8",
        )
    hint = get_type_hints(kind)[name]
    typed = [read_setting(fields[name], hint, value) for value in values]
    label = "" if without_none(hint) is str and separator == "|" else f"{name.replace('_', ' ')} "
    return Axis(name, typed, [label + value for value in values])


def refuse_twice(axes: Sequence[Axis], given: Sequence[str]) -> None:
    """Refuse settings that are given twice: as they are, and to vary.

    Raises:
        LuminaError: If there is one.
    """
    seen = set(given)
    for axis in axes:
        if axis.name in seen:
            raise LuminaError(
                f"{axis.name} is given twice", hint="give it once: either as it is, or with --vary"
            )
        seen.add(axis.name)


def combine(axes: Sequence[Axis]) -> list[dict[str, Any]]:
    """All combinations of values, in the order of a table.

    The second axis changes the fastest, then the first, and then the last of those that follow.
    """
    ordered = [*axes[2:], *axes[:2]]
    names = [axis.name for axis in ordered]
    return [
        dict(zip(names, values, strict=True)) for values in product(*(a.values for a in ordered))
    ]
