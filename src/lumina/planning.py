"""From what a person asked for to a job: every setting found, and what will not work refused."""

import dataclasses
import logging
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

from lumina.catalog import Checkpoint, Footprint, find
from lumina.errors import LuminaError, UnknownNameError
from lumina.media import (
    free_path,
    make_folder,
    read_record,
    refuse_existing,
    refuse_unwritable,
    slug,
)
from lumina.requests import ClassToImage, ImageRequest, TextRequest, nearest_size, read_size
from lumina.settings import check_names, names_of, read_setting, without_none
from lumina.tasks import TASKS, Call, Pictures, call_of

_log = logging.getLogger(__name__)

SEEDS = 2**32
"""Random seeds are below this: short enough to type."""

TILED_SHARE = 0.3
"""How much of the memory of decoding is left in tiles, at most."""


class Axis(NamedTuple):
    """A setting that varies."""

    name: str
    values: list[Any]
    labels: list[str]
    """Each value as it was written, with the name."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """Pictures to make, and where they go."""

    task: str
    requests: list[ImageRequest]
    """Every field has the value that is used; none is left to be found."""
    calls: list[Call]
    """What makes each of them."""
    axes: list[Axis]
    """What varies. Requests are in the order of a table: the second axis changes the fastest, then
    the first, and then the last of those that follow."""
    model_hashes: dict[str, str]
    output: Path
    """A file if there is one result, else a folder."""
    grid: bool
    force: bool
    preview: Path | None


def plan(
    task: str,
    settings: Mapping[str, Any],
    *,
    prompts: Sequence[str] = (),
    source: Path | None = None,
    images: int | None = None,
    vary: Sequence[str] = (),
    output: Path | None = None,
    grid: bool = False,
    force: bool = False,
    preview: Path | None = None,
) -> Job:
    """Find out all that making pictures needs, and refuse what will not work.

    Args:
        task: A name in `lumina.tasks.TASKS`.
        settings: Fields of its request that have been chosen.
        prompts: What to draw, in a picture each, instead of the prompt of `settings`.
        source: A picture whose settings hold where nothing else was chosen.
        images: Pictures of each prompt. None: as many as the task usually makes, and one where
            there is a `source`, or settings vary.
        vary: Settings with values to compare in one table, such as "guidance=2,4,8": rows by the
            first, columns by the second, and a table for each value of those that follow.
        output: A PNG file, or a folder. None is a new name here.
        grid: Put all pictures into one file.
        force: Replace `output` if it is a file that exists.
        preview: Folder for pictures of each step.

    Raises:
        LuminaError: If anything asked for cannot be had. No weights are read before.
    """
    if images is None:
        images = 1 if vary or source is not None else TASKS[task].images
    if images < 1:
        raise LuminaError(f"images is {images}, which is out of range", hint="allowed: 1 and above")
    desk = _Desk(task, {} if source is None else _settings_for(task, source))
    axes = [_read_axis(text, desk.kind_for(settings)) for text in vary]
    _refuse_twice(axes, [*settings, *(["prompt"] if prompts else [])])
    wishes = [{"prompt": prompt} for prompt in prompts for _ in range(images)] or [{}] * images
    requests = [
        desk.request({**settings, **wish, **varied})
        for wish in desk.number(wishes, settings)
        for varied in _combine(axes)
    ]
    calls = [call_of(request, desk.pictures) for request in requests]
    hashes = {request.model: find(request.model).fingerprint() for request in requests}
    is_single = grid or bool(axes) or sum(len(request.labels) for request in requests) == 1
    output = _choose_output(
        output, requests[0], single=is_single, grid=grid or bool(axes), force=force
    )
    if preview is not None:
        make_folder(preview)
    if source is not None and desk.stored.get("model") in hashes:
        _compare_weights(source, hashes[desk.stored["model"]])
    return Job(
        task=task,
        requests=requests,
        calls=calls,
        axes=axes,
        model_hashes=hashes,
        output=output,
        grid=grid or bool(axes),
        force=force,
        preview=preview,
    )


def settings_of(path: Path) -> dict[str, Any]:
    """The settings of a picture that lumina made, out of its file.

    Raises:
        LuminaError: If the file holds none, those of several pictures, or unknown ones.
    """
    return _read_settings(path)[1]


def _read_settings(path: Path) -> tuple[str, dict[str, Any]]:
    """The task of a picture, and its settings."""
    record = read_record(path)
    if not record.keys() & {"request", "requests"}:
        raise LuminaError(
            f"{path} holds no request", hint="give a picture that `lumina generate` wrote"
        )
    if "request" not in record:
        raise LuminaError(
            f"{path} is a grid of {len(record['requests'])} pictures",
            hint=f"`lumina show {path}` prints the settings of each",
        )
    stored, task = record["request"], record.get("task", "generate")
    if task not in TASKS:
        raise UnknownNameError.among(TASKS, task, kind="task")
    kind = ClassToImage if "class_label" in stored else TASKS[task].request
    # JSON has no tuples.
    settings = {
        name: tuple(value) if isinstance(value, list) else value for name, value in stored.items()
    }
    return task, check_names(kind, settings)


def _settings_for(task: str, source: Path) -> dict[str, Any]:
    """Settings of a picture, with a warning if another task made it."""
    made_by, stored = _read_settings(source)
    left_out = [name for name in stored if name not in names_of(TASKS[task].request)]
    if made_by != task and left_out:
        _log.warning(
            "%s was made by `lumina %s`: %s left out", source, made_by, ", ".join(left_out)
        )
    return stored


class _Desk:
    """Where requests of a task are filled in.

    Args:
        task: Its name.
        stored: Settings that hold where nothing else was chosen.
    """

    def __init__(self, task: str, stored: dict[str, Any]):
        self.task, self.stored = task, stored
        self.pictures = Pictures(_log.warning)
        self._checkpoints: dict[str, Checkpoint] = {}

    def checkpoint(self, given: Mapping[str, Any]) -> Checkpoint:
        """The model of chosen settings."""
        model = (self.stored | dict(given)).get("model", ImageRequest.model)
        if model not in self._checkpoints:
            self._checkpoints[model] = find(model)
        return self._checkpoints[model]

    def kind_for(self, given: Mapping[str, Any]) -> type[ImageRequest]:
        """What the model of chosen settings is asked by.

        Raises:
            LuminaError: If it is a model of classes, and the task is one of text.
        """
        checkpoint = self.checkpoint(given)
        if checkpoint.classes is None:
            return TASKS[self.task].request
        if self.task != "generate":
            raise LuminaError(
                f"{checkpoint.folder} draws classes, and `lumina {self.task}` needs a model of"
                " prompts",
                hint="name another with --model",
            )
        return ClassToImage

    def number(
        self, wishes: Sequence[dict[str, Any]], given: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        """Wishes with a seed each, one after the other from that which was chosen."""
        seed = (self.stored | dict(given)).get("seed")
        if not isinstance(seed, int | None):  # it is refused once the request is made
            return [{**wish, "seed": seed} for wish in wishes]
        first = secrets.randbelow(SEEDS) if seed is None else seed
        return [{**wish, "seed": first + number} for number, wish in enumerate(wishes)]

    def request(self, given: dict[str, Any]) -> ImageRequest:
        """A request of which every setting has the value that is used.

        Raises:
            LuminaError: If settings do not fit together, or not to the model.
        """
        kind, checkpoint = self.kind_for(given), self.checkpoint(given)
        names = names_of(kind)
        # A picture may have been made by a model of the other kind, or by another task.
        stored = {name: self.stored[name] for name in self.stored if name in names}
        _check_wish(stored | given, given, checkpoint)
        _refuse_others(given, names, checkpoint)
        chosen = _without_rivals(stored, given)
        chosen = self._remembered(chosen) | chosen
        request = kind(**_defaults(kind, checkpoint, chosen) | chosen)
        _refuse_misfits(request, checkpoint)
        if request.size is None and not request.fits_any_size:
            size = self.pictures.nearest_size(getattr(request, "image", ""))
            request = dataclasses.replace(request, size=size)
        return _choose_device(request, checkpoint.footprint())

    def _remembered(self, chosen: Mapping[str, Any]) -> dict[str, Any]:
        """What the picture of a task says about itself, if lumina drew it."""
        remember, path = TASKS[self.task].remember, chosen.get("image")
        if remember is None or not path:
            return {}
        try:
            made_by, told = _read_settings(Path(path))
        except (
            LuminaError
        ):  # any other picture says nothing, and is refused elsewhere if it is none
            return {}
        return remember(told, chosen) if made_by == "generate" and "prompt" in told else {}


_RIVALS = {
    "times": ("steps", "schedule", "shift", "resolution_shift"),
    "steps": ("times",),
    "schedule": ("times",),
    "shift": ("times", "resolution_shift"),
    "resolution_shift": ("times", "shift"),
}
"""Settings that say the same thing: whoever chooses one does not mean the others of a file."""


def _without_rivals(stored: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a file and chosen ones, without those of the file that chosen ones replace."""
    replaced = {rival for name in given for rival in _RIVALS.get(name, ())}
    return {name: stored[name] for name in stored if name not in replaced} | dict(given)


