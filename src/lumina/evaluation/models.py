"""What `lumina evaluate` does, for each kind of model."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from lumina.catalog import Checkpoint, find, load
from lumina.errors import LuminaError
from lumina.evaluation import drawings, media, recognition
from lumina.evaluation.exams import open_exam
from lumina.evaluation.results import check_output
from lumina.fitting import refuse_misfits
from lumina.media import free_path
from lumina.requests import SCHEDULER_SETTINGS, TextToImage


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What of a model is measured, and how.

    Args:
        model: A name, a folder or a hub id.
        names: How many things to ask for. None is as many as are usual.
        languages: Those to ask in. None is all.
        full: Whether to measure everything.
        output: Folder for the result. None is a new one here.
        dtype: As in `lumina.load`, like the following one.
        device: Where to compute.
        chosen: Settings of requests that were given: steps, guidance, and those of schedulers.
    """

    model: str
    names: int | None = None
    languages: Sequence[str] | None = None
    full: bool = False
    output: Path | None = None
    dtype: str = "auto"
    device: str = "auto"
    chosen: Mapping[str, Any]


class Evaluated(NamedTuple):
    """A result, and where it was written."""

    result: dict[str, Any]
    table: str
    folder: Path


def evaluate(wanted: Wanted, tell: Callable[[str], None]) -> Evaluated:
    """Measure a model by the rules for what it makes.

    Raises:
        LuminaError: If there is no such model or are no such rules, or something that is wanted is
            not for models of this kind, or out of range.
    """
    checkpoint = find(wanted.model)
    folder = wanted.output or free_path(Path(f"evaluation-{Path(wanted.model).name}"))
    if checkpoint.is_recognizer:
        return _evaluate_recognizer(wanted, folder, tell)
    request = TextToImage(prompt="any", **wanted.chosen)  # refuses what is out of range
    refuse_misfits(request, wanted.chosen, checkpoint)
    if checkpoint.modality == "image":
        return _evaluate_drawings(wanted, checkpoint, folder, tell)
    exam = open_exam(checkpoint)
    media.check(exam, names=wanted.names, languages=wanted.languages, output=folder)
    tell(f"begun in {folder}; if this stops, -o {folder} goes on")
    pipeline = _load(wanted)
    result = media.evaluate(pipeline, exam, **_how(wanted, checkpoint, folder, tell))
    return Evaluated(result, media.table(result, exam.called), folder)


def _evaluate_drawings(
    wanted: Wanted, checkpoint: Checkpoint, folder: Path, tell: Callable[[str], None]
) -> Evaluated:
    check_output(folder)
    drawings.check(checkpoint.folder, names=wanted.names, languages=wanted.languages)
    tell(f"begun in {folder}; if this stops, -o {folder} goes on")
    pipeline = _load(wanted)
    how = _how(wanted, checkpoint, folder, tell)
    result = drawings.evaluate(pipeline, checkpoint.folder, **how)
    return Evaluated(result, drawings.table(result), folder)


def _evaluate_recognizer(wanted: Wanted, folder: Path, tell: Callable[[str], None]) -> Evaluated:
    from lumina.pipelines.recognition import load_recognizer

    given = {"names": wanted.names, "languages": wanted.languages} | dict(wanted.chosen)
    for name, value in given.items():
        if value is not None:
            flag = f"--{name.replace('_', '-')}"
            raise LuminaError(
                f"{wanted.model} makes no pictures, and so {flag} has no meaning",
                hint=f"leave {flag} out",
            )
    check_output(folder)
    pipeline = load_recognizer(wanted.model, dtype=wanted.dtype, device=wanted.device)
    result = recognition.evaluate(pipeline, full=wanted.full, progress=tell, output=folder)
    return Evaluated(result, recognition.table(result), folder)


def _load(wanted: Wanted) -> Any:
    """The pipeline, with its scheduler as it is wanted."""
    from lumina.flow.scheduler import choose_scheduler

    pipeline = load(wanted.model, dtype=wanted.dtype, device=wanted.device)
    pipeline.set_progress_bar_config(disable=True)
    chosen = {name: wanted.chosen[name] for name in SCHEDULER_SETTINGS if name in wanted.chosen}
    pipeline.scheduler = choose_scheduler(pipeline.scheduler, chosen)
    return pipeline


def _how(
    wanted: Wanted, checkpoint: Checkpoint, folder: Path, tell: Callable[[str], None]
) -> dict[str, Any]:
    settings = {**checkpoint.defaults, **wanted.chosen}
    return {
        "names": wanted.names,
        "languages": wanted.languages,
        "full": wanted.full,
        "progress": tell,
        "output": folder,
        "steps": settings.get("steps"),
        "guidance": settings.get("guidance"),
        "model": checkpoint.fingerprint(),
    }
