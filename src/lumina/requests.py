"""What a pipeline can be asked, as typed settings that also make the flags and the manual.

Nothing heavy is imported here, so that `lumina --help` answers at once.
"""

import dataclasses
import math
import re
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args, get_origin, get_type_hints

from lumina.errors import LuminaError, UnknownNameError

DTYPES = ("auto", "float32", "bfloat16", "float16")

SOLVERS = ("euler", "midpoint", "heun", "rk4", "ab2", "dpm++", "unipc")
"""Solvers of fixed steps, of `lumina.flow.solvers`."""

SCHEDULES = ("uniform", "sigmoid")
"""How steps are spread before they are shifted."""

EXTRAPOLATIONS = (
    "none",
    "linear",
    "ntk",
    "watershed",
    "frequency-aware",
    "time-aware",
    "yarn",
)
"""How positions are read at other sizes than the trained one, of `lumina.nn.extrapolation`."""

CONTEXT_DROPS = ("none", "time-aware", "all")
"""In which blocks attention sees fewer keys, of `lumina.nn.context_drop`."""

PRESETS = ("original",)
"""Ways to sample besides that of diffusers: as the original release did."""

SIZE_MULTIPLE = 16
"""Sides of a picture are multiples of this: 8 pixels a latent, 2 latents a token."""


def setting(
    default: Any,
    help: str,  # noqa: A002
    *,
    ge: float | None = None,
    le: float | None = None,
    step: float | None = None,
    unit: str | None = None,
    choices: Sequence[str] | None = None,
    metavar: str | None = None,
) -> Any:
    """Declare a field of a dataclass together with what a person must know to set it.

    Args:
        default: Its value where nobody says anything else. None means: found when needed.
        help: What it does, in a few words.
        ge: Smallest allowed value.
        le: Largest allowed value.
        step: How far a slider moves it.
        unit: What it is counted in.
        choices: All allowed values.
        metavar: How its value is written in the help, such as `WxH`.
    """
    facts = {
        "help": help,
        "ge": ge,
        "le": le,
        "step": step,
        "unit": unit,
        "choices": choices,
        "metavar": metavar,
    }
    return dataclasses.field(default=default, metadata=facts)


@dataclass(frozen=True, kw_only=True)
class ImageRequest:
    """One picture, whatever it is asked for by."""

    model: str = setting(
        "lumina-mini", "a name, a folder, a file or a hub id", metavar="NAME|PATH|HUB_ID"
    )
    vae: str | None = setting(
        None, "decoder of a network that comes alone (default: its usual)", metavar="NAME|FOLDER"
    )
    size: str = setting("1024x1024", "width and height", unit="pixels", metavar="WxH")
    steps: int = setting(30, "steps from noise to picture", ge=1, le=1000)
    solver: str | None = setting(
        None, "how to take a step (default: as the model's scheduler)", choices=SOLVERS
    )
    schedule: str | None = setting(None, "how to spread the steps", choices=SCHEDULES)
    shift: float | None = setting(
        None, "above 1 takes smaller steps near noise", ge=0.01, le=100, step=0.5
    )
    guidance: float = setting(
        4.0, "how closely to follow the prompt; 1 turns it off", ge=1, le=20, step=0.5
    )
    preset: str | None = setting(None, "sample as that release did", choices=PRESETS)
    seed: int | None = setting(
        None, "start of the random numbers (default: random)", ge=0, le=2**53
    )
    dtype: str = setting("auto", "type of the numbers to compute with", choices=DTYPES)
    device: str = setting("auto", "where to compute: cpu, cuda, cuda:1, mps", metavar="DEVICE")

    def __post_init__(self) -> None:
        """Refuse values that no model can work with."""
        check_settings(self)
        width, height = read_size(self.size)
        nearest = nearest_size(width, height)
        if (width, height) != nearest:
            raise LuminaError(
                f"size {self.size} is not a multiple of {SIZE_MULTIPLE} pixels on both sides",
                hint=f"the nearest that works is {nearest[0]}x{nearest[1]}",
            )


