"""What models of media are asked for and how it is judged: an exam for each generated world."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from lumina.catalog import Checkpoint
from lumina.checkpoints.folder import worlds_of
from lumina.errors import LuminaError, refuse_missing_library
from lumina.evaluation.lines import Line, share
from lumina.worlds import World, find_world


class Wish(NamedTuple):
    """One medium to ask for.

    Args:
        section: What is measured by it.
        prompt: What the model is told.
        brief: What the judge knows of it.
        seed: Of the noise.
        arguments: Others of the call of the pipeline: how large it is to be, and so on.
        language: Of the prompt.
        at_once: How many like it are made at once, at most.
    """

    section: str
    prompt: str
    brief: Any
    seed: int
    arguments: Mapping[str, Any]
    language: str = "en"
    at_once: int = 8


class Outcome(NamedTuple):
    """What was found in what was made."""

    wish: Wish
    verdict: Any


@runtime_checkable
class Exam(Protocol):
    """What is asked for, and how that is judged. Its module has it as `EXAM`.

    It is made of the usual settings of the model: `Checkpoint.defaults`.
    """

    called: str
    """What is made, as a plural."""

    @property
    def world(self) -> World:
        """What true examples are of."""
        ...

    @property
    def languages(self) -> Sequence[str]:
        """Languages in which there are captions."""
        ...

    def plan(self, *, full: bool, names: int | None, languages: Sequence[str]) -> list[Wish]:
        """All that is asked for, the same each time.

        Args:
            full: Ask for far more.
            names: How much the first section asks for; others follow in proportion. None is as
                much as is usual.
            languages: Those to ask in besides English.
        """
        ...

    def example(self, wish: Wish) -> np.ndarray | None:
        """What a perfect model would make, or None where there is no telling."""
        ...

    def judge(self, wish: Wish, medium: np.ndarray) -> Any:
        """A verdict of one medium, as `measure` takes it."""
        ...

    def measure(self, outcomes: Sequence[Outcome]) -> list[Line]:
        """All numbers, for what some or all sections have asked for."""
        ...

    def describe(self, outcome: Outcome) -> dict[str, Any]:
        """What was asked and what was found, as JSON holds it; "right" says whether all is well."""
        ...


def by_language(
    outcomes: Sequence[Outcome], is_right: Callable[[Outcome], bool], what: str
) -> list[Line]:
    """How many are right in each language, where prompts of each follow each other.

    Args:
        outcomes: One or more, of one section.
        is_right: Says whether one is right.
        what: What is right then.
    """
    spoken: dict[str, list[bool]] = {}
    for outcome in outcomes:
        spoken.setdefault(outcome.wish.language, []).append(is_right(outcome))
    section = outcomes[0].wish.section
    return [share(section, f"{what}, {code}", are_right) for code, are_right in spoken.items()]


_MODULES: Mapping[str, str] = {
    "solids": "lumina.evaluation.clouds",
    "motion": "lumina.evaluation.clips",
    "sounds": "lumina.evaluation.sounds",
    "items": "lumina.evaluation.views",
    "music": "lumina.evaluation.tunes",
    "speech": "lumina.evaluation.spoken",
}
"""Where the exam of each world is. The first of a modality is for models without a record."""

_JUDGED_BY: Mapping[str, tuple[str, str]] = {
    "solids": ("scipy", "points"),
    "speech": ("pocketsphinx", "speech"),
}
"""Package of a judge, and the extra that brings it, where training in the world needs neither."""


def open_exam(checkpoint: Checkpoint) -> Exam:
    """The exam of what a model was trained on.

    Raises:
        LuminaError: If there is none, or what it needs is not installed.
    """
    world = _world_of(checkpoint)
    exam = exam_of(world, checkpoint.defaults)
    exam.world.check()
    if world in _JUDGED_BY:
        package, extra = _JUDGED_BY[world]
        refuse_missing_library(package, extra=extra)
    return exam


def exam_of(world: str, usual: Mapping[str, Any]) -> Exam:
    """The exam of a world, for models with some usual settings."""
    return importlib.import_module(_MODULES[world]).EXAM(usual)


def _world_of(checkpoint: Checkpoint) -> str:
    trained = [name for name in worlds_of(checkpoint.folder) if name in _MODULES]
    known = trained or list(_MODULES)
    for name in known:
        if find_world(name).modality == checkpoint.modality:
            return name
    raise LuminaError(
        f"{checkpoint.folder} makes {checkpoint.modality}, for which there are no rules",
        hint=f"models that were trained on one of these worlds have some: {', '.join(_MODULES)}",
    )
