"""From a job to files: the work behind `lumina generate` and all other tasks."""

import dataclasses
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import lumina
from lumina.catalog import load
from lumina.media import (
    free_path,
    make_grid,
    make_table,
    put_side_by_side,
    stack,
    write_png,
)
from lumina.planning import Job, stem_of
from lumina.requests import (
    SCHEDULER_SETTINGS,
    ImageRequest,
    MediaRequest,
    TextRequest,
    read_size,
)
from lumina.tasks import Call, sampling_of
from lumina.varying import combine

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from lumina.pipelines.images import Evaluations, ImagePipeline

_log = logging.getLogger(__name__)


def run(job: Job, tell: Callable[[str], None] = lambda text: None) -> Iterator[Path]:
    """Make the pictures of a job one by one, so that each is the same as when made alone.

    Args:
        job: What `plan` gave.
        tell: Gets what is worth knowing on the way.

    Yields:
        Each file, when it is complete.
    """
    pipelines = _Pipelines()
    previews = None if job.preview is None else _Previews(job.preview, force=job.force)
    made: list[Sequence[Image]] = []
    told: set[str] = set()
    for number, (request, call) in enumerate(zip(job.requests, job.calls, strict=True)):
        pipeline = pipelines.prepare(request, call)
        pipeline.set_progress_bar_config(desc=f"{number + 1}/{len(job.requests)}", disable=None)
        watch = None if previews is None else previews.begin(request)
        images = _make(pipeline, request, call, watch)
        cost = _describe_cost(job, number, pipeline.evaluations)
        if cost not in told:
            tell(cost)
            told.add(cost)
            _tell_unguided(request, pipeline.evaluations)
        if job.grid:
            made.append(pipeline.as_pictures(images))
            continue
        yield from _write_each(job, request, images, pipeline)
    if job.grid:
        yield _write_together(job, made)


class _Pipelines:
    """The pipeline of each request. Of models, only the latest is kept in memory."""

    def __init__(self) -> None:
        self._parts: dict[str, Any] = {}
        self._pipeline: Any = None
        self._usual_scheduler: Any = None
        self._loras: tuple[str, ...] = ()

    def prepare(self, request: ImageRequest, call: Call) -> "ImagePipeline":
        """A pipeline that is set up for a request."""
        from lumina.flow.scheduler import choose_scheduler

        self._load(request)
        self._adapt(request.loras)
        pipeline = self._pipeline
        if call.pipeline is not None:
            pipeline = getattr(lumina, call.pipeline).from_pipe(pipeline)
        chosen = {name: getattr(request, name) for name in SCHEDULER_SETTINGS}
        chosen |= {"solver": self._solver(request), "shift": self._shift(request)}
        pipeline.scheduler = choose_scheduler(self._usual_scheduler, chosen)
        if isinstance(request, TextRequest) and request.tiled:
            pipeline.enable_vae_tiling()
        elif not isinstance(request, MediaRequest):
            pipeline.disable_vae_tiling()
        return pipeline

    def _load(self, request: ImageRequest) -> None:
        names = ("dtype", "device", "text_encoder", "vae", "preset")
        parts = {name: getattr(request, name, None) for name in names}
        if self._parts == parts | {"model": request.model}:
            return
        self._pipeline = None  # makes room
        self._pipeline = load(request.model, **parts)
        self._usual_scheduler = self._pipeline.scheduler
        self._parts = parts | {"model": request.model}
        self._loras = ()

    def _adapt(self, loras: tuple[str, ...]) -> None:
        """Have the model draw with the adapters of a request, and with no others."""
        from lumina.pipelines.adapting import use_adapters

        if loras == self._loras:
            return
        if self._loras:
            self._pipeline.unload_lora_weights()
        use_adapters(self._pipeline, loras)
        self._loras = loras

    def _solver(self, request: ImageRequest) -> str | None:
        """The solver, which has to be one of ours where times are to be those that were given.

        Schedulers of diffusers may shift them.
        """
        from lumina.flow.scheduler import FlowSolverScheduler

        has_times = isinstance(request, TextRequest) and request.times is not None
        if has_times and not isinstance(self._usual_scheduler, FlowSolverScheduler):
            return request.solver or "euler"
        return request.solver

    def _shift(self, request: ImageRequest) -> float | None:
        from lumina.flow.times import resolution_shift

        if not (isinstance(request, TextRequest) and request.resolution_shift):
            return request.shift
        width, height = read_size(str(request.size))
        # The shift depends on the ratio alone, so that pixels do as well as tokens.
        return resolution_shift(width * height, base=self._pipeline.default_image_size**2)


def _describe_cost(job: Job, number: int, cost: "Evaluations") -> str:
    """The cost of a request, by its number from 0, with what makes it differ from others."""
    combinations = combine(job.axes)
    varied = combinations[number % len(combinations)]
    return "".join(f"{name} {value}, " for name, value in varied.items()) + f"evaluations: {cost}"


def _tell_unguided(request: ImageRequest, cost: "Evaluations") -> None:
    """Warn of what has no effect where nothing was guided."""
    if getattr(request, "negative", "") and not cost.pairs:
        _log.warning("--negative has no effect without guidance: choose --guidance above 1")
    interval = getattr(request, "guidance_interval", None)
    if interval is not None and request.guidance > 1 and not cost.pairs:
        _log.warning(
            "nothing was guided: no step begins within --guidance-interval %g,%g", *interval
        )


