"""The data of a run: every source found, cropped, encoded once, and fed batch by batch."""

import hashlib
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

from lumina.errors import LuminaError
from lumina.settings import from_table
from lumina.training.data.buckets import Crops, Placed, place_all, place_whole
from lumina.training.data.cache import Cache
from lumina.training.data.encoding import LATENTS, TEXTS, Encoding
from lumina.training.data.examples import Found
from lumina.training.data.feed import Batches, Draw, Feed
from lumina.training.data.precompute import (
    Runner,
    every_text,
    precompute_latents,
    precompute_texts,
    run_alone,
)
from lumina.training.data.report import Report
from lumina.training.data.sources import Source, find_examples, read_sources


class Survey(NamedTuple):
    """What there is to train on.

    Args:
        sources: The sources.
        placed: Of each source, the examples to train on.
        unseen: Examples of all sources that are kept to validate on, shuffled.
        reports: The account of each source, and one of the unseen examples if some are broken.
    """

    sources: list[Source]
    placed: list[list[Placed]]
    unseen: list[Placed]
    reports: list[Report]

    @property
    def everything(self) -> list[Placed]:
        """Examples of all sources, those for validation last."""
        return [one for source in self.placed for one in source] + self.unseen

    def lines(self) -> list[str]:
        """The accounts as lines of text."""
        lines = [line for report in self.reports for line in report.lines()]
        return [*lines, f"{len(self.unseen)} examples are kept to validate on"]


def survey(
    tables: Sequence[Mapping[str, Any]],
    *,
    crops: Mapping[str, Any],
    validation: float,
    modality: str = "image",
    classes: int = 0,
) -> Survey:
    """Find the examples of all sources, and crop those that are pictures; none is decoded.

    Args:
        tables: Tables of the sources.
        crops: Table of the usual sizes.
        validation: Share of examples that are kept to validate on.
        modality: What the examples are to be.
        classes: How many classes are trained on. 0: captions are.

    Raises:
        LuminaError: If a source is missing, is of another modality, has nothing to train on or an
            example of another class, or a picture is too small and that is refused.
    """
    sources = read_sources(tables)
    for source in sources:
        if source.modality != modality:
            raise LuminaError(
                f"{source.title} gives data of the modality {source.modality}, and the run is of"
                f" {modality}",
                hint=f'set modality = "{source.modality}", or take another source',
            )
    placed, unseen, reports = [], [], []
    all_found = find_examples(sources, of_classes=classes > 0)
    for source, found in zip(sources, all_found, strict=True):
        if classes:
            _refuse_other_labels(source, found, classes)
        is_cropped = modality == "image"
        every, report = (
            place_all(found, crops_of(source, crops)) if is_cropped else place_whole(found)
        )
        kept = [one for one in every if _is_unseen(one, validation)]
        used = [one for one in every if not _is_unseen(one, validation)]
        if not used:
            raise LuminaError(
                f"{source.title} has no example left to train on: {len(kept)} validate",
                hint="lower validation",
            )
        placed.append(used)
        unseen += kept
        reports.append(report)
    # In the order of the sources, the first ones would be of one source, or of one class.
    unseen.sort(key=lambda one: _chance(one.example.key))
    return Survey(sources, placed, unseen, reports)


def crops_of(source: Source, usual: Mapping[str, Any]) -> Crops:
    """How pictures of a source are cropped: as it says, as they are painted, or as is usual."""
    painted: Sequence[str] = getattr(source, "sizes", ())
    own = {"sizes": list(painted)} if painted else {}
    return from_table(Crops, {**usual, **own, **source.crops})


def _is_unseen(placed: Placed, share: float) -> bool:
    """Whether an example validates, which depends on its name alone, and on no size."""
    return _chance(placed.example.origin or placed.example.key) < share


