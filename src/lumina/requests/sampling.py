"""What every request may say: model, size, seed, and how samples are taken."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from lumina.errors import LuminaError
from lumina.requests.adapters import check_adapters
from lumina.requests.sizes import check_size
from lumina.settings import check_settings, setting

DTYPES = ("auto", "float32", "bfloat16", "float16")

_SHORT_DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
"""What they are often called."""

MULTISTEP = ("ab2", "dpm++", "unipc")
"""Solvers that learn from the step before, and are Euler's without one."""

ADAPTIVE = ("dopri5",)
"""Solvers that choose their steps by how far they may err."""

STOCHASTIC = ("sde", "sde-heun")
"""Solvers that add noise on the way, in all steps but the last."""

SOLVERS = ("euler", "midpoint", "heun", "rk4", *MULTISTEP, *ADAPTIVE, *STOCHASTIC)
"""All ways to take a step, of `lumina.flow.solvers` and `lumina.flow.stochastic`."""

DIFFUSIONS = ("constant", "sbdm", "sigma", "linear", "decreasing", "increasing-decreasing")
"""How much noise stochastic solvers add when."""

LAST_STEPS = ("mean", "tweedie", "euler", "none")
"""How stochastic solvers take their last step, which adds no noise."""

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

Rule = Callable[[Any], None]
"""Raises a `LuminaError` if settings of a request do not fit together."""


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
        is_sorted = list(times) == sorted(times)
        raise LuminaError(
            f"the times {list(times)} do not increase",
            hint="give each of them once" if is_sorted else "sort them",
        )


def _check_interval(times: Sequence[float]) -> None:
    start, end = times
    if end <= start:
        raise LuminaError(
            f"the times of --guidance-interval do not increase: {start:g},{end:g}",
            hint="give the earlier first: 0.1,0.8",
        )
    if start < 0 or end > 1:
        raise LuminaError(
            f"--guidance-interval is {start:g},{end:g}", hint="give two times in [0, 1]: 0.1,0.8"
        )


def _check_ends(times: Sequence[float]) -> None:
    check_increasing(times)
    if (times[0], times[-1]) != (0, 1):
        raise LuminaError(
            f"the times go from {times[0]:g} to {times[-1]:g}, not from noise at 0 to data at 1",
            hint="put 0 first and 1 last: 0,0.1,0.4,1",
        )


def steps_left(steps: int, strength: float) -> int:
    """How many of the last steps to take, to go only a share of the way.

    Source:
        The grid point int(steps (1 - strength)), as in the editing code of the original release.
    """
    # Without the margin, 1 - 0.9 leaves out none of ten steps.
    return steps - math.floor(steps * (1 - strength) + 1e-6)


def check_steps(solver: str | None, steps: int) -> None:
    """Refuse a single step of a solver that is none without another.

    Args:
        solver: As in `SOLVERS`. None is another one.
        steps: How many are taken, which is a share of all where there is a strength.

    Raises:
        LuminaError: If it is.
    """
    if steps != 1 or solver not in MULTISTEP + STOCHASTIC:
        return
    does = "adds no noise in its last step, and there is no other"
    if solver in MULTISTEP:
        does = "learns from the step before, and there is only one step"
    raise LuminaError(
        f"the solver {solver} {does}",
        hint="take 2 steps or more (of which a strength leaves out some), or the solver euler,"
        " which takes the same one step",
    )


def _refuse_lone_step(request: "ImageRequest") -> None:
    check_steps(request.solver, request.fewest_steps)


_ONLY_FOR = {
    "tolerance": ADAPTIVE,
    "diffusion": STOCHASTIC,
    "diffusion_norm": STOCHASTIC,
    "last_step": STOCHASTIC,
    "last_step_size": STOCHASTIC,
}
"""Settings that other solvers do not have."""

SCHEDULER_SETTINGS = ("solver", "schedule", "shift", *_ONLY_FOR)
"""Settings of `lumina.flow.scheduler.FlowSolverScheduler`, by the same names."""


def _refuse_settings_of_others(request: "ImageRequest") -> None:
    for name, solvers in _ONLY_FOR.items():
        if getattr(request, name) is not None and request.solver not in solvers:
            raise LuminaError(
                f"{name} is a setting of the solver {' or '.join(solvers)}",
                hint=f"add --solver {solvers[0]}, or leave it out",
            )
    if request.last_step == "none" and request.last_step_size is not None:
        raise LuminaError(
            "last_step is none, and last_step_size says how far it goes", hint="leave one out"
        )


def _says(request: "ImageRequest", name: str) -> bool:
    """Whether a request has a setting, and anything but false or nothing in it."""
    value = getattr(request, name, None)
    return value is not None and value is not False