@dataclass(frozen=True, kw_only=True)
class TextToImage(ImageRequest):
    """One picture from one prompt."""

    prompt: str = setting("", "what to draw")
    negative: str = setting("", "what to keep out of the picture", metavar="TEXT")
    text_encoder: str | None = setting(
        None,
        "text encoder of a network that comes alone (default: its usual)",
        metavar="NAME|FOLDER",
    )

    def __post_init__(self) -> None:
        """Refuse an empty prompt, and values that no model can work with."""
        if isinstance(self.prompt, str) and not self.prompt.strip():
            raise LuminaError("the prompt is empty", hint='say what to draw: "a red apple"')
        super().__post_init__()


@dataclass(frozen=True, kw_only=True)
class ClassToImage(ImageRequest):
    """One picture of one class, by a model that was trained on classes."""

    class_label: int = setting(0, "what to draw, by models of classes: a number from 0", ge=0)


def read_size(text: str) -> tuple[int, int]:
    """Width and height in pixels of a size like `128x96`.

    Raises:
        LuminaError: If it is written in another way.
    """
    match = re.fullmatch(r"(\d{1,9})[x×](\d{1,9})", text.strip().lower())
    if not match:
        raise LuminaError(f"size is {text!r}, not WxH", hint="write width and height: 128x96")
    return int(match[1]), int(match[2])


def nearest_size(width: float, height: float) -> tuple[int, int]:
    """The size nearest to this one that models can make."""

    def nearest(side: float) -> int:
        return max(SIZE_MULTIPLE, math.floor(side / SIZE_MULTIPLE + 0.5) * SIZE_MULTIPLE)

    return nearest(width), nearest(height)


def check_settings(settings: Any) -> None:
    """Hold every field of a dataclass of settings against its declaration.

    Raises:
        LuminaError: At the first value that has another type or is out of range.
    """
    hints = get_type_hints(type(settings))
    for field in dataclasses.fields(settings):
        _check(field.name, getattr(settings, field.name), hints[field.name], field.metadata)


def read_setting(field: dataclasses.Field, kind: Any, text: str) -> Any:
    """Turn the text of a flag into the value of a field.

    Args:
        field: The field that the flag sets.
        kind: Its type, resolved.
        text: What was typed.

    Raises:
        LuminaError: If the text does not stand for a value of that type.
    """
    kind = _without_none(kind)
    try:
        return kind(text)
    except ValueError:
        raise LuminaError(
            f"{field.name} is {text!r}, not {_NOUNS[kind]}", hint=_allowed(field.metadata)
        ) from None


def check_names(kind: type[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The values, if each of them names a field of the dataclass.

    Raises:
        UnknownNameError: If one does not.
    """
    known = [field.name for field in dataclasses.fields(kind)]
    for name in values:
        if name not in known:
            raise UnknownNameError.among(known, name, kind="setting")
    return dict(values)


_NOUNS = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


def _check(name: str, value: Any, kind: Any, facts: Mapping[str, Any]) -> None:
    if value is None and kind is not _without_none(kind):
        return
    kind = _without_none(kind)
    fits = isinstance(value, kind) or (kind is float and isinstance(value, int))
    if not fits or (isinstance(value, bool) and kind is not bool):
        raise LuminaError(f"{name} is {value!r}, not {_NOUNS[kind]}")
    if isinstance(value, float) and not math.isfinite(value):
        raise LuminaError(f"{name} is {value}, not a number", hint=_allowed(facts))
    if facts["choices"] and value not in facts["choices"]:
        raise UnknownNameError.among(facts["choices"], str(value), kind=name)
    low, high = facts["ge"], facts["le"]
    if (low is not None and value < low) or (high is not None and value > high):
        raise LuminaError(f"{name} is {value}, which is out of range", hint=_allowed(facts))


def _allowed(facts: Mapping[str, Any]) -> str:
    low, high = facts["ge"], facts["le"]
    return f"allowed: {low} and above" if high is None else f"allowed: {low} to {high}"


def _without_none(kind: Any) -> Any:
    if get_origin(kind) is not types.UnionType:
        return kind
    return next(part for part in get_args(kind) if part is not type(None))
