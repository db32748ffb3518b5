"""How well a model draws what captions say: things, colors, places, pairs, sizes, languages."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image

import lumina
from lumina.devices import report
from lumina.errors import LuminaError, UnknownNameError
from lumina.evaluation.autoencoder import psnr_of_unseen, round_trip
from lumina.evaluation.intervals import interval_of_mean, wilson
from lumina.evaluation.trials import BASE, FULL, QUICK, SEED, Counts, Trial, plan, shuffled
from lumina.media import make_folder, make_grid, refuse_existing, write_png
from lumina.types import Size
from lumina.worlds.captions import Brief, stage, write
from lumina.worlds.drawings import find_font, paint
from lumina.worlds.judge import Lineup, Verdict
from lumina.worlds.references import load_references
from lumina.worlds.vocabulary import LANGUAGES

STEPS, GUIDANCE = 30, 4.0  # where none are given, as in the pipeline
IN_GRID = 12  # pictures of each section
GRID, RESULT = "grid.png", "result.json"

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


@dataclass(frozen=True)
class Line:
    """One measured number.

    Args:
        section: What is measured.
        what: On which part of it.
        count: Samples.
        value: A share, or decibels.
        low: Lower end of the 95 % interval.
        high: Upper end of it.
        unit: "share" or "dB".
    """

    section: str
    what: str
    count: int
    value: float
    low: float
    high: float
    unit: str = "share"


def evaluate(
    pipeline: Any,
    folder: Path,
    *,
    names: int | None = None,
    languages: Sequence[str] | None = None,
    full: bool = False,
    progress: Callable[[str], None] | None = None,
    output: Path | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    batch_size: int = 8,
) -> dict[str, Any]:
    """Measure a model by fixed rules on fixed prompts and seeds.

    Args:
        pipeline: A `LuminaPipeline` of drawings.
        folder: Its checkpoint, which holds the reference drawings too.
        names: How many things to name in English; all other counts follow in proportion.
        languages: Which languages to name things in besides English. None is all.
        full: Measure about ten times as much, every English name included.
        progress: What is told how far it is, as text.
        output: Folder for a picture grid and the result. None writes nothing.
        steps: Steps from noise to picture.
        guidance: How closely to follow the prompt.
        batch_size: Pictures that are made at once. Changes no picture.

    Returns:
        What JSON can hold: `lines` (the measured numbers), `skipped` (what was not measured, and
        why), `samples` (each picture's prompt, seed and verdict), and how it all was made.

    Raises:
        LuminaError: If the folder holds no reference drawings, a language is unknown, the package
            `emoji` is missing, or the output exists or cannot be written.
    """
    began = time.monotonic()
    check(folder, names=names, languages=languages)
    things, drawings = load_references(folder)
    others = _check_languages(languages)
    if output is not None:
        make_folder(output)
        for name in (GRID, RESULT):
            refuse_existing(output / name)
    counts = FULL if full else QUICK
    if names is not None:
        counts = replace(counts, names=min(counts.names, len(things)))
        counts = counts.scaled(names / counts.names)
    settings = {
        "steps": STEPS if steps is None else steps,
        "guidance": GUIDANCE if guidance is None else guidance,
        "scheduler": _settings_of(getattr(pipeline, "scheduler", None)),
        "dtype": str(pipeline.dtype).removeprefix("torch."),
        "device": str(pipeline.device),
        "seed": SEED,
        "batch_size": batch_size,
        "counts": asdict(counts),
        "languages": ["en", *others],
    }

    lineup = Lineup(things, drawings)
    trials = plan(things, counts, languages=others)
    artist = _Artist(pipeline, settings["steps"], settings["guidance"], batch_size)
    shown = set(_choose_shown(trials))
    outcomes, cells = [], []
    for trial, pixels in artist.draw(trials, progress or _say_nothing):
        outcome = Outcome(trial, lineup.judge(trial.brief, pixels))
        outcomes.append(outcome)
        if trial in shown:
            cells.append((outcome, pixels))
    made = time.monotonic()
    lines = measure(outcomes)
    more, skipped = _measure_autoencoder(pipeline.vae, lineup, counts, batch_size)

    result = {
        "lines": [asdict(line) for line in lines + more],
        "skipped": skipped,
        "settings": settings,
        "seconds": {
            "pictures": round(made - began, 1),
            "total": round(time.monotonic() - began, 1),
        },
        "versions": {"lumina": lumina.__version__} | report(),
        "samples": [_describe(outcome) for outcome in outcomes],
    }
    if output is not None:
        _write(output, result, cells)
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
    _check_languages(languages)
    if names is not None and names < 1:
        raise LuminaError(f"names is {names}, which is out of range", hint="allowed: 1 and above")


def measure(outcomes: Sequence[Outcome]) -> list[Line]:
    """Shares of what is right, section by section."""
    by_section: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        by_section.setdefault(outcome.trial.section, []).append(outcome)
    retrieval, sizes = by_section["retrieval"], by_section["sizes"]
    lines = [
        _share("retrieval", "English, top-1", [o.is_right for o in retrieval]),
        _share("retrieval", "English, top-5", [o.verdict.is_near for o in retrieval]),
    ]
    if spoken := by_section.get("languages"):
        lines.append(_share("languages", "all others, top-1", [o.is_right for o in spoken]))
        lines += _shares("languages", spoken, lambda o: o.trial.language)
    for section, what in (
        ("color", "background, held out"),
        ("place", "place, held out"),
        ("pairs", "both found and the relation right, held out"),
    ):
        lines.append(_share(section, what, [o.is_right for o in by_section[section]]))
    either = [min(o.verdict.ranks) == 0 for o in by_section["pairs"]]
    lines.append(_share("pairs", "at least one found", either))
    briefs = {o.trial.brief for o in sizes}
    same = [o.is_right for o in retrieval if o.trial.brief in briefs]
    lines.append(_share("sizes", f"{_name(BASE)}, the same names", same))
    lines.append(_share("sizes", "all others", [o.is_right for o in sizes]))
    return lines + _shares("sizes", sizes, lambda o: _name(o.trial.size))


def table(result: dict[str, Any]) -> str:
    """A result of `evaluate` as text."""
    lines = [Line(**line) for line in result["lines"]]
    width = max(len(line.what) for line in lines)
    rows = [f"{'':10} {'':{width}} {'count':>6} {'value':>8}   95 % interval"]
    section = None
    for line in lines:
        first = "" if line.section == section else line.section
        section = line.section
        value, low, high = (_number(v, line.unit) for v in (line.value, line.low, line.high))
        interval = f"{low} to {high}"
        rows.append(f"{first:10} {line.what:{width}} {line.count:6} {value:>8}   {interval}")
    rows += [f"{name:10} not measured: {reason}" for name, reason in result["skipped"].items()]
    settings = result["settings"]
    rows.append(
        f"{settings['steps']} steps, guidance {settings['guidance']:g}, {settings['dtype']} on "
        f"{settings['device']}, {len(result['samples'])} pictures in "
        f"{result['seconds']['total']:.0f} s"
    )
    return "\n".join(rows)


class _Artist(NamedTuple):
    """A pipeline with its settings."""

    pipeline: Any
    steps: int
    guidance: float
    batch_size: int

    def draw(
        self, trials: Sequence[Trial], tell: Callable[[str], None]
    ) -> Iterator[tuple[Trial, Pixels]]:
        """Yield each trial with its picture."""
        began, done = time.monotonic(), 0
        for size, group in groupby(trials, lambda trial: trial.size):
            same_size = list(group)
            for start in range(0, len(same_size), self.batch_size):
                batch = same_size[start : start + self.batch_size]
                yield from zip(batch, self._draw_batch(batch, size), strict=True)
                done += len(batch)
                left = (time.monotonic() - began) / done * (len(trials) - done)
                tell(f"{done} of {len(trials)} pictures ({batch[-1].section}), {left:.0f} s left")

    def _draw_batch(self, batch: list[Trial], size: Size) -> list[Pixels]:
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
    vae: Any, lineup: Lineup, counts: Counts, batch_size: int
) -> tuple[list[Line], dict[str, str]]:
    """What the autoencoder alone allows, or why that is not known."""
    try:
        find_font()
    except LuminaError as error:
        reason = str(error).splitlines()[0]
        return [], {"ceiling": reason, "autoencoder": reason}
    briefs = [Brief((thing,)) for thing in shuffled(lineup.things, "en")[: counts.names]]
    painted = [paint(stage(brief), BASE) for brief in briefs]
    returned = round_trip(vae, painted, batch_size=batch_size)
    verdicts = [lineup.judge(*pair) for pair in zip(briefs, returned, strict=True)]
    values = psnr_of_unseen(
        vae,
        lineup.things,
        count=max(2, counts.unseen),
        side=BASE.width,
        seed=SEED,
        batch_size=batch_size,
    )
    what = "PSNR in the box of unseen drawings"
    mean, interval = fmean(values), interval_of_mean(values)
    return [
        _share("ceiling", "English, top-1, VAE round trips", [v.is_found for v in verdicts]),
        Line("vae", what, len(values), mean, *interval, unit="dB"),
    ], {}


def _check_languages(languages: Sequence[str] | None) -> list[str]:
    chosen = LANGUAGES if languages is None else languages
    for language in chosen:
        if language not in LANGUAGES:
            raise UnknownNameError.among(LANGUAGES, language, kind="language")
    return [code for code in dict.fromkeys(chosen) if code != "en"]


def _share(section: str, what: str, are_right: Sequence[bool]) -> Line:
    right, count = sum(are_right), len(are_right)
    return Line(section, what, count, right / count, *wilson(right, count))


def _shares(
    section: str, outcomes: Sequence[Outcome], part: Callable[[Outcome], str]
) -> list[Line]:
    """One line for each part of a section."""
    return [
        _share(section, name, [outcome.is_right for outcome in group])
        for name, group in groupby(outcomes, part)
    ]


def _settings_of(scheduler: Any) -> dict[str, Any] | None:
    if scheduler is None:
        return None
    return {name: value for name, value in scheduler.config.items() if not name.startswith("_")}


def _choose_shown(trials: Sequence[Trial]) -> list[Trial]:
    """A few of each section for the grid, which takes one size."""
    chosen = []
    for _, group in groupby((t for t in trials if t.size == BASE), lambda t: t.section):
        same_section = list(group)
        chosen += same_section[:: -(-len(same_section) // IN_GRID)]
    return chosen


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
    record = {key: result[key] for key in ("settings", "versions")}
    write_png(folder / GRID, make_grid(pictures, [_label(o) for o, _ in cells]), record)
    text = json.dumps(result, indent=2, ensure_ascii=False)
    (folder / RESULT).write_text(text + "\n", encoding="utf-8")


def _label(outcome: Outcome) -> str:
    trial = outcome.trial
    language = "" if trial.language == "en" else f" ({trial.language})"
    verdict = "right" if outcome.is_right else "WRONG"
    return f"{verdict}: {write(trial.brief, 'en')}{language}"


def _name(size: Size) -> str:
    return f"{size.width}x{size.height}"


def _number(value: float, unit: str) -> str:
    return f"{100 * value:.1f} %" if unit == "share" else f"{value:.2f} dB"


def _say_nothing(text: str) -> None:
    """Take a line of progress, and keep it."""