def _refuse_other_steps(request: "ImageRequest") -> None:
    if request.solver not in ADAPTIVE:
        return
    for name in ("schedule", "shift", "times", "resolution_shift"):
        if _says(request, name):
            raise LuminaError(
                f"the solver {request.solver} chooses its steps itself, and {name} says where they"
                " are",
                hint="leave one out; --tolerance says how exact it is",
            )


@dataclass(frozen=True, kw_only=True)
class ImageRequest:
    """One picture, whatever it is asked for by."""

    rules: ClassVar[tuple[Rule, ...]] = (
        _refuse_settings_of_others,
        _refuse_other_steps,
        _refuse_lone_step,
    )
    endings: ClassVar[tuple[str, ...]] = (".png",)
    """Of the files that results are written to; the first is usual."""

    model: str = setting(
        "lumina-mini", "a name, a folder, a file or a hub id", metavar="NAME|PATH|HUB_ID"
    )
    vae: str | None = setting(
        None, "decoder of a network that comes alone (default: its usual)", metavar="NAME|FOLDER"
    )
    loras: tuple[str, ...] = setting(
        (),
        "an adapter, with its strength (1 if not given); may be given again",
        metavar="FOLDER|FILE[:STRENGTH]",
        flags=("--lora",),
        separator="|",
        check=check_adapters,
    )
    size: str | None = setting(
        "1024x1024", "width and height", unit="pixels", metavar="WxH", check=check_size
    )
    steps: int = setting(
        30, "steps from noise to picture; dopri5 chooses them itself", ge=1, le=1000
    )
    solver: str | None = setting(
        None,
        "how to take a step; name one for few steps (default: as the model's scheduler, whose last"
        " step hardly moves)",
        choices=SOLVERS,
    )
    schedule: str | None = setting(None, "how to spread the steps", choices=SCHEDULES)
    shift: float | None = setting(
        None, "above 1 takes smaller steps near noise", ge=0.01, le=100, step=0.5
    )
    tolerance: float | None = setting(
        None, "error that dopri5 allows in a step (default: 0.001)", ge=1e-6, le=0.1
    )
    diffusion: str | None = setting(
        None, "how much noise sde and sde-heun add when (default: sigma)", choices=DIFFUSIONS
    )
    diffusion_norm: float | None = setting(
        None, "factor on that noise (default: 1)", ge=0, le=100, step=0.1
    )
    last_step: str | None = setting(
        None, "how they take the last step, without noise (default: mean)", choices=LAST_STEPS
    )
    last_step_size: float | None = setting(
        None, "share of the way that it goes (default: 0.04)", ge=0, le=0.5, step=0.01
    )
    guidance: float = setting(
        4.0, "how closely to follow the prompt; 1 turns it off", ge=1, le=20, step=0.5
    )
    preset: str | None = setting(None, "sample as that release did", choices=PRESETS)
    seed: int | None = setting(
        None, "start of the random numbers (default: random)", ge=0, le=2**53
    )
    dtype: str = setting(
        "auto", "type of the numbers to compute with", choices=DTYPES, aliases=_SHORT_DTYPES
    )
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
    def pictures_at_once(self) -> int:
        """Pictures that the network sees together."""
        return 1

    @property
    def fewest_steps(self) -> int:
        """Steps that are taken: of the stage that takes the fewest, if there are several."""
        return self.steps

    @property
    def labels(self) -> list[str]:
        """What each picture that comes out is called: the prompt, where there is one for all."""
        return [getattr(self, "prompt", "")]

    @property
    def title(self) -> str:
        """What files are named after."""
        return " ".join(filter(None, self.labels))

    def beside(self, path: Path) -> list[Path]:
        """Files of pictures that are wanted beside the file of a result."""
        return []


def _refuse_two_schedules(request: "TextRequest") -> None:
    if request.resolution_shift and request.shift is not None:
        raise LuminaError(
            "shift and resolution_shift both say how far to shift the steps", hint="leave one out"
        )
    if request.times is None:
        return
    for name in ("schedule", "shift", "resolution_shift", "last_step_size"):
        if _says(request, name):
            raise LuminaError(
                f"times and {name} both say where the steps are", hint="leave one out"
            )
    if request.steps != len(request.times) - 1:
        raise LuminaError(
            f"{len(request.times)} times make {len(request.times) - 1} steps, not {request.steps}",
            hint="leave out times or steps",
        )
    if request.diffusion == "sbdm":
        raise LuminaError(
            "the diffusion sbdm is infinite at noise, where times begin",
            hint="leave times out, or take another diffusion",
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
        check=_check_interval,
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
