"""How often a network tells what a picture shows, at sizes that it was and was not trained on."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lumina.errors import LuminaError
from lumina.evaluation.lines import Line, rows_of, share
from lumina.evaluation.results import prepare, say_nothing, versions, write_folder
from lumina.pipelines.recognition import LuminaRecognitionPipeline
from lumina.types import Size
from lumina.worlds.recognition import Gallery, View, draw_view, open_gallery, paint_view

SIZES: Mapping[str, tuple[tuple[float, float], ...]] = {
    "1x": ((1, 1),),
    "1.5x": ((1.5, 1.5),),
    "2x": ((2, 2),),
    "odd aspects": ((2, 1), (1, 2), (2.5, 0.875), (0.875, 2.5)),
}
"""Widths and heights of each section, in sides of the trained size. Views take them in turn."""

QUICK, FULL = 5, 20
"""Views of each class."""

SEED = 1234
IN_GRID = 12  # pictures of each section

_AT_ONCE = 64


def evaluate(
    pipeline: LuminaRecognitionPipeline,
    *,
    full: bool = False,
    progress: Callable[[str], None] = say_nothing,
    output: Path | None = None,
    gallery: Gallery | None = None,
) -> dict[str, Any]:
    """Measure a network on fixed views, the same ones at each size, none of which was trained on.

    Args:
        pipeline: What is measured.
        full: Measure four times as many views.
        progress: What is told how far it is, as text.
        output: Folder for a picture grid and the result. None writes nothing.
        gallery: What views show. None is all drawings, and the digits that are kept for tests.

    Returns:
        What JSON can hold: `lines` (the measured numbers), `confused` (which class was taken for
        which, and how often), and how it all was made.

    Raises:
        LuminaError: If the network was trained on other classes, the output exists or cannot be
            written, or the font or a package is missing.
    """
    began = time.monotonic()
    shown = gallery or open_gallery("test")
    if tuple(pipeline.labels) != shown.names:
        raise LuminaError(
            "the network was trained on other classes than those of the evaluation",
            hint="lumina-mini-recognition was trained on these",
        )
    if output is not None:
        prepare(output)
    views = draw_views(shown, FULL if full else QUICK)
    side = pipeline.transformer.config["sample_size"]
    lines, confused, cells = [], {}, []
    for section, scales in SIZES.items():
        sizes = [Size(round(side * width), round(side * height)) for width, height in scales]
        pictures = [
            Image.fromarray(paint_view(view, shown, sizes[number % len(sizes)]))
            for number, view in enumerate(views)
        ]
        found = _recognize(pipeline, pictures)
        measured = _measure(section, views, found, shown)
        lines += measured
        confused[section] = _confusions(views, found, shown)
        cells += list(zip(pictures, views, found, strict=True))[:: -(-len(views) // IN_GRID)]
        progress(f"{section}: {measured[0].value:.3f} of {len(views)} views")
    result = {
        "lines": [asdict(line) for line in lines],
        "confused": confused,
        "settings": {
            "side": side,
            "positions": pipeline.transformer.config["positions"],
            "dtype": str(pipeline.dtype).removeprefix("torch."),
            "device": str(pipeline.device),
            "seed": SEED,
        },
        "seconds": round(time.monotonic() - began, 1),
        "versions": versions(),
    }
    if output is not None:
        _write(output, result, cells, shown)
    return result


def draw_views(gallery: Gallery, count: int) -> list[View]:
    """So many views of each class, always the same ones, in a mixed order."""
    rng = np.random.default_rng(SEED)
    labels = rng.permutation(np.repeat(np.arange(len(gallery.names)), count))
    return [draw_view(rng, gallery, int(label)) for label in labels]


def table(result: dict[str, Any]) -> str:
    """A result of `evaluate` as text."""
    rows = rows_of([Line(**line) for line in result["lines"]])
    settings = result["settings"]
    rows.append(
        f"{settings['positions']} positions, trained size {settings['side']}x{settings['side']},"
        f" {settings['dtype']} on {settings['device']}, {result['seconds']:.0f} s"
    )
    return "\n".join(rows)


def _recognize(pipeline: LuminaRecognitionPipeline, pictures: list[Image.Image]) -> list[str]:
    parts = range(0, len(pictures), _AT_ONCE)
    guesses = [g for start in parts for g in pipeline(pictures[start : start + _AT_ONCE], top=1)]
    return [guess.label for (guess,) in guesses]


def _measure(
    section: str, views: Sequence[View], found: Sequence[str], gallery: Gallery
) -> list[Line]:
    """Shares of all views, of drawings and of digits that are told right."""
    are_right = [gallery.names[v.label] == name for v, name in zip(views, found, strict=True)]
    are_ink = [gallery.is_ink(view.label) for view in views]
    drawings = [is_right for is_right, is_ink in zip(are_right, are_ink, strict=True) if not is_ink]
    digits = [is_right for is_right, is_ink in zip(are_right, are_ink, strict=True) if is_ink]
    parts = {"all": are_right, "drawings": drawings, "unseen digits": digits}
    return [share(section, what, part) for what, part in parts.items() if part]


def _confusions(views: Sequence[View], found: Sequence[str], gallery: Gallery) -> dict[str, int]:
    """How often a class was taken for another, most often first."""
    counts: dict[str, int] = {}
    for view, name in zip(views, found, strict=True):
        if name != gallery.names[view.label]:
            mistake = f"{gallery.names[view.label]} -> {name}"
            counts[mistake] = counts.get(mistake, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _write(
    folder: Path,
    result: dict[str, Any],
    cells: Sequence[tuple[Image.Image, View, str]],
    gallery: Gallery,
) -> None:
    labels = [
        name if name == gallery.names[view.label] else f"WRONG: {name}" for _, view, name in cells
    ]
    write_folder(folder, result, [picture for picture, *_ in cells], labels)
