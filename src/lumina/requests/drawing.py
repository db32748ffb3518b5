"""Requests for pictures from words or classes alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from lumina.errors import LuminaError
from lumina.requests.fields import (
    STRENGTH,
    check_prompt,
    hold_setting,
    prompt_setting,
    prompts_setting,
    refuse_missing_size,
    refuse_noise,
    size_setting,
    strength_setting,
)
from lumina.requests.sampling import ImageRequest, Rule, TextRequest, steps_left
from lumina.settings import setting

_TWO_STAGE = "draw at the size of training first, then at the size asked for, guided by that"


def _refuse_noise_between(request: "TextToImage") -> None:
    if request.two_stage:
        refuse_noise(request)


@dataclass(frozen=True, kw_only=True)
class TextToImage(TextRequest):
    """Make pictures from prompts."""

    rules: ClassVar[tuple[Rule, ...]] = (*TextRequest.rules, _refuse_noise_between)

    prompt: str = prompt_setting()
    two_stage: bool = setting(False, _TWO_STAGE)

    @property
    def fewest_steps(self) -> int:
        """Those of the second stage, if there are two."""
        return steps_left(self.steps, STRENGTH) if self.two_stage else self.steps


@dataclass(frozen=True, kw_only=True)
class ClassToImage(ImageRequest):
    """Make pictures of a class, by a model that was trained on classes."""

    class_label: int = setting(0, "what to draw, by models of classes: a number from 0", ge=0)

    @property
    def labels(self) -> list[str]:
        """The number of the class."""
        return [f"class {self.class_label}"]


def _refuse_no_way(request: "Interpolate") -> None:
    stops, seeds = len(request.prompts), 1 if request.to_seed is None else 2
    if not stops:
        check_prompt("")
    if max(stops, seeds) < 2:
        raise LuminaError(
            "there is one prompt and one seed, and nothing between them",
            hint="give another prompt, or --to-seed",
        )
    if len(set(request.prompts)) == 1 and request.to_seed in (None, request.seed):
        raise LuminaError(
            f"both ends are {request.prompts[0]!r} from one seed, and nothing is between them",
            hint="give another prompt, or another --to-seed",
        )
    if seeds == 2 and stops > 2:
        raise LuminaError(
            f"there are {stops} prompts on the way between two seeds",
            hint="give one or two prompts, or leave out --to-seed",
        )


@dataclass(frozen=True, kw_only=True)
class Interpolate(TextRequest):
    """Make the pictures between prompts, or between seeds."""

    rules: ClassVar[tuple[Rule, ...]] = (*TextRequest.rules, refuse_noise, _refuse_no_way)

    prompts: tuple[str, ...] = prompts_setting("what to draw, one after the other")
    frames: int = setting(8, "pictures in all, both ends included", ge=2, le=1000)
    to_seed: int | None = setting(
        None, "seed of the last picture (default: that of the first)", ge=0, le=2**53
    )

    @property
    def labels(self) -> list[str]:
        """The first and the last prompt, with seeds if they differ, and numbers between them."""
        inner = [f"{number}" for number in range(2, self.frames)]
        first, last = self.prompts[0], self.prompts[-1]
        if self.to_seed is not None:
            first, last = f"{first}, seed {self.seed}", f"{last}, seed {self.to_seed}"
        return [first, *inner, last]

    @property
    def title(self) -> str:
        """All prompts."""
        return " ".join(self.prompts)


def _refuse_lone_prompt(request: "StyleSet") -> None:
    if len(request.prompts) < 2:
        raise LuminaError(
            f"there is no set of {len(request.prompts)}", hint="give two prompts or more"
        )


@dataclass(frozen=True, kw_only=True)
class StyleSet(TextRequest):
    """Make pictures of several prompts in one style."""

    rules: ClassVar[tuple[Rule, ...]] = (*TextRequest.rules, _refuse_lone_prompt)

    prompts: tuple[str, ...] = prompts_setting("what to draw, each in a picture of its own")
    sharing: float | None = setting(
        None, "how much the pictures see of the first; 0 is nothing (default: 5)", ge=0, le=100
    )
    shared: str | None = setting(
        None,
        "what they see: the words for its surroundings, its frame, or all of each other"
        " (default: words)",
        choices=("words", "frame", "all"),
    )

    @property
    def labels(self) -> list[str]:
        """The prompts."""
        return list(self.prompts)


def read_view(text: str) -> tuple[str, str]:
    """The view and the prompt of a text like `rotate180=a dog`.

    Raises:
        LuminaError: If one of them is missing.
    """
    view, _, prompt = text.partition("=")
    if not view.strip() or not prompt.strip():
        raise LuminaError(
            f"the view {text!r} lacks its name or its prompt", hint='write "rotate180=a dog"'
        )
    return view.strip(), prompt.strip()


def _check_views(views: Sequence[str]) -> None:
    if not views:
        raise LuminaError(
            "there is no view",
            hint='for example: --view "identity=a cat" --view "rotate180=a dog"',
        )
    for view in views:
        read_view(view)


def _refuse_second_stage(request: "Anagram") -> None:
    for name in ("strength", "hold"):
        if getattr(request, name) is not None and not request.two_stage:
            raise LuminaError(
                f"{name} is a setting of the second stage, and there is only one",
                hint=f"add --two-stage, or leave --{name} out",
            )


@dataclass(frozen=True, kw_only=True)
class Anagram(TextRequest):
    """Make a picture that shows another thing when it is turned."""

    rules: ClassVar[tuple[Rule, ...]] = (*TextRequest.rules, refuse_noise, _refuse_second_stage)

    views: tuple[str, ...] = setting(
        (),
        "how to look at it, and what it then shows: identity, flip-x, flip-y, rotate90, rotate180,"
        " rotate270, negative, permute:SEED",
        metavar="VIEW=PROMPT",
        flags=("--view",),
        separator="|",
        check=_check_views,
    )
    through: str | None = setting(
        None,
        "where the views come together; latents are faster, for models whose latents can be turned"
        " (default: pixels)",
        choices=("pixels", "latents"),
    )
    two_stage: bool = setting(False, _TWO_STAGE)
    strength: float | None = strength_setting(
        f"with --two-stage: how much the second draws anew (default: {STRENGTH:g})"
    )
    hold: float | None = hold_setting()

    @property
    def fewest_steps(self) -> int:
        """Those of the second stage, if there are two."""
        if not self.two_stage:
            return self.steps
        return steps_left(self.steps, STRENGTH if self.strength is None else self.strength)

    @property
    def labels(self) -> list[str]:
        """What all views show."""
        return [", ".join(read_view(view)[1] for view in self.views)]


@dataclass(frozen=True, kw_only=True)
class Panorama(TextRequest):
    """Make a wide picture out of overlapping parts."""

    rules: ClassVar[tuple[Rule, ...]] = (*TextRequest.rules, refuse_missing_size)

    prompt: str = prompt_setting("what every part shows")
    overlap: float | None = setting(
        None, "share of a part that the next one sees too (default: 0.5)", ge=0, le=0.9
    )
    around: bool = setting(False, "have left and right meet, for a view all around")
    size: str | None = size_setting()


@dataclass(frozen=True, kw_only=True)
class Tile(TextRequest):
    """Make a picture that repeats without a seam."""

    prompt: str = prompt_setting()
    overlap: float | None = setting(
        None, "share of a part that the next one sees too (default: 0.5)", above=0, le=0.9
    )
