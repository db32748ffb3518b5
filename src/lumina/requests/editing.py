"""Requests that begin from a picture."""

from dataclasses import dataclass
from typing import ClassVar

from lumina.errors import LuminaError
from lumina.requests.fields import (
    STRENGTH,
    check_prompt_of,
    file_setting,
    hold_setting,
    picture_size_setting,
    prompt_setting,
    refuse_missing_size,
    refuse_noise,
    size_setting,
    strength_setting,
)
from lumina.requests.sampling import Rule, TextRequest, steps_left
from lumina.requests.sizes import read_place
from lumina.settings import setting


def _refuse_noise_back(request: "EditImage") -> None:
    if request.was is not None:
        refuse_noise(request)


@dataclass(frozen=True, kw_only=True)
class EditImage(TextRequest):
    """Change a picture as a prompt says."""

    rules: ClassVar[tuple[Rule, ...]] = (*TextRequest.rules, _refuse_noise_back)

    image: str = file_setting("the picture", "IMAGE")
    prompt: str = prompt_setting("what it is to show")
    strength: float | None = strength_setting(
        f"how much to change (default: {STRENGTH:g}; with --was: 1)"
    )
    was: str | None = setting(
        None,
        "what the picture shows now; it is followed back to noise, which keeps more of it",
        metavar="PROMPT",
        separator="|",
        check=check_prompt_of("--was"),
    )
    size: str | None = picture_size_setting()

    @property
    def fewest_steps(self) -> int:
        """Those from where the picture is brought back to."""
        usual = STRENGTH if self.was is None else 1.0
        return steps_left(self.steps, usual if self.strength is None else self.strength)


@dataclass(frozen=True, kw_only=True)
class InpaintImage(TextRequest):
    """Repaint the part of a picture that a mask shows white."""

    rules: ClassVar[tuple[Rule, ...]] = (*TextRequest.rules, refuse_noise)

    image: str = file_setting("the picture", "IMAGE")
    mask: str = file_setting("a picture as large: white is repainted, black is kept", "MASK")
    prompt: str = prompt_setting("what it is to show")
    border: int | None = setting(
        None, "widest soft border of the mask (default: 16)", ge=0, le=512, unit="pixels"
    )
    crop: int | None = setting(
        None,
        "look at the mask and as much around it alone, enlarged: for small parts of large pictures",
        ge=0,
        le=4096,
        unit="pixels",
    )
    size: str | None = picture_size_setting()

    @property
    def fits_any_size(self) -> bool:
        """With `crop`, since a part of another size is looked at."""
        return self.crop is not None


@dataclass(frozen=True, kw_only=True)
class OutpaintImage(TextRequest):
    """Paint what is around a picture."""

    rules: ClassVar[tuple[Rule, ...]] = (*TextRequest.rules, refuse_noise, refuse_missing_size)

    image: str = file_setting("the picture", "IMAGE")
    prompt: str = prompt_setting("what the whole shows")
    at: str | None = setting(
        None,
        "where the picture is, from left and top (default: in the middle)",
        unit="pixels",
        metavar="X,Y",
        separator="|",
        check=read_place,
    )
    border: int | None = setting(
        None, "widest soft border of the picture (default: 16)", ge=0, le=512, unit="pixels"
    )
    size: str | None = size_setting()


@dataclass(frozen=True, kw_only=True)
class UpscaleImage(TextRequest):
    """Make a picture larger, with details as a prompt says."""

    rules: ClassVar[tuple[Rule, ...]] = (*TextRequest.rules, refuse_noise, refuse_missing_size)

    image: str = file_setting("the picture", "IMAGE")
    prompt: str = prompt_setting(
        "what it shows (default: what it was made from, if lumina made it)"
    )
    strength: float | None = strength_setting(f"how much to draw anew (default: {STRENGTH:g})")
    hold: float | None = hold_setting()
    size: str | None = size_setting()

    @property
    def fewest_steps(self) -> int:
        """Those of the large picture."""
        return steps_left(self.steps, STRENGTH if self.strength is None else self.strength)


def _refuse_guidance_alone(request: "VaryImage") -> None:
    if request.origin is None and request.amount == 0 and request.guidance > 1:
        raise LuminaError(
            "amount is 0, and of a picture whose seed is not known, guidance alone would make"
            " another one: the way back to its noise has none",
            hint="add --guidance 1, which gives the picture back, or give an amount above 0",
        )


@dataclass(frozen=True, kw_only=True)
class VaryImage(TextRequest):
    """Make pictures like one."""

    rules: ClassVar[tuple[Rule, ...]] = (*TextRequest.rules, refuse_noise, _refuse_guidance_alone)

    image: str = file_setting("the picture", "IMAGE")
    prompt: str = prompt_setting(
        "what it shows (default: what it was made from, if lumina made it)"
    )
    origin: int | None = setting(
        None,
        "seed that it was made from (default: what its file says; without one, the picture is"
        " followed back to noise)",
        ge=0,
        le=2**53,
    )
    amount: float = setting(0.3, "how far to go: 0 not at all, 1 as far as can be", ge=0, le=1)
    size: str | None = picture_size_setting()
