"""What can be asked for: one dataclass of settings for each task.

Nothing heavy is imported here, so that `lumina --help` answers at once.
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from lumina.errors import LuminaError
from lumina.regions import check_box, read_region
from lumina.settings import check_settings, setting

DTYPES = ("auto", "float32", "bfloat16", "float16")

SOLVERS = ("euler", "midpoint", "heun", "rk4", "ab2", "dpm++", "unipc")
"""Solvers of fixed steps, of `lumina.flow.solvers`."""

MULTISTEP = ("ab2", "dpm++", "unipc")
"""Those that learn from the step before, and are Euler's without one."""

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

SCALES = ("area", "axis")
"""What other sizes are told by."""

CONTEXT_DROPS = ("none", "time-aware", "all")
"""In which blocks attention sees fewer keys, of `lumina.nn.context_drop`."""

PRESETS = ("original",)
"""Ways to sample besides that of diffusers: as the original release did."""

SIZE_MULTIPLE = 16
"""Sides of a picture are multiples of this: 8 pixels a latent, 2 latents a token."""

Rule = Callable[[Any], None]
"""Raises a `LuminaError` if settings of a request do not fit together."""


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


def check_size(text: str) -> None:
    """Refuse a size that no model can make.

    Raises:
        LuminaError: If it is none, or its sides are no multiples of `SIZE_MULTIPLE`.
    """
    size = read_size(text)
    nearest = nearest_size(*size)
    if size != nearest:
        raise LuminaError(
            f"size {text} is not a multiple of {SIZE_MULTIPLE} pixels on both sides",
            hint=f"the nearest that works is {nearest[0]}x{nearest[1]}",
        )


def read_place(text: str) -> tuple[int, int]:
    """Pixels from the left and from the top of a place like `64,0`.

    Raises:
        LuminaError: If it is written in another way.
    """
    match = re.fullmatch(r"(\d{1,9}),(\d{1,9})", text.strip())
    if not match:
        raise LuminaError(
            f"the place is {text!r}, not x,y", hint="write pixels from left and top: 64,0"
        )
    return int(match[1]), int(match[2])


def check_increasing(times: Sequence[float]) -> None:
    """Refuse times that nothing can stop at one after the other.

    Raises:
        LuminaError: If there are fewer than two, they do not increase or leave [0, 1].
    """
    if len(times) < 2 or any(not 0 <= time <= 1 for time in times):
        raise LuminaError(
            f"the times are {list(times)}", hint="give two or more in [0, 1], such as 0, 0.3, 1"
        )
    if any(end <= start for start, end in zip(times, times[1:], strict=False)):
        raise LuminaError(f"the times {list(times)} do not increase", hint="sort them")


def _check_ends(times: Sequence[float]) -> None:
    check_increasing(times)
    if (times[0], times[-1]) != (0, 1):
        raise LuminaError(
            f"the times go from {times[0]:g} to {times[-1]:g}, not from noise at 0 to data at 1",
            hint="put 0 first and 1 last: 0,0.1,0.4,1",
        )


def _check_prompt(text: str) -> None:
    if not text.strip():
        raise LuminaError("the prompt is empty", hint='say what to draw: "a red apple"')


def _check_texts(texts: Sequence[str]) -> None:
    for text in texts:
        _check_prompt(text)


def _check_file(path: str) -> None:
    if not path:
        raise LuminaError("no picture is given", hint="name a file: photo.png")


def _prompt(help: str = "what to draw", **facts: Any) -> Any:  # noqa: A002
    facts = {"metavar": "PROMPT", "separator": "|", "is_word": True, "check": _check_prompt} | facts
    return setting("", help, **facts)


def _file(help: str, metavar: str) -> Any:  # noqa: A002
    return setting("", help, metavar=metavar, is_word=True, check=_check_file)


def _size_of_the_picture() -> Any:
    return setting(
        None,
        "width and height (default: those of the picture)",
        unit="pixels",
        metavar="WxH",
        check=check_size,
    )