def _defaults(
    kind: type[ImageRequest], checkpoint: Checkpoint, chosen: Mapping[str, Any]
) -> dict[str, Any]:
    """What suits the model, as far as the task leaves it to the model."""
    defaults = dict(checkpoint.defaults)
    if kind.size is None:
        defaults.pop("size", None)
    times = chosen.get("times")
    if isinstance(times, tuple):
        defaults["steps"] = len(times) - 1
    return defaults


def _check_wish(
    settings: Mapping[str, Any], given: Mapping[str, Any], checkpoint: Checkpoint
) -> None:
    """Refuse what a model of the other kind is asked for by."""
    label = settings.get("class_label")
    if checkpoint.classes is None:
        if label is not None:
            raise LuminaError(
                f"{checkpoint.folder} draws prompts, not classes", hint="leave --class-label out"
            )
        return
    if "prompt" in given or label is None:
        raise LuminaError(
            f"{checkpoint.folder} draws classes, not prompts",
            hint=f"give --class-label, 0 to {checkpoint.classes - 1}, and no prompt",
        )
    if label >= checkpoint.classes:
        raise LuminaError(
            f"class_label is {label}, which is out of range",
            hint=f"allowed: 0 to {checkpoint.classes - 1}",
        )


def _refuse_others(given: Mapping[str, Any], names: list[str], checkpoint: Checkpoint) -> None:
    """Refuse settings that requests to models of this kind do not have."""
    drawn = "prompts" if checkpoint.classes is None else "classes"
    for name in given:
        if name not in names:
            flag = f"--{name.replace('_', '-')}"
            raise LuminaError(
                f"{checkpoint.folder} draws {drawn}, for which {flag} has no meaning",
                hint=f"leave {flag} out",
            )


