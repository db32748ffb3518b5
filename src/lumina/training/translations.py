"""Captions, and what English says instead: those of a world, or of a file of one's own."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lumina.errors import LuminaError
from lumina.worlds import find_world

UNSEEN = 20
"""One of so many lines of a file is kept for validation."""


class Said(NamedTuple):
    """What can be said of one thing."""

    english: Sequence[str]
    """In English; the first stands for what all others mean."""
    others: Sequence[str]


Draw = Callable[[np.random.Generator], Said]
"""Draws what can be said of something."""


def captions_of_world(name: str) -> Draw:
    """What a world says of random examples."""
    in_english, world = (find_world(name, {"foreign": foreign}) for foreign in (False, True))

    def draw(rng: np.random.Generator) -> Said:
        brief = world.draw(rng)
        english = in_english.captions(brief)
        return Said(english, [one for one in world.captions(brief) if one not in english])

    return draw


def captions_of_file(path: Path) -> tuple[Draw, Draw]:
    """What lines of a file say: those to train on, and those to validate on.

    Raises:
        LuminaError: If it cannot be read, or a line is not as it has to be.
    """
    try:
        # Some editors begin a file with a mark of its encoding, which is no JSON.
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise LuminaError(
            f"cannot read {path}: {error}", hint="pairs names a file of lines as in the guide"
        ) from error
    said = [_read(path, number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if len(said) < UNSEEN:
        raise LuminaError(
            f"{path} has {len(said)} lines", hint=f"give {UNSEEN} at least, of as many captions"
        )
    unseen = said[::UNSEEN]
    seen = [one for number, one in enumerate(said) if number % UNSEEN]
    return _draw_of(seen), _draw_of(unseen)


def _draw_of(said: Sequence[Said]) -> Draw:
    return lambda rng: said[int(rng.integers(len(said)))]


def _read(path: Path, number: int, line: str) -> Said:
    try:
        entry = json.loads(line)
        caption, english = entry["caption"], entry["english"]
    except (ValueError, KeyError, TypeError):
        caption, english = None, None
    if not (isinstance(caption, str) and isinstance(english, str) and caption and english):
        raise LuminaError(
            f"line {number} of {path} is no caption and its translation",
            hint='write {"caption": "ein roter Ball", "english": "a red ball"}',
        )
    return Said([english], [caption])
