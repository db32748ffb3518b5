"""From what a person asked for to a job: every setting found, and what will not work refused."""

import dataclasses
import logging
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from lumina.catalog import Checkpoint, find
from lumina.errors import LuminaError, UnknownNameError
from lumina.fitting import (
    check_wish,
    choose_device,
    refuse_misfits,
    refuse_others,
    settings_for,
)
from lumina.media import (
    free_path,
    make_folder,
    read_record,
    refuse_existing,
    refuse_missing_writer,
    refuse_unwritable,
    slug,
)
from lumina.requests import (
    ADAPTIVE,
    OF_MODALITIES,
    ClassToImage,
    ImageRequest,
    MediaRequest,
    TextToImage,
)
from lumina.settings import check_names, flags_of
from lumina.tasks import TASKS, Call, Pictures, call_of
from lumina.varying import Axis, combine, read_axis, refuse_twice

_log = logging.getLogger(__name__)

SEEDS = 2**32
"""Random seeds are below this: short enough to type."""

MOST_IMAGES = 1000
"""Pictures of a prompt that can be asked for at once."""


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
    lora_hashes: dict[str, str]
    """By adapter, as requests name it."""
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
            there is a `source`, settings vary, or `output` is a file for one picture.
        vary: Settings with values to compare in one table, such as "guidance=2,4,8": rows by the
            first, columns by the second, and a table for each value of those that follow.
        output: A file whose ending says its format, or a folder. None is a new name here.
        grid: Put all pictures into one file.
        force: Replace `output` if it is a file that exists, and previews of the same names.
        preview: Folder for pictures of each step.

    Raises:
        LuminaError: If anything asked for cannot be had. No weights are read before.
    """
    if images is None:
        is_one = vary or source is not None or (_is_file(output) and not grid)
        images = 1 if is_one else TASKS[task].images
    if not 1 <= images <= MOST_IMAGES:
        raise LuminaError(
            f"images is {images}, which is out of range", hint=f"allowed: 1 to {MOST_IMAGES}"
        )
    desk = _Desk(task, {} if source is None else settings_of(source))
    if source is not None:
        _tell_left_out(task, source, desk.kind_for(settings))
    axes = [read_axis(text, desk.kind_for(settings)) for text in vary]
    refuse_twice(axes, [*settings, *(["prompt"] if prompts else [])])
    wishes = [{"prompt": prompt} for prompt in prompts for _ in range(images)] or [{}] * images
    requests = [
        desk.request({**settings, **wish, **varied})
        for wish in desk.number(wishes, settings)
        for varied in combine(axes)
    ]
    calls = [call_of(request, desk.pictures) for request in requests]
    hashes = {request.model: find(request.model).fingerprint() for request in requests}
    lora_hashes = _check_adapters(requests)
    is_single = grid or bool(axes) or sum(len(request.labels) for request in requests) == 1
    output = _choose_output(
        output, requests, single=is_single, grid=grid or bool(axes), force=force
    )
    if preview is not None:
        make_folder(preview)
    if source is not None and desk.stored.get("model") in hashes:
        _compare_weights(source, hashes[desk.stored["model"]], lora_hashes)
    return Job(
        task=task,
        requests=requests,
        calls=calls,
        axes=axes,
        model_hashes=hashes,
        lora_hashes=lora_hashes,
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
    return _read_settings(path)[2]


def _read_settings(path: Path) -> tuple[str, type[ImageRequest], dict[str, Any]]:
    """The task of a picture, the kind of its request, and its settings."""
    record = read_record(path)
    if not record.keys() & {"request", "requests"}:
        raise LuminaError(f"{path} holds no request", hint="give a picture that lumina made")
    if "request" not in record:
        raise LuminaError(
            f"{path} is a grid of {len(record['requests'])} pictures",
            hint=f"`lumina show {path}` prints the settings of each",
        )
    stored, task = record["request"], record.get("task", "generate")
    if task not in TASKS:
        raise UnknownNameError.among(TASKS, task, kind="task")
    kind = ClassToImage if "class_label" in stored else TASKS[task].request
    kind = OF_MODALITIES.get(record.get("modality", ""), kind)
    # JSON has no tuples.
    settings = {
        name: tuple(value) if isinstance(value, list) else value for name, value in stored.items()
    }
    return task, kind, check_names(kind, settings)


def _tell_left_out(task: str, source: Path, wanted: type[ImageRequest]) -> None:
    """Warn of settings of a file that mean nothing for what is wanted."""
    made_by, kind, stored = _read_settings(source)
    left_out = [
        field.name if field.metadata["is_word"] else flags_of(field)[0]
        for field in dataclasses.fields(kind)
        if stored.get(field.name, field.default) != field.default
        and field.name not in settings_for(wanted)
    ]
    is_other = made_by != task or kind is not wanted
    if is_other and left_out:
        _log.warning(
            "%s was made by `lumina %s`: %s left out", source, made_by, ", ".join(left_out)
        )


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
        self._told: set[str] = set()

    def model(self, given: Mapping[str, Any]) -> str:
        """How the model of chosen settings was named."""
        return (self.stored | dict(given)).get("model", ImageRequest.model)

    def checkpoint(self, given: Mapping[str, Any]) -> Checkpoint:
        """The model of chosen settings.

        Raises:
            LuminaError: If it makes no pictures.
        """
        model = self.model(given)
        if model not in self._checkpoints:
            self._checkpoints[model] = find(model)
            if self._checkpoints[model].is_recognizer:
                raise LuminaError(
                    f"{model} tells what pictures show, and `lumina {self.task}` makes pictures",
                    hint="`lumina recognize` takes it; name another with --model",
                )
        return self._checkpoints[model]

    def kind_for(self, given: Mapping[str, Any]) -> type[ImageRequest]:
        """What the model of chosen settings is asked by.

        Raises:
            LuminaError: If it is a model of classes or other media, and the task is another.
        """
        checkpoint = self.checkpoint(given)
        kind = OF_MODALITIES.get(checkpoint.modality)
        if checkpoint.classes is None and kind is None:
            return TASKS[self.task].request
        if self.task != "generate":
            makes = "draws classes" if kind is None else f"is a model of {checkpoint.modality}"
            raise LuminaError(
                f"{self.model(given)} {makes}, and `lumina {self.task}` needs a model of pictures"
                " from prompts",
                hint="name another with --model",
            )
        return ClassToImage if kind is None else kind

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
        kind, checkpoint, model = self.kind_for(given), self.checkpoint(given), self.model(given)
        names = settings_for(kind)
        # A file may have been made by a model of another kind, or by another task. What it does not
        # say is not chosen.
        stored = {
            name: value
            for name, value in self._kept(given).items()
            if name in names and value is not None
        }
        check_wish(stored | given, given, checkpoint, model=model)
        refuse_others(given, names, checkpoint, model=model)
        chosen = _without_rivals(stored, given)
        chosen = _without_rivals(self._remembered(chosen), chosen)
        self._refuse_silent_picture(chosen)
        request = kind(**_defaults(kind, checkpoint, chosen) | chosen)
        refuse_misfits(request, given, checkpoint)
        if request.size is None and not request.fits_any_size:
            size = self.pictures.nearest_size(getattr(request, "image", ""))
            request = dataclasses.replace(request, size=size)
        return choose_device(request, checkpoint.footprint())

    def _kept(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Settings of the file, without what merely suited its model, where that is another."""
        own, model, new = self.stored.get("model"), self.model(given), self.checkpoint(given)
        if own in (None, model):
            return self.stored
        try:
            old = find(own)
        except LuminaError:  # without its model there is no telling what suited it
            return self.stored
        kept = dict(self.stored)
        for name in ("steps", "guidance") if old.folder != new.folder else ():
            before, now = (
                one.defaults.get(name, getattr(ImageRequest, name)) for one in (old, new)
            )
            if kept.get(name) == before != now:
                del kept[name]
                if name not in given:
                    self._tell(f"--{name} is {now}, as is usual for {model}; the file has {before}")
        return kept

    def _tell(self, message: str) -> None:
        """Warn, once."""
        if message not in self._told:
            self._told.add(message)
            _log.warning("%s", message)

    def _remembered(self, chosen: Mapping[str, Any]) -> dict[str, Any]:
        """What the picture of a task says about itself, if lumina drew it."""
        remember, path = TASKS[self.task].remember, chosen.get("image")
        if remember is None or not path:
            return {}
        try:
            made_by, made, told = _read_settings(Path(path))
        except LuminaError:  # other pictures say nothing; what is none is refused elsewhere
            return {}
        is_picture = made_by == "generate" and not issubclass(made, MediaRequest)
        return remember(told, chosen) if is_picture and "prompt" in told else {}

    def _refuse_silent_picture(self, chosen: Mapping[str, Any]) -> None:
        """Refuse a picture that does not say what it shows, where nobody else does."""
        path = chosen.get("image")
        if TASKS[self.task].remember is None or not path or "prompt" in chosen:
            return
        self.pictures.read(path, None)  # refuses what is no picture
        raise LuminaError(
            f"the prompt is empty, and {path} does not say what it was made from",
            hint=f'say what it shows: lumina {self.task} {path} "a red apple"',
        )


