"""How well a model of clips, sounds or other media does what prompts say, by an exam."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lumina.evaluation.exams import Exam, Outcome, Wish
from lumina.evaluation.keeping import Keeper
from lumina.evaluation.lines import Line, rows_of
from lumina.evaluation.results import (
    check_counts,
    check_output,
    identity,
    last_row,
    make_all,
    other_languages,
    prepare,
    say_nothing,
    settings_of,
    some_of_each,
    versions,
    write_folder,
)
from lumina.media import refuse_missing_writer
from lumina.requests import OF_MODALITIES

IN_GRID = 8
"""Media of each section that are shown and kept."""

TRUE, RETURNED = "true examples", "round trips"
"""What is judged besides: true examples, and what the autoencoder leaves of them."""


def check(
    exam: Exam,
    *,
    names: int | None = None,
    languages: Sequence[str] | None = None,
    output: Path | None = None,
) -> None:
    """Refuse what `evaluate` would refuse, before anything is loaded.

    Raises:
        LuminaError: If a language is unknown, less than one thing is to be asked for, or the output
            exists or needs a library that is not installed.
    """
    check_counts(names)
    other_languages(languages, exam.languages)
    if output is not None:
        check_output(output)
        refuse_missing_writer(Path(f"medium{_ending(exam)}"))


def evaluate(
    pipeline: Any,
    exam: Exam,
    *,
    names: int | None = None,
    languages: Sequence[str] | None = None,
    full: bool = False,
    progress: Callable[[str], None] = say_nothing,
    output: Path | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    batch_size: int = 8,
    model: str = "",
) -> dict[str, Any]:
    """Measure a model by fixed rules on fixed prompts and seeds.

    Args:
        pipeline: A `MediaPipeline`.
        exam: Of what it makes.
        names: How much the first section asks for; all others follow in proportion.
        languages: Which languages to ask in besides English. None is all that have captions.
        full: Measure far more.
        progress: What is told how far it is, as text.
        output: Folder for some of the media, a grid of pictures of them, and the result. An
            evaluation that was stopped goes on there. None writes nothing.
        steps: Steps from noise to medium.
        guidance: How closely to follow the prompt.
        batch_size: Media that are made at once.
        model: Fingerprint of its weights. Without it nothing is kept to go on with.

    Returns:
        What JSON can hold: `lines` (the measured numbers), `beside` (the same of true examples,
        and of what the autoencoder leaves of them), `samples` (each prompt, its seed and what was
        found), and how it all was made.

    Raises:
        LuminaError: If a language is unknown, or the output exists, cannot be written or was
            begun for something else.
    """
    began = time.monotonic()
    check(exam, names=names, languages=languages, output=output)
    others = other_languages(languages, exam.languages)
    if output is not None:
        prepare(output)
    settings = settings_of(pipeline, steps=steps, guidance=guidance)
    wishes = exam.plan(full=full, names=names, languages=others)
    settings |= {"batch_size": batch_size, "languages": ["en", *others]}
    keeper = Keeper(
        output if model else None,
        identity(pipeline, settings, [_plain(wish) for wish in wishes], model),
        lambda: pipeline.evaluations,
    )
    shown = {id(wish) for wish in some_of_each(wishes, IN_GRID)}
    outcomes, kept = [], []
    made = make_all(
        wishes,
        lambda batch: _make(pipeline, settings, batch),
        alike=lambda wish: (wish.section, wish.arguments),
        at_once=lambda wish: min(batch_size, wish.at_once),
        called=exam.called,
        tell=progress,
        keeper=keeper,
    )
    for wish, medium in made:
        outcomes.append(Outcome(wish, exam.judge(wish, medium)))
        if output is not None and id(wish) in shown:
            kept.append((outcomes[-1], medium))
    began -= keeper.seconds
    finished = time.monotonic()
    progress(f"evaluations: {keeper.evaluations}")
    progress(f"judging true {exam.called}")
    result = {
        "lines": [asdict(line) for line in exam.measure(outcomes)],
        "beside": _measure_examples(pipeline, exam, wishes),
        "settings": settings,
        "seconds": {
            exam.called: round(finished - began, 1),
            "total": round(time.monotonic() - began, 1),
        },
        "evaluations": keeper.evaluations and keeper.evaluations._asdict(),
        "versions": versions(),
        "samples": [_describe(exam, outcome) for outcome in outcomes],
    }
    if output is not None:
        _write(output, pipeline, exam, result, kept)
    keeper.forget()
    return result


def table(result: dict[str, Any], called: str) -> str:
    """A result of `evaluate` as text.

    Args:
        result: What it gave.
        called: What was made, as a plural.
    """
    beside = {name: [Line(**line) for line in lines] for name, lines in result["beside"].items()}
    rows = rows_of([Line(**line) for line in result["lines"]], beside)
    return "\n".join([*rows, last_row(result, called)])


def _plain(wish: Wish) -> list[Any]:
    """What tells a wish from others; pictures among its arguments follow from what is left."""
    facts = {
        name: value
        for name, value in wish.arguments.items()
        if isinstance(value, int | float | str)
    }
    return [wish.section, wish.prompt, wish.seed, facts]


def _make(pipeline: Any, settings: dict[str, Any], batch: list[Wish]) -> Sequence[np.ndarray]:
    call = {"num_inference_steps": settings["steps"], "guidance_scale": settings["guidance"]}
    return pipeline(
        prompt=[wish.prompt for wish in batch],
        generator=[torch.Generator().manual_seed(wish.seed) for wish in batch],
        **call | dict(batch[0].arguments),
    ).media


def _measure_examples(
    pipeline: Any, exam: Exam, wishes: Sequence[Wish]
) -> dict[str, list[dict[str, Any]]]:
    """What true examples score, and what is left of them after the autoencoder, if there is one."""
    outcomes: dict[str, list[Outcome]] = {TRUE: [], RETURNED: []}
    for wish in wishes:
        example = exam.example(wish)
        if example is None:
            continue
        outcomes[TRUE].append(Outcome(wish, exam.judge(wish, example)))
        if _is_lossy(pipeline):
            (returned,) = _return(pipeline, example)
            outcomes[RETURNED].append(Outcome(wish, exam.judge(wish, returned)))
    return {
        name: [asdict(line) for line in exam.measure(found)]
        for name, found in outcomes.items()
        if found
    }


def _is_lossy(pipeline: Any) -> bool:
    """Whether media are changed on their way to latents and back."""
    return any(pipeline.components.get(name) is not None for name in ("vae", "vocoder"))


@torch.no_grad()
def _return(pipeline: Any, medium: np.ndarray) -> Sequence[np.ndarray]:
    """A medium that went through the autoencoder and back."""
    return pipeline.codec.decode(pipeline.codec.encode([medium]).mean)


def _describe(exam: Exam, outcome: Outcome) -> dict[str, Any]:
    wish = outcome.wish
    facts = {name: getattr(wish, name) for name in ("section", "prompt", "language", "seed")}
    return facts | exam.describe(outcome)


def _write(
    folder: Path,
    pipeline: Any,
    exam: Exam,
    result: dict[str, Any],
    kept: Sequence[tuple[Outcome, np.ndarray]],
) -> None:
    described = [_describe(exam, outcome) for outcome, _ in kept]
    pictures = pipeline.as_pictures([medium for _, medium in kept])
    labels = [f"{'right' if one['right'] else 'WRONG'}: {one['prompt']}" for one in described]
    for number, ((outcome, medium), facts) in enumerate(zip(kept, described, strict=True)):
        record = {"sample": facts} | {key: result[key] for key in ("settings", "versions")}
        name = f"{number:03}-{outcome.wish.section.replace(' ', '-')}{_ending(exam)}"
        pipeline.write(medium, folder / name, record, force=True)
    write_folder(folder, result, pictures, labels)


def _ending(exam: Exam) -> str:
    return OF_MODALITIES[exam.world.modality].endings[0]