def _make(
    pipeline: "ImagePipeline", request: ImageRequest, call: Call, watch: "_Preview | None"
) -> Sequence[Any]:
    import torch

    source = torch.Generator().manual_seed(cast(int, request.seed))
    arguments = {call.generator: source} | sampling_of(request) | call.arguments
    if watch is not None:
        arguments["callback_on_step_end"] = watch
    draw = getattr(pipeline, call.method)
    return draw(**arguments, return_dict=False)[0]


def _write_each(
    job: Job, request: ImageRequest, images: Sequence[Any], pipeline: "ImagePipeline"
) -> Iterator[Path]:
    facts = _facts(job) | {
        "model_hash": job.model_hashes[request.model],
        **_modality_of(request),
        "request": dataclasses.asdict(request),
    }
    if request.loras:
        facts["lora_hashes"] = {text: job.lora_hashes[text] for text in request.loras}
    for number, image in enumerate(images, start=1):
        is_one = len(images) == 1
        path = job.output
        if path.is_dir():
            stem = stem_of(request) if is_one else f"{stem_of(request)}-{number:02}"
            path = free_path(path / f"{stem}{request.endings[0]}", request.beside)
        record = facts if is_one else facts | {"picture": number}
        pipeline.write(image, path, record, force=job.force)
        yield path
        if beside := request.beside(path):
            for file, picture in zip(beside, pipeline.pictures_beside(image), strict=True):
                write_png(file, picture, record, force=job.force)
                yield file


def _write_together(job: Job, made: "Sequence[Sequence[Image]]") -> Path:
    facts = _facts(job) | {
        "model_hashes": job.model_hashes,
        "requests": [dataclasses.asdict(request) for request in job.requests],
    }
    if job.lora_hashes:
        facts["lora_hashes"] = job.lora_hashes
    if job.axes:
        whole = _tabulate(job, [put_side_by_side(images) for images in made])
    else:
        labels = [label for request in job.requests for label in request.labels]
        whole = make_grid([image for images in made for image in images], labels)
    write_png(job.output, whole, facts, force=job.force)
    return job.output


def _facts(job: Job) -> dict[str, Any]:
    return {"version": lumina.__version__, "task": job.task}


def _modality_of(request: ImageRequest) -> dict[str, str]:
    return {"modality": request.modality} if isinstance(request, MediaRequest) else {}


def _tabulate(job: Job, cells: "Sequence[Image]") -> "Image":
    """A table for each wish, and for each value of axes after the second."""
    *row_axes, columns = job.axes[:2]
    rows = row_axes[0].labels if row_axes else [""]
    size = len(rows) * len(columns.labels)
    tables = []
    for start in range(0, len(cells), size):
        block = cells[start : start + size]
        width = len(columns.labels)
        tables.append(
            make_table(
                [block[at : at + width] for at in range(0, size, width)],
                rows=rows,
                columns=columns.labels,
                title=_title(job, start, size),
            )
        )
    return stack(tables)


def _title(job: Job, start: int, size: int) -> str:
    """What all pictures of a table have in common, as far as it is of interest."""
    request = job.requests[start]
    varied = {axis.name for axis in job.axes}
    parts = [] if varied & {"prompt", "prompts"} else [request.title]
    if "seed" not in varied:
        parts.append(f"seed {request.seed}")
    step = size
    for axis in reversed(job.axes[2:]):
        parts.append(axis.labels[start // step % len(axis.labels)])
        step *= len(axis.labels)
    return ", ".join(parts)


class _Previews:
    """The previews of a job, each request under a name of its own."""

    def __init__(self, folder: Path, *, force: bool):
        self.folder, self.force = folder, force
        self._taken: set[str] = set()

    def begin(self, request: ImageRequest) -> "_Preview":
        """What writes those of a request."""
        number, stem = 1, stem_of(request)
        while stem in self._taken or (self._are_there(stem) and not self.force):
            number += 1
            stem = f"{stem_of(request)}-{number}"
        self._taken.add(stem)
        return _Preview(self.folder, stem, force=self.force)

    def _are_there(self, stem: str) -> bool:
        """Whether the folder has previews of that name: of one picture, or of several."""
        first = [_preview_name(stem, picture, of=of, step=1) for picture, of in ((1, 1), (1, 2))]
        return any((self.folder / name).exists() for name in first)


class _Preview:
    """Writes what the flow is heading for at each of its evaluations."""

    def __init__(self, folder: Path, stem: str, *, force: bool):
        self.folder, self.stem, self.force = folder, stem, force
        self.step = 0  # of all stages together, which a pipeline counts one by one

    def __call__(
        self, pipeline: "ImagePipeline", step: int, timestep: Any, tensors: dict[str, Any]
    ) -> dict[str, Any]:
        data = cast("torch.Tensor", pipeline.expected_data)
        images = pipeline.pictures_of(data.to(pipeline.dtype))
        self.step += 1
        for number, image in enumerate(images, start=1):
            name = _preview_name(self.stem, number, of=len(images), step=self.step)
            write_png(self.folder / name, image, {"step": self.step}, force=self.force)
        return tensors


def _preview_name(stem: str, picture: int, *, of: int, step: int) -> str:
    part = "" if of == 1 else f"-{picture:02}"
    return f"{stem}{part}-step-{step:03}.png"