def _refuse_misfits(request: ImageRequest, checkpoint: Checkpoint) -> None:
    """Refuse settings for a plane where a model sees one sequence."""
    if not (checkpoint.is_sequence and isinstance(request, TextRequest)):
        return
    if request.scale_by == "axis":
        raise LuminaError(
            f"positions of {checkpoint.folder}, a Flag-DiT, have one axis, which cannot be scaled"
            " by each side",
            hint="use --scale-by area",
        )
    if request.context_drop not in (None, "none"):
        raise LuminaError(
            f"context drop averages over a plane, and {checkpoint.folder}, a Flag-DiT, sees one"
            " sequence",
            hint="leave --context-drop out",
        )


def _read_axis(text: str, kind: type[ImageRequest]) -> Axis:
    """The setting and the values of a text like `guidance=2,4,8`."""
    name, _, listed = text.partition("=")
    name = name.strip().replace("-", "_")
    fields = {field.name: field for field in dataclasses.fields(kind)}
    if name not in fields:
        raise UnknownNameError.among(fields, name, kind="setting")
    separator = fields[name].metadata["separator"]
    values = [value.strip() for value in listed.split(separator)]
    if "" in values:
        raise LuminaError(
            f"--vary {text} lacks a value",
            hint=f"write values with {separator} between them: --vary guidance=2,4,8",
        )
    hint = get_type_hints(kind)[name]
    typed = [read_setting(fields[name], hint, value) for value in values]
    label = "" if without_none(hint) is str and separator == "|" else f"{name.replace('_', ' ')} "
    return Axis(name, typed, [label + value for value in values])