_RIVALS = {
    "times": ("steps", "schedule", "shift", "resolution_shift"),
    "steps": ("times",),
    "schedule": ("times",),
    "shift": ("times", "resolution_shift"),
    "resolution_shift": ("times", "shift"),
    "solver": ("tolerance", "diffusion", "diffusion_norm", "last_step", "last_step_size"),
}
"""Settings that say the same thing, or hang on one: whoever chooses it does not mean those of a
file."""


def _without_rivals(stored: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a file and chosen ones, without those of the file that chosen ones replace."""
    replaced = {rival for name in given for rival in _RIVALS.get(name, ())}
    if given.get("solver") in ADAPTIVE:
        replaced |= {*_RIVALS["times"], "times"} - {"steps"}
    return {name: stored[name] for name in stored if name not in replaced} | dict(given)


def _defaults(
    kind: type[ImageRequest], checkpoint: Checkpoint, chosen: Mapping[str, Any]
) -> dict[str, Any]:
    """What suits the model, as far as the task leaves it to the model."""
    defaults = dict(checkpoint.defaults)
    if kind.size is None and not issubclass(kind, MediaRequest):
        defaults.pop("size", None)
    times = chosen.get("times")
    if isinstance(times, tuple):
        defaults["steps"] = max(1, len(times) - 1)  # fewer times are refused by their own name
    return defaults


def _compare_weights(source: Path, model_hash: str, lora_hashes: Mapping[str, str]) -> None:
    record = read_record(source)
    if record["model_hash"] != model_hash:
        _log.warning("the weights of the model are not those that made %s", source)
    for text, made_by in record.get("lora_hashes", {}).items():
        if lora_hashes.get(text, made_by) != made_by:
            _log.warning("the weights of the adapter %s are not those that made %s", text, source)


def _check_adapters(requests: Sequence[ImageRequest]) -> dict[str, str]:
    """Refuse adapters that do not fit their model; the fingerprint of each."""
    asked = dict.fromkeys((r.model, r.loras) for r in requests if r.loras)
    if not asked:
        return {}

    from lumina.pipelines.adapting import check_fit

    hashes: dict[str, str] = {}
    for model, loras in asked:
        hashes |= check_fit(loras, find(model))
    return hashes


def stem_of(request: ImageRequest) -> str:
    """What files of a request are called, without an ending."""
    return f"{slug(request.title)}-{request.seed}"


def _is_file(output: Path | None) -> TypeGuard[Path]:
    """Whether one file is named to write to, and not a folder."""
    return output is not None and bool(output.suffix) and not output.is_dir()


def _choose_output(
    output: Path | None,
    requests: Sequence[ImageRequest],
    *,
    single: bool,
    grid: bool,
    force: bool,
) -> Path:
    """A file that can be written, or a folder that is there."""
    first = requests[0]
    has_beside = any(one.beside(Path(f"{stem_of(one)}{one.endings[0]}")) for one in requests)
    if grid and has_beside:
        raise LuminaError(
            "what --each or --spectrogram write beside a file does not fit into one picture",
            hint="leave these out, or --grid and --vary",
        )
    endings = (".png",) if grid else first.endings
    name = f"{stem_of(first)}{'-grid' if grid else ''}{endings[0]}"
    if output is None and single:
        output = free_path(Path(name), first.beside)
    elif output is None:
        output = free_path(Path(name).with_suffix(""))
    if _is_file(output):
        suffix = output.suffix.lower()
        if suffix not in endings:
            raise LuminaError(
                f"{output} does not end in {' or '.join(endings)}",
                hint=_tell_ending(suffix, grid=grid),
            )
        refuse_missing_writer(output)
        if not single:
            fits_grid = suffix == ".png" and not has_beside
            grid_hint = "--grid puts them into one file, or " if fits_grid else ""
            raise LuminaError(
                f"what several prompts or settings give does not fit into {output}",
                hint=f"{grid_hint}name a folder",
            )
        files = (output, *first.beside(output))
        for file in () if force else files:
            refuse_existing(file)
        make_folder(output.parent)
        for file in files:
            refuse_unwritable(file)
        return output
    refuse_missing_writer(Path(name))
    make_folder(output)
    refuse_unwritable(output / name)
    return free_path(output / name) if grid else output


def _tell_ending(suffix: str, *, grid: bool) -> str:
    """What to do about an ending that files of a job do not have."""
    if grid:
        return "--grid and --vary write one picture, a PNG: name a file that ends in .png"
    others = [name for name, kind in OF_MODALITIES.items() if suffix in kind.endings]
    if suffix in TextToImage.endings:
        several = f"models of pictures, {', '.join(others[:-1])} or {others[-1]}"
        return (
            "--grid and --vary put what is made into one such picture; it is also what"
            f" {several} write: choose one by --model"
        )
    if others:
        return f"it is what models of {' or '.join(others)} write: choose one by --model"
    return "the ending says the format of what is made"
