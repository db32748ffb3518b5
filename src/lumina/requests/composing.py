"""Requests for one picture of several regions."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from lumina.errors import LuminaError
from lumina.regions import check_box, read_region
from lumina.requests.fields import prompts_setting, refuse_noise
from lumina.requests.sampling import Rule, TextRequest
from lumina.requests.sizes import read_size
from lumina.settings import setting


def read_cells(text: str) -> tuple[int, int]:
    """Columns and rows of a grid like `2x3`.

    Raises:
        LuminaError: If it is written in another way, or there are none.
    """
    match = re.fullmatch(r"(\d{1,3})[x×](\d{1,3})", text.strip().lower())
    if not match or "0" in match.groups():
        raise LuminaError(
            f"cells is {text!r}, not columns and rows", hint="write both, from 1 on: 2x3"
        )
    return int(match[1]), int(match[2])


def _refuse_words(first: str) -> None:
    """Refuse prompts without a place."""
    if re.fullmatch(r"\d+[x×]\d+", first):
        raise LuminaError(
            f"{first!r} is taken for a prompt",
            hint=f"write --cells {first} for a grid of prompts; --grid puts several results into"
            " one file",
        )
    raise LuminaError(
        f"the region of {first!r} is not given",
        hint="write --region x,y,w,h=PROMPT, or --cells 2x2 for a grid of prompts",
    )


def _refuse_no_region(request: "Compose") -> None:
    if request.cells is None and request.prompts:
        _refuse_words(request.prompts[0])
    if request.cells is not None:
        columns, rows = read_cells(request.cells)
        if columns * rows != len(request.prompts) or not request.prompts:
            raise LuminaError(
                f"{request.cells} cells need {columns * rows} prompts, and there are"
                f" {len(request.prompts)}",
                hint="give one prompt for each cell, row after row",
            )
    elif not request.regions:
        raise LuminaError("there is no region", hint="write --region x,y,w,h=PROMPT")


def _refuse_box_outside(request: "Compose") -> None:
    for region in request.regions:
        check_box(read_region(region), read_size(str(request.size)))


def _check_regions(regions: Sequence[str]) -> None:
    for region in regions:
        read_region(region)


def _check_color(name: str) -> None:
    from PIL import ImageColor

    try:
        ImageColor.getrgb(name)
    except ValueError:
        raise LuminaError(
            f"the background {name!r} is no color",
            hint='give a name such as "white", or "#ffcc00"; a picture cannot be one here',
        ) from None


@dataclass(frozen=True, kw_only=True)
class Compose(TextRequest):
    """Make a picture of several regions, each with a prompt of its own."""

    rules: ClassVar[tuple[Rule, ...]] = (
        *TextRequest.rules,
        refuse_noise,
        _refuse_no_region,
        _refuse_box_outside,
    )

    prompts: tuple[str, ...] = prompts_setting("with --cells: what each cell shows, row after row")
    regions: tuple[str, ...] = setting(
        (),
        "what a box shows (left, top, width and height in pixels), or the white part of a mask",
        metavar="X,Y,W,H=PROMPT|FILE=PROMPT",
        flags=("--region", "--mask"),
        separator="|",
        check=_check_regions,
    )
    cells: str | None = setting(
        None, "columns and rows of a grid that fills the picture", metavar="CxR", check=read_cells
    )
    prompt: str = setting(
        "", "what the whole shows (default: all of it)", metavar="PROMPT", separator="|"
    )
    order: bool = setting(False, "where regions overlap, the later lies over the earlier")
    border: int | None = setting(
        None, "width of the soft borders of regions (default: 16)", ge=0, le=512, unit="pixels"
    )
    background: str | None = setting(
        None,
        "color outside of all regions (default: what the whole shows, else white)",
        metavar="COLOR",
        check=_check_color,
    )
    windows_until: float | None = setting(
        None,
        "time until which each region is a picture of its own; models of large scenes want less"
        " (default: 1)",
        ge=0,
        le=1,
    )

    @property
    def labels(self) -> list[str]:
        """What the whole shows, or all regions."""
        parts = [*self.prompts, *(region.partition("=")[2] for region in self.regions)]
        return [self.prompt or ", ".join(parts)]