def _own_size() -> Any:
    return setting(None, "width and height", unit="pixels", metavar="WxH", check=check_size)


def _strength(help: str) -> Any:  # noqa: A002
    return setting(None, help, above=0, le=1, step=0.05)


def _refuse_lone_step(request: "ImageRequest") -> None:
    if request.steps == 1 and request.solver in MULTISTEP:
        raise LuminaError(
            f"the solver {request.solver} learns from the step before, and there is only one step",
            hint="ask for 2 steps or more, or for --solver euler, which takes the same one step",
        )


@dataclass(frozen=True, kw_only=True)
class ImageRequest:
    """One picture, whatever it is asked for by."""

    rules: ClassVar[tuple[Rule, ...]] = (_refuse_lone_step,)

    model: str = setting(
        "lumina-mini", "a name, a folder, a file or a hub id", metavar="NAME|PATH|HUB_ID"
    )
    vae: str | None = setting(
        None, "decoder of a network that comes alone (default: its usual)", metavar="NAME|FOLDER"
    )
    size: str | None = setting(
        "1024x1024", "width and height", unit="pixels", metavar="WxH", check=check_size
    )
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
        """Refuse values that no model can work with, and those that contradict each other."""
        check_settings(self)
        for rule in self.rules:
            rule(self)

    @property
    def fits_any_size(self) -> bool:
        """Whether pictures stay as large as they are where no size is given."""
        return False

    @property
    def labels(self) -> list[str]:
        """What each picture that comes out is called: the prompt, where there is one for all."""
        return [getattr(self, "prompt", "")]

    @property
    def title(self) -> str:
        """What files are named after."""
        return " ".join(filter(None, self.labels))


def _refuse_two_schedules(request: "TextRequest") -> None:
    if request.resolution_shift and request.shift is not None:
        raise LuminaError(
            "shift and resolution_shift both say how far to shift the steps", hint="leave one out"
        )
    if request.times is None:
        return
    others = {name: getattr(request, name) for name in ("schedule", "shift", "resolution_shift")}
    for name, value in others.items():
        if value:
            raise LuminaError(
                f"times and {name} both say where the steps are", hint="leave one out"
            )
    if request.steps != len(request.times) - 1:
        raise LuminaError(
            f"{len(request.times)} times make {len(request.times) - 1} steps, not {request.steps}",
            hint="leave out times or steps",
        )


@dataclass(frozen=True, kw_only=True)
class TextRequest(ImageRequest):
    """What every request to a model of text may say, besides its task."""

    rules: ClassVar[tuple[Rule, ...]] = (*ImageRequest.rules, _refuse_two_schedules)

    negative: str = setting("", "what to keep out of the picture", metavar="TEXT", separator="|")
    text_encoder: str | None = setting(
        None,
        "text encoder of a network that comes alone (default: its usual)",
        metavar="NAME|FOLDER",
    )
    times: tuple[float, ...] | None = setting(
        None,
        "where to stop on the way from noise (0) to data (1), instead of steps and schedule:"
        " 0,0.1,0.4,1",
        metavar="T,T,...",
        separator="|",
        check=_check_ends,
    )
    resolution_shift: bool = setting(
        False, "take smaller steps near noise, the more the larger the picture is"
    )
    guidance_interval: tuple[float, float] | None = setting(
        None,
        "times between which to guide; outside of it a step takes half the time",
        metavar="FROM,TO",
        separator="|",
        check=check_increasing,
    )
    guidance_rescale: float | None = setting(
        None, "how far to bring guided colors back to those of the prompt alone", ge=0, le=1
    )
    guide_all: bool = setting(False, "guide all channels, not the first three alone")
    extrapolation: str | None = setting(
        None, "how to read positions at other sizes than the trained one", choices=EXTRAPOLATIONS
    )
    scale_by: str | None = setting(None, "what other sizes are told by", choices=SCALES)
    context_drop: str | None = setting(
        None, "have attention see less in some blocks, for large pictures", choices=CONTEXT_DROPS
    )
    tiled: bool = setting(False, "decode in tiles, in less memory")


