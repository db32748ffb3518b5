"""How well a model draws what captions say: things, colors, places, pairs, sizes, languages."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image

from lumina.errors import LuminaError
from lumina.evaluation.autoencoder import psnr_of_unseen, round_trip
from lumina.evaluation.keeping import Keeper
from lumina.evaluation.lines import Line, mean, rows_of, share
from lumina.evaluation.results import (
    check_counts,
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
from lumina.evaluation.trials import BASE, FULL, QUICK, SEED, Counts, Trial, plan, shuffled
from lumina.types import Size
from lumina.worlds.captions import Brief, stage, write
from lumina.worlds.drawings import find_font, paint
from lumina.worlds.judge import Lineup, Verdict
from lumina.worlds.references import load_references

CALLED = "pictures"
IN_GRID = 12  # of each section

Pixels = UInt8[np.ndarray, "rows cols 3"]


class Outcome(NamedTuple):
    """What became of a trial."""

    trial: Trial
    verdict: Verdict

    @property
    def is_right(self) -> bool:
        """Whether the picture shows what its section is about."""
        if self.trial.section == "color":
            return self.verdict.is_color_right
        if self.trial.section == "place":
            return self.verdict.is_place_right
        return self.verdict.is_found


def evaluate(
    pipeline: Any,
    folder: Path,
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
        pipeline: A `LuminaPipeline` of drawings.
        folder: Its checkpoint, which holds the reference drawings too.
        names: How many things to name in English; all other counts follow in proportion.
        languages: Which languages to name things in besides English. None is all.
        full: Measure about ten times as much, every English name included.
        progress: What is told how far it is, as text.
        output: Folder for a picture grid and the result. An evaluation that was stopped goes on
            there. None writes nothing.
        steps: Steps from noise to picture.
        guidance: How closely to follow the prompt.
        batch_size: Pictures that are made at once. Changes no picture.
        model: As in `lumina.evaluation.media.evaluate`.

    Returns:
        What JSON can hold: `lines` (the measured numbers), `skipped` (what was not measured, and
        why), `samples` (each picture's prompt, seed and verdict), and how it all was made.

    Raises:
        LuminaError: If the folder holds no reference drawings, a language is unknown, the package
            `emoji` is missing, or the output exists, cannot be written or was begun for something
            else.
    """
    began = time.monotonic()
    check(folder, names=names, languages=languages)
    things, drawings = load_references(folder)
    others = other_languages(languages)
    if output is not None:
        prepare(output)
    counts = FULL if full else QUICK
    if names is not None:
        counts = replace(counts, names=min(counts.names, len(things)))
        counts = counts.scaled(names / counts.names)
    settings = settings_of(pipeline, steps=steps, guidance=guidance) | {
        "seed": SEED,
        "batch_size": batch_size,
        "counts": asdict(counts),
        "languages": ["en", *others],
    }

    lineup = Lineup(things, drawings)
    trials = plan(things, counts, languages=others)
    keeper = Keeper(
        output if model else None,
        identity(pipeline, settings, [[*t.size, t.prompt, t.seed] for t in trials], model),
        lambda: pipeline.evaluations,
    )
    artist = _Artist(pipeline, settings["steps"], settings["guidance"])
    shown = set(some_of_each([trial for trial in trials if trial.size == BASE], IN_GRID))
    outcomes, cells = [], []
    drawn = make_all(
        trials,
        artist.draw,
        alike=lambda trial: trial.size,
        at_once=lambda trial: batch_size,
        called=CALLED,
        tell=progress,
        keeper=keeper,
    )
    for trial, pixels in drawn:
        outcome = Outcome(trial, lineup.judge(trial.brief, pixels))
        outcomes.append(outcome)
        if trial in shown:
            cells.append((outcome, pixels))
    began -= keeper.seconds
    made = time.monotonic()
    progress(f"evaluations: {keeper.evaluations}")
    lines = measure(outcomes)
    more, skipped = _measure_autoencoder(pipeline.vae, lineup, counts)

    result = {
        "lines": [asdict(line) for line in lines + more],
        "skipped": skipped,
        "settings": settings,
        "seconds": {
            CALLED: round(made - began, 1),
            "total": round(time.monotonic() - began, 1),
        },
        "evaluations": keeper.evaluations and keeper.evaluations._asdict(),
        "versions": versions(),
        "samples": [_describe(outcome) for outcome in outcomes],
    }
    if output is not None:
        _write(output, result, cells)
    keeper.forget()
    return result


def check(
    folder: Path, *, names: int | None = None, languages: Sequence[str] | None = None
) -> None:
    """Refuse what `evaluate` would refuse, before anything is loaded.

    Raises:
        LuminaError: If the folder holds no reference drawings, a language is unknown, or less
            than one thing is to be named.
    """
    load_references(folder)
    other_languages(languages)
    check_counts(names)