def _refuse_twice(axes: Sequence[Axis], given: Sequence[str]) -> None:
    seen = set(given)
    for axis in axes:
        if axis.name in seen:
            raise LuminaError(
                f"{axis.name} is given twice", hint="give it once: either as it is, or with --vary"
            )
        seen.add(axis.name)


def _combine(axes: Sequence[Axis]) -> list[dict[str, Any]]:
    """All combinations of values, in the order of `Job.axes`."""
    ordered = [*axes[2:], *axes[:2]]
    names = [axis.name for axis in ordered]
    return [
        dict(zip(names, values, strict=True)) for values in product(*(a.values for a in ordered))
    ]


def _compare_weights(source: Path, model_hash: str) -> None:
    if read_record(source)["model_hash"] != model_hash:
        _log.warning("the weights of the model are not those that made %s", source)


def stem_of(request: ImageRequest) -> str:
    """What files of a request are called, without an ending."""
    return f"{slug(request.title)}-{request.seed}"


def _choose_output(
    output: Path | None, first: ImageRequest, *, single: bool, grid: bool, force: bool
) -> Path:
    """A file that can be written, or a folder that is there."""
    name = f"{stem_of(first)}-grid.png" if grid else f"{stem_of(first)}.png"
    if output is None:
        output = free_path(Path(name) if single else Path(name).with_suffix(""))
    if output.suffix and not output.is_dir():
        if output.suffix.lower() != ".png":
            raise LuminaError(f"{output} is no PNG file", hint="pictures are written as .png")
        if not single:
            raise LuminaError(
                f"several pictures do not fit into {output}",
                hint="--grid puts them into one file, or name a folder",
            )
        if not force:
            refuse_existing(output)
        refuse_unwritable(output)
        return output
    make_folder(output)
    refuse_unwritable(output / name)
    return free_path(output / name) if grid else output


def _choose_device(request: ImageRequest, footprint: Footprint) -> ImageRequest:
    """The request with the device and dtype that will be used."""
    from lumina.devices import free_memory, pick_device, pick_dtype

    device = pick_device(request.device)
    dtype = pick_dtype(request.dtype, device)
    if request.size is not None:
        _refuse_too_large(request, footprint, dtype.itemsize, free_memory(device))
    names = {"device": str(device), "dtype": str(dtype).removeprefix("torch.")}
    return dataclasses.replace(request, **names)


def _refuse_too_large(
    request: ImageRequest, footprint: Footprint, bytes_per_number: int, available: int
) -> None:
    is_tiled = isinstance(request, TextRequest) and request.tiled
    share = TILED_SHARE if is_tiled else 1
    numbers = round(footprint.numbers_per_pixel * share * len(request.labels))
    footprint = dataclasses.replace(footprint, numbers_per_pixel=numbers)
    needed = partial(footprint.bytes, bytes_per_number=bytes_per_number)
    largest = size = str(request.size)
    if needed(size) <= available:
        return
    while needed(largest) > available and largest != "16x16":
        width, height = read_size(largest)
        largest = "{}x{}".format(*nearest_size(width * 0.9, height * 0.9))
    raise LuminaError(
        f"size {size} needs about {needed(size) / 1e9:,.0f} GB of memory,"
        f" and {available / 1e9:.0f} GB are free",
        hint=f"the nearest that fits is about {largest}",
    )