@dataclass(frozen=True, kw_only=True)
class TextToImage(TextRequest):
    """Make pictures from prompts."""

    prompt: str = _prompt()
    two_stage: bool = setting(
        False, "draw at the size of training first, then at the size asked for, guided by that"
    )


@dataclass(frozen=True, kw_only=True)
class ClassToImage(ImageRequest):
    """Make pictures of a class, by a model that was trained on classes."""

    class_label: int = setting(0, "what to draw, by models of classes: a number from 0", ge=0)

    @property
    def labels(self) -> list[str]:
        """The number of the class."""
        return [f"class {self.class_label}"]


@dataclass(frozen=True, kw_only=True)
class EditImage(TextRequest):
    """Change a picture as a prompt says."""

    image: str = _file("the picture", "IMAGE")
    prompt: str = _prompt("what it is to show")
    strength: float | None = _strength("how much to change (default: 0.6; with --was: 1)")
    was: str | None = setting(
        None,
        "what the picture shows now; it is followed back to noise, which keeps more of it",
        metavar="PROMPT",
        separator="|",
        check=_check_prompt,
    )
    size: str | None = _size_of_the_picture()


@dataclass(frozen=True, kw_only=True)
class InpaintImage(TextRequest):
    """Repaint the part of a picture that a mask shows white."""

    image: str = _file("the picture", "IMAGE")
    mask: str = _file("a picture as large: white is repainted, black is kept", "MASK")
    prompt: str = _prompt("what it is to show")
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
    size: str | None = _size_of_the_picture()

    @property
    def fits_any_size(self) -> bool:
        """With `crop`, since a part of another size is looked at."""
        return self.crop is not None


def _refuse_missing_size(request: TextRequest) -> None:
    if request.size is None:
        raise LuminaError("the size is not given", hint="say how large to make it: --size 256x128")


@dataclass(frozen=True, kw_only=True)
class OutpaintImage(TextRequest):
    """Paint what is around a picture."""

    rules: ClassVar[tuple[Rule, ...]] = (*TextRequest.rules, _refuse_missing_size)

    image: str = _file("the picture", "IMAGE")
    prompt: str = _prompt("what the whole shows")
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
    size: str | None = _own_size()


@dataclass(frozen=True, kw_only=True)
class UpscaleImage(TextRequest):
    """Make a picture larger, with details as a prompt says."""

    rules: ClassVar[tuple[Rule, ...]] = (*TextRequest.rules, _refuse_missing_size)

    image: str = _file("the picture", "IMAGE")
    prompt: str = _prompt("what it shows (default: what it was made from, if lumina made it)")
    strength: float | None = _strength("how much to draw anew (default: 0.6)")
    size: str | None = _own_size()


@dataclass(frozen=True, kw_only=True)
class VaryImage(TextRequest):
    """Make pictures like one."""

    image: str = _file("the picture", "IMAGE")
    prompt: str = _prompt("what it shows (default: what it was made from, if lumina made it)")
    origin: int | None = setting(
        None,
        "seed that it was made from (default: what its file says; without one, the picture is"
        " followed back to noise)",
        ge=0,
        le=2**53,
    )
    amount: float = setting(0.3, "how far to go: 0 not at all, 1 as far as can be", ge=0, le=1)
    size: str | None = _size_of_the_picture()


def _refuse_no_way(request: "Interpolate") -> None:
    stops, seeds = len(request.prompts), 1 if request.to_seed is None else 2
    if not stops:
        _check_prompt("")
    if max(stops, seeds) < 2:
        raise LuminaError(
            "there is one prompt and one seed, and nothing between them",
            hint="give another prompt, or --to-seed",
        )
    if seeds == 2 and stops > 2:
        raise LuminaError(
            f"there are {stops} prompts on the way between two seeds",
            hint="give one or two prompts, or leave out --to-seed",
        )


def _prompts(help: str) -> Any:  # noqa: A002
    return setting((), help, metavar="PROMPT", is_word=True, separator="|", check=_check_texts)