def measure(outcomes: Sequence[Outcome]) -> list[Line]:
    """Shares of what is right, section by section."""
    by_section: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        by_section.setdefault(outcome.trial.section, []).append(outcome)
    retrieval, sizes = by_section["retrieval"], by_section["sizes"]
    lines = [
        share("retrieval", "English, top-1", [o.is_right for o in retrieval]),
        share("retrieval", "English, top-5", [o.verdict.is_near for o in retrieval]),
    ]
    if spoken := by_section.get("languages"):
        lines.append(share("languages", "all others, top-1", [o.is_right for o in spoken]))
        lines += _shares("languages", spoken, lambda o: o.trial.language)
    for section, what in (
        ("color", "background, held out"),
        ("place", "place, held out"),
        ("pairs", "both found and the relation right, held out"),
    ):
        lines.append(share(section, what, [o.is_right for o in by_section[section]]))
        if section != "pairs":
            both = [o.is_right and o.verdict.is_found for o in by_section[section]]
            lines.append(share(section, "and the thing as well", both))
    either = [min(o.verdict.ranks) == 0 for o in by_section["pairs"]]
    lines.append(share("pairs", "at least one found", either))
    briefs = {o.trial.brief for o in sizes}
    same = [o.is_right for o in retrieval if o.trial.brief in briefs]
    lines.append(share("sizes", f"{_name(BASE)}, the same names", same))
    lines.append(share("sizes", "all others", [o.is_right for o in sizes]))
    return lines + _shares("sizes", sizes, lambda o: _name(o.trial.size))


def table(result: dict[str, Any]) -> str:
    """A result of `evaluate` as text."""
    rows = rows_of([Line(**line) for line in result["lines"]])
    rows += [f"{name:10} not measured: {reason}" for name, reason in result["skipped"].items()]
    return "\n".join([*rows, last_row(result, CALLED)])


class _Artist(NamedTuple):
    """A pipeline with its settings."""

    pipeline: Any
    steps: int
    guidance: float

    def draw(self, batch: list[Trial]) -> list[Pixels]:
        """Pictures of trials of one size."""
        size = batch[0].size
        images = self.pipeline(
            prompt=[trial.prompt for trial in batch],
            width=size.width,
            height=size.height,
            num_inference_steps=self.steps,
            guidance_scale=self.guidance,
            generator=[torch.Generator().manual_seed(trial.seed) for trial in batch],
            output_type="np",
        ).images
        return list((images * 255).round().astype(np.uint8))


def _measure_autoencoder(
    vae: Any, lineup: Lineup, counts: Counts
) -> tuple[list[Line], dict[str, str]]:
    """What the autoencoder alone allows, or why that is not known."""
    try:
        find_font()
    except LuminaError as error:
        reason = str(error).splitlines()[0]
        return [], {"ceiling": reason, "autoencoder": reason}
    briefs = [Brief((thing,)) for thing in shuffled(lineup.things, "en")[: counts.names]]
    painted = [paint(stage(brief), BASE) for brief in briefs]
    returned = round_trip(vae, painted)
    verdicts = [lineup.judge(*pair) for pair in zip(briefs, returned, strict=True)]
    values = psnr_of_unseen(
        vae,
        lineup.things,
        count=max(2, counts.unseen),
        side=BASE.width,
        seed=SEED,
    )
    what = "PSNR in the box of unseen drawings"
    return [
        share("ceiling", "English, top-1, VAE round trips", [v.is_found for v in verdicts]),
        mean("vae", what, values, unit="dB"),
    ], {}


def _shares(
    section: str, outcomes: Sequence[Outcome], part: Callable[[Outcome], str]
) -> list[Line]:
    """One line for each part of a section."""
    return [
        share(section, name, [outcome.is_right for outcome in group])
        for name, group in groupby(outcomes, part)
    ]


def _describe(outcome: Outcome) -> dict[str, Any]:
    trial, verdict = outcome
    return {
        "section": trial.section,
        "prompt": trial.prompt,
        "language": trial.language,
        "size": _name(trial.size),
        "seed": trial.seed,
        "asked": asdict(trial.brief),
        "right": outcome.is_right,
        "ranks": verdict.ranks,
        "found": verdict.found,
        "background": verdict.background,
        "place": verdict.place,
    }


def _write(
    folder: Path, result: dict[str, Any], cells: Sequence[tuple[Outcome, np.ndarray]]
) -> None:
    pictures = [Image.fromarray(pixels) for _, pixels in cells]
    write_folder(folder, result, pictures, [_label(outcome) for outcome, _ in cells])


def _label(outcome: Outcome) -> str:
    trial = outcome.trial
    language = "" if trial.language == "en" else f" ({trial.language})"
    verdict = "right" if outcome.is_right else "WRONG"
    return f"{verdict}: {write(trial.brief, 'en')}{language}"


def _name(size: Size) -> str:
    return f"{size.width}x{size.height}"
