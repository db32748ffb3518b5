"""Typed fields that also make the flags, the forms and the manual.

Nothing heavy is imported here, so that `lumina --help` answers at once.
"""

import dataclasses
import math
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from lumina.errors import LuminaError, UnknownNameError

Settings = TypeVar("Settings")
"""A dataclass of settings."""


def setting(
    default: Any,
    help: str,  # noqa: A002
    *,
    ge: float | None = None,
    above: float | None = None,
    le: float | None = None,
    step: float | None = None,
    unit: str | None = None,
    choices: Sequence[str] | None = None,
    metavar: str | None = None,
    aliases: Mapping[str, str] | None = None,
    check: Callable[[Any], object] | None = None,
    flags: Sequence[str] = (),
    is_word: bool = False,
    separator: str = ",",
) -> Any:
    """Declare a field of a dataclass together with what a person must know to set it.

    Args:
        default: Its value where nobody says anything else. None means: found when needed.
        help: What it does, in a few words.
        ge: Smallest allowed value.
        above: What the value has to be above.
        le: Largest allowed value.
        step: How far a slider moves it.
        unit: What it is counted in.
        choices: All allowed values.
        metavar: How its value is written in the help, such as `WxH`.
        aliases: Values that may be written in another way, by that way.
        check: Raises a `LuminaError` if it gets a value that cannot be meant, other than None.
        flags: Names on the command line, if not that of the field.
        is_word: Whether it is given without a flag, in the order of the fields.
        separator: What is between several values, where a list of them can be given. It is "|"
            where a comma may be part of a value.
    """
    facts = {
        "help": help,
        "ge": ge,
        "above": above,
        "le": le,
        "step": step,
        "unit": unit,
        "choices": choices,
        "metavar": metavar,
        "aliases": aliases or {},
        "check": check,
        "flags": flags,
        "is_word": is_word,
        "separator": separator,
    }
    if isinstance(default, dict):
        return dataclasses.field(default_factory=default.copy, metadata=facts)
    return dataclasses.field(default=default, metadata=facts)


def check_settings(settings: Any) -> None:
    """Hold every field of a dataclass of settings against its declaration.

    Raises:
        LuminaError: At the first value that has another type or is out of range.
    """
    values = {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}
    _check_values(type(settings), values)


def read_setting(field: dataclasses.Field, kind: Any, text: str) -> Any:
    """Turn the text of a flag into the value of a field.

    Args:
        field: The field that the flag sets.
        kind: Its type, resolved.
        text: What was typed: numbers of a list with commas between them.

    Raises:
        LuminaError: If the text does not stand for a value of that type.
    """
    kind = without_none(kind)
    try:
        if not is_list(kind):
            return _READERS[kind](field.metadata["aliases"].get(text, text))
        if kind == TEXTS:
            return (text,)
        return tuple(get_args(kind)[0](part) for part in text.split(","))
    except ValueError:
        raise LuminaError(
            f"{field.name} is {text!r}, not {_noun(kind)}", hint=_allowed(field.metadata)
        ) from None


def from_table(kind: type[Settings], table: Mapping[str, Any]) -> Settings:
    """Settings from a table of a TOML file.

    Raises:
        LuminaError: If a name is unknown, or a value has another type or is out of range.
    """
    listed = {
        name: tuple(value) if isinstance(value, list) else value for name, value in table.items()
    }
    _check_values(kind, check_names(kind, listed))
    return kind(**listed)


def check_names(kind: type[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The values, if each of them names a field of the dataclass.

    Raises:
        UnknownNameError: If one does not.
    """
    known = names_of(kind)
    for name in values:
        if name not in known:
            raise UnknownNameError.among(known, name, kind="setting")
    return dict(values)


def names_of(kind: type[Any]) -> list[str]:
    """Names of all fields of a dataclass."""
    return [field.name for field in dataclasses.fields(kind)]


def flags_of(field: dataclasses.Field) -> Sequence[str]:
    """Names of a field on the command line, where it is not given as a word."""
    return field.metadata["flags"] or [f"--{field.name.replace('_', '-')}"]


def is_list(kind: Any) -> bool:
    """Whether values of a type are several."""
    return get_origin(kind) is tuple


def without_none(kind: Any) -> Any:
    """A type without the None that it allows for."""
    if get_origin(kind) is not types.UnionType:
        return kind
    return next(part for part in get_args(kind) if part is not type(None))


TEXTS = tuple[str, ...]
"""The type of a setting that is several texts."""

TABLES = tuple[dict, ...]
"""The type of a setting that is several tables of a TOML file."""


def _check_values(settings: type[Any], values: Mapping[str, Any]) -> None:
    """Hold values of some fields of a dataclass against their declarations."""
    hints = get_type_hints(settings)
    for field in dataclasses.fields(settings):
        if field.name not in values:
            continue
        value, kind = values[field.name], hints[field.name]
        if value is None and kind is not without_none(kind):
            continue
        _check(field.name, value, without_none(kind), field.metadata)
        if field.metadata["check"] is not None:
            field.metadata["check"](value)


def _read_bool(text: str) -> bool:
    known = {"true": True, "false": False}
    if text.lower() not in known:
        raise ValueError(text)
    return known[text.lower()]


_READERS: dict[Any, Callable[[str], Any]] = {int: int, float: float, str: str, bool: _read_bool}
_NOUNS = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    dict: "a table",
}


def _noun(kind: Any) -> str:
    if not is_list(kind):
        return _NOUNS[kind]
    if kind == TEXTS:
        return "a list of texts"
    if kind == TABLES:
        return "a list of tables"
    first, second = get_args(kind)
    return "numbers with commas between them" if second is ... else "two numbers: 0.1,0.8"


def _check(name: str, value: Any, kind: Any, facts: Mapping[str, Any]) -> None:
    if is_list(kind):
        _check_list(name, value, kind, facts)
        return
    fits = isinstance(value, kind) or (kind is float and isinstance(value, int))
    if not fits or (isinstance(value, bool) and kind is not bool):
        raise LuminaError(f"{name} is {value!r}, not {_noun(kind)}", hint=_allowed(facts))
    if isinstance(value, float) and not math.isfinite(value):
        raise LuminaError(f"{name} is {value}, not a number", hint=_allowed(facts))
    if facts["choices"] and value not in facts["choices"]:
        raise UnknownNameError.among(facts["choices"], str(value), kind=name)
    if kind in (int, float) and not _is_in_range(value, facts):
        raise LuminaError(f"{name} is {value}, which is out of range", hint=_allowed(facts))


def _check_list(name: str, value: Any, kind: Any, facts: Mapping[str, Any]) -> None:
    part, *others = get_args(kind)
    length = None if others == [...] else 1 + len(others)
    if not isinstance(value, tuple) or length not in (None, len(value)):
        raise LuminaError(f"{name} is {value!r}, not {_noun(kind)}", hint=_allowed(facts))
    for one in value:
        _check(name, one, part, facts)


def _is_in_range(value: float, facts: Mapping[str, Any]) -> bool:
    low, bound, high = facts["ge"], facts["above"], facts["le"]
    is_high_enough = (low is None or value >= low) and (bound is None or value > bound)
    return is_high_enough and (high is None or value <= high)


def _allowed(facts: Mapping[str, Any]) -> str | None:
    low, bound, high = facts["ge"], facts["above"], facts["le"]
    if bound is not None:
        return f"allowed: above {bound}" + ("" if high is None else f", up to {high}")
    if low is None:
        return facts["help"]
    return f"allowed: {low} and above" if high is None else f"allowed: {low} to {high}"