@dataclass(frozen=True, kw_only=True)
class Interpolate(TextRequest):
    """Make the pictures between prompts, or between seeds."""

    rules: ClassVar[tuple[Rule, ...]] = (*TextRequest.rules, _refuse_no_way)

    prompts: tuple[str, ...] = _prompts("what to draw, one after the other")
    frames: int = setting(8, "pictures in all, both ends included", ge=2, le=1000)
    to_seed: int | None = setting(
        None, "seed of the last picture (default: that of the first)", ge=0, le=2**53
    )

    @property
    def labels(self) -> list[str]:
        """The first and the last prompt, and numbers between them."""
        inner = [f"{number}" for number in range(2, self.frames)]
        return [self.prompts[0], *inner, self.prompts[-1]]

    @property
    def title(self) -> str:
        """All prompts."""
        return " ".join(self.prompts)


def _refuse_no_region(request: "Compose") -> None:
    if request.cells is None and request.prompts:
        raise LuminaError(
            f"the region of {request.prompts[0]!r} is not given",
            hint="write --region x,y,w,h=PROMPT, or --cells 2x2 before the prompts of a grid",
        )
    if request.cells is not None:
        columns, rows = read_size(request.cells)
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


@dataclass(frozen=True, kw_only=True)
class Compose(TextRequest):
    """Make a picture of several regions, each with a prompt of its own."""

    rules: ClassVar[tuple[Rule, ...]] = (
        *TextRequest.rules,
        _refuse_no_region,
        _refuse_box_outside,
    )

    prompts: tuple[str, ...] = _prompts("with --cells: what each cell shows, row after row")
    regions: tuple[str, ...] = setting(
        (),
        "what a box shows (left, top, width and height in pixels), or the white part of a mask",
        metavar="X,Y,W,H=PROMPT|FILE=PROMPT",
        flags=("--region", "--mask"),
        separator="|",
        check=_check_regions,
    )
    cells: str | None = setting(
        None, "columns and rows of a grid that fills the picture", metavar="CxR", check=read_size
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


def _refuse_lone_prompt(request: "StyleSet") -> None:
    if len(request.prompts) < 2:
        raise LuminaError(
            f"there is no set of {len(request.prompts)}", hint="give two prompts or more"
        )


@dataclass(frozen=True, kw_only=True)
class StyleSet(TextRequest):
    """Make pictures of several prompts in one style."""

    rules: ClassVar[tuple[Rule, ...]] = (*TextRequest.rules, _refuse_lone_prompt)

    prompts: tuple[str, ...] = _prompts("what to draw, each in a picture of its own")
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


@dataclass(frozen=True, kw_only=True)
class Anagram(TextRequest):
    """Make a picture that shows another thing when it is turned."""

    views: tuple[str, ...] = setting(
        (),
        "how to look at it, and what it then shows: identity, flip-x, flip-y, rotate90, rotate180,"
        " rotate270, negative, permute:SEED",
        metavar="VIEW=PROMPT",
        flags=("--view",),
        separator="|",
        check=_check_views,
    )
    two_stage: bool = setting(
        False, "draw at the size of training first, then at the size asked for, guided by that"
    )

    @property
    def labels(self) -> list[str]:
        """What all views show."""
        return [", ".join(read_view(view)[1] for view in self.views)]


@dataclass(frozen=True, kw_only=True)
class Panorama(TextRequest):
    """Make a wide picture out of overlapping parts."""

    rules: ClassVar[tuple[Rule, ...]] = (*TextRequest.rules, _refuse_missing_size)

    prompt: str = _prompt("what every part shows")
    overlap: float | None = setting(
        None, "share of a part that the next one sees too (default: 0.5)", ge=0, le=0.9
    )
    around: bool = setting(False, "have left and right meet, for a view all around")
    size: str | None = _own_size()


@dataclass(frozen=True, kw_only=True)
class Tile(TextRequest):
    """Make a picture that repeats without a seam."""

    prompt: str = _prompt()
    overlap: float | None = setting(
        None, "share of a part that the next one sees too (default: 0.5)", above=0, le=0.9
    )
