"""From what a person asked for to files: the work behind `lumina generate`."""

import dataclasses
import logging
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import lumina
from lumina.catalog import Checkpoint, Footprint, find, load
from lumina.errors import LuminaError
from lumina.media import (
    free_path,
    make_folder,
    make_grid,
    read_record,
    refuse_existing,
    refuse_unwritable,
    slug,
    write_png,
)
from lumina.requests import (
    ClassToImage,
    ImageRequest,
    TextToImage,
    check_names,
    nearest_size,
    read_size,
)

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from lumina.pipelines.images import ImagePipeline

_log = logging.getLogger(__name__)

SEEDS = 2**32
"""Random seeds are below this: short enough to type."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """Pictures to make, all by one model, and where they go."""

    requests: list[ImageRequest]
    """Every field has the value that is used; none is left to be found."""
    model_hash: str
    output: Path
    """A file if there is one result, else a folder."""
    grid: bool
    force: bool
    preview: Path | None


def plan(
    prompts: list[str],
    settings: Mapping[str, Any],
    *,
    source: Path | None = None,
    images: int = 1,
    output: Path | None = None,
    grid: bool = False,
    force: bool = False,
    preview: Path | None = None,
) -> Job:
    """Find out all that making pictures needs, and refuse what will not work.

    Args:
        prompts: What to draw. An empty list is what `source` shows, or the `class_label`.
        settings: Fields of `TextToImage` or `ClassToImage` that have been chosen.
        source: A picture whose settings hold where nothing else was chosen.
        images: Pictures of each prompt.
        output: A PNG file, or a folder. None is a new name here.
        grid: Put all pictures into one file.
        force: Replace `output` if it is a file that exists.
        preview: Folder for pictures of each step.

    Raises:
        LuminaError: If anything asked for cannot be had. No weights are read before.
    """
    if images < 1:
        raise LuminaError(f"images is {images}, which is out of range", hint="allowed: 1 and above")
    stored = {} if source is None else settings_of(source)
    checkpoint = find((stored | dict(settings)).get("model", TextToImage.model))
    kind = TextToImage if checkpoint.classes is None else ClassToImage
    names = {field.name for field in dataclasses.fields(kind)}
    # A picture may have been made by a model of the other kind.
    settings = {name: stored[name] for name in stored if name in names} | dict(settings)
    wishes = _choose_wishes(prompts, settings, checkpoint)
    _refuse_others(settings, names, checkpoint)
    chosen: dict[str, Any] = (
        {"seed": secrets.randbelow(SEEDS)} | dict(checkpoint.defaults) | settings
    )
    requests: list[ImageRequest] = [
        kind(**chosen | wish | {"seed": chosen["seed"] + number})
        for number, wish in enumerate(wish for wish in wishes for _ in range(images))
    ]
    single = grid or len(requests) == 1
    output = _choose_output(output, requests[0], single=single, grid=grid, force=force)
    if preview is not None:
        make_folder(preview)
    requests = _choose_device(requests, checkpoint.footprint())
    model_hash = checkpoint.fingerprint()
    if source is not None and stored["model"] == settings["model"]:
        _compare_weights(source, model_hash)
    return Job(
        requests=requests,
        model_hash=model_hash,
        output=output,
        grid=grid,
        force=force,
        preview=preview,
    )


def run(job: Job, tell: Callable[[str], None] = lambda text: None) -> Iterator[Path]:
    """Make the pictures of a job one by one, so that each is the same as when made alone.

    Args:
        job: What `plan` gave.
        tell: Gets what is worth knowing on the way.

    Yields:
        Each file, when it is complete.
    """
    first = job.requests[0]
    from lumina.flow.scheduler import choose_scheduler

    pipeline = load(
        first.model,
        dtype=first.dtype,
        device=first.device,
        text_encoder=first.text_encoder if isinstance(first, TextToImage) else None,
        vae=first.vae,
        preset=first.preset,
    )
    pipeline.scheduler = choose_scheduler(
        pipeline.scheduler, solver=first.solver, schedule=first.schedule, shift=first.shift
    )
    facts = {"version": lumina.__version__, "model_hash": job.model_hash}
    images = []
    for number, request in enumerate(job.requests, start=1):
        pipeline.set_progress_bar_config(desc=f"{number}/{len(job.requests)}", disable=None)
        image = _make(pipeline, request, job.preview)
        if number == 1:
            tell(_evaluations(pipeline.num_timesteps, is_guided=request.guidance > 1))
        if job.grid:
            images.append(image)
            continue
        path = job.output
        if path.is_dir():
            path = free_path(path / f"{_stem(request)}.png")
        write_png(path, image, facts | {"request": dataclasses.asdict(request)}, force=job.force)
        yield path
    if job.grid:
        pictures = [dataclasses.asdict(request) for request in job.requests]
        grid = make_grid(images, [_title(request) for request in job.requests])
        write_png(job.output, grid, facts | {"requests": pictures}, force=job.force)
        yield job.output


def settings_of(path: Path) -> dict[str, Any]:
    """The settings of a picture that lumina made, out of its file.

    Raises:
        LuminaError: If the file holds none, those of several pictures, or unknown ones.
    """
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
    stored = record["request"]
    return check_names(ClassToImage if "class_label" in stored else TextToImage, stored)


def _choose_wishes(
    prompts: list[str], settings: Mapping[str, Any], checkpoint: Checkpoint
) -> list[dict[str, Any]]:
    """What each picture is asked for by."""
    label = settings.get("class_label")
    if checkpoint.classes is None:
        if label is not None:
            raise LuminaError(
                f"{checkpoint.folder} draws prompts, not classes", hint="leave --class-label out"
            )
        return [{"prompt": prompt} for prompt in prompts or [settings.get("prompt", "")]]
    if prompts or "prompt" in settings or label is None:
        raise LuminaError(
            f"{checkpoint.folder} draws classes, not prompts",
            hint=f"give --class-label, 0 to {checkpoint.classes - 1}, and no prompt",
        )
    if label >= checkpoint.classes:
        raise LuminaError(
            f"class_label is {label}, which is out of range",
            hint=f"allowed: 0 to {checkpoint.classes - 1}",
        )
    return [{"class_label": label}]


def _refuse_others(settings: Mapping[str, Any], names: set[str], checkpoint: Checkpoint) -> None:
    """Refuse settings that requests to models of this kind do not have."""
    drawn = "prompts" if checkpoint.classes is None else "classes"
    for name in settings:
        if name not in names:
            flag = f"--{name.replace('_', '-')}"
            raise LuminaError(
                f"{checkpoint.folder} draws {drawn}, for which {flag} has no meaning",
                hint=f"leave {flag} out",
            )


def _compare_weights(source: Path, model_hash: str) -> None:
    if read_record(source)["model_hash"] != model_hash:
        _log.warning("the weights of the model are not those that made %s", source)


def _choose_output(
    output: Path | None, first: ImageRequest, *, single: bool, grid: bool, force: bool
) -> Path:
    """A file that can be written, or a folder that is there."""
    name = f"{_stem(first)}-grid.png" if grid else f"{_stem(first)}.png"
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


def _choose_device(requests: list[ImageRequest], footprint: Footprint) -> list[ImageRequest]:
    """The requests with the device and dtype that will be used."""
    from lumina.devices import free_memory, pick_device, pick_dtype

    device = pick_device(requests[0].device)
    dtype = pick_dtype(requests[0].dtype, device)
    needed = partial(footprint.bytes, bytes_per_number=dtype.itemsize)
    _refuse_too_large(requests[0].size, needed, free_memory(device))
    names = {"device": str(device), "dtype": str(dtype).removeprefix("torch.")}
    return [dataclasses.replace(request, **names) for request in requests]


def _refuse_too_large(size: str, needed: Callable[[str], int], available: int) -> None:
    if needed(size) <= available:
        return
    largest = size
    while needed(largest) > available and largest != "16x16":
        width, height = read_size(largest)
        largest = "{}x{}".format(*nearest_size(width * 0.9, height * 0.9))
    raise LuminaError(
        f"size {size} needs about {needed(size) / 1e9:,.0f} GB of memory,"
        f" and {available / 1e9:.0f} GB are free",
        hint=f"the nearest that fits is about {largest}",
    )


def _evaluations(count: int, *, is_guided: bool) -> str:
    passes = f"pairs, {2 * count} passes" if is_guided else "passes"
    return f"evaluations: {count} {passes} through the network for each picture"


def _title(request: ImageRequest) -> str:
    if isinstance(request, TextToImage):
        return request.prompt
    return f"class {cast(ClassToImage, request).class_label}"


def _stem(request: ImageRequest) -> str:
    return f"{slug(_title(request))}-{request.seed}"


def _make(pipeline: "ImagePipeline", request: ImageRequest, preview: Path | None) -> "Image":
    import torch

    width, height = read_size(request.size)
    if isinstance(request, TextToImage):
        wish = {"prompt": request.prompt, "negative_prompt": request.negative}
    else:
        wish = {"class_labels": cast(ClassToImage, request).class_label}
    draw = cast(Callable[..., Any], pipeline)
    return draw(
        **wish,
        width=width,
        height=height,
        num_inference_steps=request.steps,
        guidance_scale=request.guidance,
        generator=torch.Generator().manual_seed(cast(int, request.seed)),
        callback_on_step_end=None if preview is None else _Preview(preview, _stem(request)),
        return_dict=False,
    )[0][0]


class _Preview:
    """Writes what the flow is heading for after each step but the first."""

    def __init__(self, folder: Path, stem: str):
        self.folder = folder
        self.stem = stem
        self.before: torch.Tensor | None = None

    def __call__(
        self, pipeline: "ImagePipeline", step: int, timestep: Any, tensors: dict[str, Any]
    ) -> dict[str, Any]:
        x = tensors["latents"]
        if self.before is not None:
            noise_before, noise = _shares_of_noise(pipeline.scheduler)[step : step + 2]
            if noise == noise_before:  # the first half of a step of second order
                return tensors
            toward_noise = (x - self.before) / (noise - noise_before)
            data = pipeline._decode(x - noise * toward_noise)
            images: Any = pipeline.image_processor.postprocess(data, output_type="pil")
            path = self.folder / f"{self.stem}-step-{step + 1:03}.png"
            write_png(path, images[0], {"step": step + 1}, force=True)
        self.before = x
        return tensors


def _shares_of_noise(scheduler: Any) -> list[float]:
    """How much noise is left before each step, and after the last."""
    if hasattr(scheduler, "sigmas"):
        return scheduler.sigmas.tolist()
    return [*(scheduler.timesteps / scheduler.config.num_train_timesteps).tolist(), 0.0]
