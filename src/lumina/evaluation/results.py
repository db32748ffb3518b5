"""Making what an evaluation asks for, and the folder that its result is written to."""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
from PIL import Image

import lumina
from lumina.devices import report
from lumina.errors import LuminaError, UnknownNameError
from lumina.evaluation.keeping import FOLDER, Keeper
from lumina.media import make_folder, make_grid, write_png, write_whole
from lumina.worlds.vocabulary import LANGUAGES

STEPS, GUIDANCE = 30, 4.0
"""Where none are given, as in pipelines."""

GRID, RESULT = "grid.png", "result.json"


@runtime_checkable
class InSection(Protocol):
    """Something to ask for."""

    @property
    def section(self) -> str:
        """What is measured by it."""
        ...


W = TypeVar("W", bound=InSection)


def say_nothing(line: str) -> None:
    """What is told how far an evaluation is, where nobody wants to know."""


def make_all(
    wishes: Sequence[W],
    make: Callable[[list[W]], Sequence[np.ndarray]],
    *,
    alike: Callable[[W], Any],
    at_once: Callable[[W], int],
    called: str,
    tell: Callable[[str], None],
    keeper: Keeper,
) -> Iterator[tuple[W, np.ndarray]]:
    """Yield each wish with what was made of it, and tell how long the others will take.

    Args:
        wishes: Those that are alike follow each other.
        make: Makes those of a list, which are alike.
        alike: What wishes have in common that can be made at once.
        at_once: The most of a list that begins with one.
        called: What is made, as a plural.
        tell: Gets a line after each list.
        keeper: Of those that are made.
    """
    began, done = time.monotonic(), 0
    for _, group in groupby(wishes, alike):
        same = list(group)
        for start in range(0, len(same), at_once(same[0])):
            batch = same[start : start + at_once(same[0])]
            yield from zip(batch, keeper.make(done, partial(make, batch)), strict=True)
            done += len(batch)
            spent = time.monotonic() - began + keeper.seconds
            left = spent / done * (len(wishes) - done)
            tell(f"{done} of {len(wishes)} {called} ({batch[-1].section}), {left:.0f} s left")


def some_of_each(wishes: Sequence[W], most: int) -> list[W]:
    """A few of each section, evenly spread."""
    chosen: list[W] = []
    for _, group in groupby(wishes, lambda wish: wish.section):
        same = list(group)
        chosen += same[:: -(-len(same) // most)]
    return chosen


def check_counts(names: int | None) -> None:
    """Raise a `LuminaError` if less than one thing is to be asked for."""
    if names is not None and names < 1:
        raise LuminaError(f"names is {names}, which is out of range", hint="allowed: 1 and above")


def other_languages(languages: Sequence[str] | None, known: Sequence[str] = LANGUAGES) -> list[str]:
    """Languages besides English, each once.

    Args:
        languages: Those that were asked for. None is all.
        known: Those in which there are captions.

    Raises:
        UnknownNameError: If there is no such language.
    """
    chosen = known if languages is None else languages
    for language in chosen:
        if language not in known:
            raise UnknownNameError.among(known, language, kind="language")
    return [code for code in dict.fromkeys(chosen) if code != "en"]


def settings_of(pipeline: Any, *, steps: int | None, guidance: float | None) -> dict[str, Any]:
    """How a pipeline is asked, for the record."""
    scheduler = getattr(pipeline, "scheduler", None)
    config = {} if scheduler is None else scheduler.config
    return {
        "steps": STEPS if steps is None else steps,
        "guidance": GUIDANCE if guidance is None else guidance,
        "scheduler": {k: value for k, value in config.items() if not k.startswith("_")} or None,
        "dtype": str(pipeline.dtype).removeprefix("torch."),
        "device": str(pipeline.device),
    }


def identity(
    pipeline: Any, settings: Mapping[str, Any], asked: Sequence[Any], model: str
) -> dict[str, Any]:
    """All that what is made depends on, but for rounding by another number of threads.

    Args:
        pipeline: Of the model.
        settings: How it is asked.
        asked: What for, as plain values.
        model: Fingerprint of its weights.
    """
    plan = hashlib.sha256(json.dumps(asked).encode()).hexdigest()
    used = {what: by for what, by in versions().items() if what not in ("cores", "memory")}
    usual = pipeline.config.get("usual_size")
    return {"model": model, "usual": usual, "settings": settings, "plan": plan, "versions": used}


def versions() -> dict[str, str]:
    """What the result may depend on besides the model."""
    return {"lumina": lumina.__version__} | report()


def last_row(result: dict[str, Any], called: str) -> str:
    """How a result was made, below its table."""
    settings = result["settings"]
    return (
        f"{settings['steps']} steps, guidance {settings['guidance']:g}, {settings['dtype']} on "
        f"{settings['device']}, {len(result['samples'])} {called} in "
        f"{result['seconds']['total']:.0f} s"
    )


def prepare(folder: Path) -> None:
    """Make the folder of a result, unless it has one; what was begun there goes on.

    Raises:
        LuminaError: If it has, or cannot be made.
    """
    check_output(folder)
    make_folder(folder)


def check_output(folder: Path) -> None:
    """Raise a `LuminaError` if this is a file, or a folder that has a result."""
    if folder.is_file():
        raise LuminaError(f"{folder} is a file", hint="results are several files: name a folder")
    if (folder / FOLDER).is_dir():
        return
    for name in (GRID, RESULT):
        if (folder / name).exists():
            raise LuminaError(f"{folder / name} exists", hint="choose another folder")


def write_folder(
    folder: Path, result: dict[str, Any], pictures: Sequence[Image.Image], labels: Sequence[str]
) -> None:
    """Write a grid of pictures with their labels, and last all numbers."""
    record = {key: result[key] for key in ("settings", "versions")}
    grid = make_grid(list(pictures), list(labels))
    write_png(folder / GRID, grid, record, force=True)
    text = json.dumps(result, indent=2, ensure_ascii=False)
    write_whole(folder / RESULT, f"{text}\n".encode())