def _chance(name: str) -> float:
    """A number in [0, 1) that is always the same for a name."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") / 2**32


def _refuse_other_labels(source: Source, found: Found, classes: int) -> None:
    for example in found.examples:
        if example.label is None or not 0 <= example.label < classes:
            has = "no class" if example.label is None else f"the class {example.label}"
            raise LuminaError(
                f"{example.key} of {source.title} has {has}, not one of 0 to {classes - 1}",
                hint="set classes, or a text_encoder to train on captions",
            )


@dataclass(frozen=True)
class Encoded:
    """A survey whose pictures are all in the cache.

    Args:
        survey: What there is, without pictures that turned out to be broken.
        keys: Of each source, names of the latents of its examples.
        unseen_keys: Names of the latents of those that validate.
        text_keys: Names of the features of all captions; empty if they are not kept.
        cache: Folder of it all.
    """

    survey: Survey
    keys: list[list[str]]
    unseen_keys: list[str]
    text_keys: Mapping[str, str]
    cache: Path

    def open(self) -> tuple[Cache, Cache | None]:
        """The latents, and the features of captions if they are kept."""
        texts = Cache(self.cache / TEXTS) if self.text_keys else None
        return Cache(self.cache / LATENTS), texts


def encode(
    found: Survey, encoding: Encoding, *, with_texts: bool, run: Runner = run_alone
) -> Encoded:
    """Compute what the cache lacks.

    Args:
        found: What there is.
        encoding: What to compute with, and the cache.
        with_texts: Whether features of all captions are kept too.
        run: Where it is computed.

    Raises:
        LuminaError: If a model is missing, the cache cannot be written, or no picture is left.
    """
    placed, keys, reports = [], [], []
    for source, report in zip(found.placed, found.reports, strict=True):
        computed = precompute_latents(source, report, encoding, run=run)
        placed.append(computed.placed)
        keys.append(computed.keys)
        reports.append(computed.report)
    unseen, unseen_keys = [], []
    if found.unseen:
        account = Report("validation", found=len(found.unseen))
        computed = precompute_latents(found.unseen, account, encoding, run=run)
        unseen, unseen_keys = computed.placed, computed.keys
        if computed.report.broken:
            reports.append(computed.report)
    whole = Survey(found.sources, placed, unseen, reports)
    texts = {}
    if with_texts:
        texts = precompute_texts(every_text(whole.everything), encoding, run=run)
    return Encoded(whole, keys, unseen_keys, texts, Path(encoding.cache))


class Stages:
    """Feeds that follow each other, since sources may be drawn from for a part of the run.

    Args:
        found: What there is to train on.
        batches: How examples come together.
        total: Batches of the whole run.
        seed: Of the order and the captions.

    Raises:
        LuminaError: If there is nothing to draw from in a part of the run.
    """

    def __init__(self, found: Survey, batches: Batches, *, total: int, seed: int):
        spans = [(round(s.start * total), round(s.until * total)) for s in found.sources]
        self.starts = sorted({0, *(start for start, _ in spans), *(stop for _, stop in spans)})
        self.starts = [start for start in self.starts if start < total]
        self._active = [
            [number for number, (begin, stop) in enumerate(spans) if begin <= start < stop]
            for start in self.starts
        ]
        if not all(self._active):
            empty = self.starts[self._active.index([])]
            raise LuminaError(
                f"no data at batch {empty} of {total}",
                hint="start and until of the sources must cover the run",
            )
        sizes = {one.size for source in found.placed for one in source}
        pixels = batches.batch_size * max(map(prod, sizes))
        self.feeds = [
            Feed(
                [found.placed[number] for number in active],
                [found.sources[number].weight for number in active],
                batches,
                seed=seed,
                pixels=pixels,
            )
            for active in self._active
        ]

    def check_shares(self, world: int) -> None:
        """Refuse batches that so many processes cannot share evenly.

        Raises:
            LuminaError: If there are such.
        """
        for feed in self.feeds:
            feed.check_shares(world)

    def share(self, number: int, *, rank: int, world: int) -> tuple[list[Draw], int]:
        """A process's part of a batch, and how many pictures all parts have.

        Each draw has the number of its source among all of them.
        """
        stage = bisect_right(self.starts, number) - 1
        draws = self.feeds[stage].share(number, rank=rank, world=world)
        count = len(self.feeds[stage].batch(number)) if world > 1 else len(draws)
        active = self._active[stage]
        return [draw._replace(source=active[draw.source]) for draw in draws], count

    def lines(self) -> list[str]:
        """What the batches are, stage by stage, as lines of text."""
        if len(self.feeds) == 1:
            return self.feeds[0].lines()
        return [
            line
            for start, feed in zip(self.starts, self.feeds, strict=True)
            for line in (f"from batch {start}:", *(f"  {line}" for line in feed.lines()))
        ]
