"""Measure composition of regions, and sets of pictures in one style, with lumina-mini.

Run `python benchmarks/tasks_regions.py compose` and `python benchmarks/tasks_regions.py style`.
Each writes `results/tasks_compose.json` or `results/tasks_style.json`, and sheets of its first
pictures. Settings were chosen on other things and other seeds.

Composition: canvases of 256x256 pixels with 2, 3 and 4 regions in turn, at random places that do
not overlap, each side 96 to 128 pixels in steps of 8. Each region asks for a thing, with or
without a background color, equally often. It holds its thing if its crop resembles the drawing of
that thing more than that of any other of the vocabulary. The crop leaves out the soft border, half
of which lies in the region. Beside it: the same with hard borders, where the crop is the whole
region; attention to regional prompts without windows; and "alone", each region as a picture of its
own, which shows what the model can draw at that size.

Style: sets of 4 pictures, the first of which names a background color in its prompt, and the
others none. Who wants one look wants that background in all of them. So the color variance of a
set is the variance over its pictures of the background color (the median of the outermost two
pixels, as RGB in [0, 1]), summed over the channels. Each set is drawn from the same seeds without
sharing and with it; the figure is the ratio of the mean variances. Its interval is that of the
mean of the variances with sharing, divided by the mean without. Things are found as above.
"follow" is the share of the other pictures whose background is nearest to the color that the first
one names. Beside it: "asked in words", where all four prompts name the color.
"""

import argparse
import json
import platform
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import diffusers
import numpy as np
import torch
from PIL import Image

import lumina
from lumina import catalog
from lumina.evaluation.intervals import interval_of_mean, wilson
from lumina.evaluation.trials import shuffled
from lumina.worlds.captions import Brief, write
from lumina.worlds.drawings import PALETTE
from lumina.worlds.judge import Lineup, cut_out, nearest_color
from lumina.worlds.references import load_references
from lumina.worlds.vocabulary import shipped_things

RESULTS = Path(__file__).parent / "results"
SIDE = 256
SIDES = range(96, 129, 8)
BORDER = 16
SET = 4
SHEET = 8
WAYS = {
    "windows, soft borders": {"border": BORDER},
    "windows, hard borders": {"border": 0},
    "attention alone": {"border": BORDER, "windows_until": 0.0},
}


class Canvas(NamedTuple):
    """What to compose."""

    seed: int
    briefs: list[Brief]
    boxes: list[tuple[int, int, int, int]]

    @property
    def regions(self) -> list[lumina.Region]:
        """The regions, in the order of the briefs."""
        return [
            lumina.Region(write(brief, "en"), box)
            for brief, box in zip(self.briefs, self.boxes, strict=True)
        ]


def main() -> None:
    """Measure, and write down what came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=["compose", "style"])
    parser.add_argument("--count", type=int, default=24, help="canvases or sets")
    parser.add_argument("--ways", nargs="*", default=list(WAYS) + ["alone"])
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    lineup = Lineup(*load_references(catalog.WEIGHTS / "lumina-mini"))
    if options.task == "compose":
        measured = measure_compositions(lineup, options.count, options.ways)
    else:
        measured = measure_sets(lineup, options.count)
    result = {
        "command": " ".join(["python", *sys.argv]),
        "steps": catalog.find("lumina-mini").defaults["steps"],
        "versions": {
            "lumina": lumina.__version__,
            "torch": torch.__version__,
            "diffusers": diffusers.__version__,
            "python": platform.python_version(),
        },
    } | measured
    path = RESULTS / f"tasks_{options.task}.json"
    path.write_text(json.dumps(result, indent=2) + "\n")
    table = as_table(result)
    path.with_suffix(".md").write_text(table)
    print(table)


def measure_compositions(lineup: Lineup, count: int, ways: list[str]) -> dict:
    """For each way, the share of regions that hold their thing."""
    pipeline = lumina.LuminaComposePipeline.from_pipe(load())
    pipeline.set_progress_bar_config(disable=True)
    found = {}
    for way in ways:
        start, right, pictures = time.monotonic(), [], []
        for canvas in draw_canvases(count):
            if way == "alone":
                crops = [
                    draw_alone(pipeline, canvas, number) for number in range(len(canvas.briefs))
                ]
            else:
                picture = draw_canvas(pipeline, canvas, WAYS[way])
                pictures.append(picture)
                crops = [crop(picture, box, WAYS[way]["border"] // 2) for box in canvas.boxes]
            right += [
                lineup.judge(brief, pixels).is_found
                for brief, pixels in zip(canvas.briefs, crops, strict=True)
            ]
        if pictures and way == ways[0]:
            save_sheet(pictures[:SHEET], "tasks_compose", columns=4)
        found[way] = share(right) | {"seconds": round(time.monotonic() - start)}
        print(way, found[way], flush=True)
    return {"canvases": count, "regions_that_hold_their_thing": found}


def draw_canvases(count: int) -> Iterator[Canvas]:
    """As many canvases, always the same."""
    things = iter(shuffled(shipped_things(), "compose"))
    for seed in range(count):
        rng = np.random.default_rng([seed, *b"compose"])
        briefs = [
            Brief((next(things),), str(rng.choice(list(PALETTE))) if rng.random() < 0.5 else None)
            for _ in range(2 + seed % 3)
        ]
        yield Canvas(seed, briefs, draw_boxes(rng, len(briefs)))


def draw_boxes(rng: np.random.Generator, count: int) -> list[tuple[int, int, int, int]]:
    """Boxes at random places, drawn anew until none overlap."""
    while True:
        boxes = []
        for _ in range(count):
            width, height = (int(rng.choice(SIDES)) for _ in range(2))
            left, top = (8 * int(rng.integers((SIDE - side) // 8 + 1)) for side in (width, height))
            boxes.append((left, top, width, height))
        covered = np.zeros((SIDE, SIDE), int)
        for left, top, width, height in boxes:
            covered[top : top + height, left : left + width] += 1
        if covered.max() == 1:
            return boxes


def draw_canvas(pipeline: Any, canvas: Canvas, options: dict) -> Image.Image:
    """The picture of a canvas, from the seed of its number."""
    return pipeline(
        canvas.regions,
        width=SIDE,
        height=SIDE,
        num_inference_steps=catalog.find("lumina-mini").defaults["steps"],
        generator=torch.Generator().manual_seed(canvas.seed),
        **options,
    ).images[0]


def draw_alone(pipeline: Any, canvas: Canvas, number: int) -> np.ndarray:
    """One region as a picture of its own, at the nearest size above it."""
    _, _, *sides = canvas.boxes[number]
    width, height = (-(-side // 16) * 16 for side in sides)
    region = lumina.Region(write(canvas.briefs[number], "en"), (0, 0, width, height))
    return np.asarray(
        pipeline(
            [region],
            width=width,
            height=height,
            num_inference_steps=catalog.find("lumina-mini").defaults["steps"],
            generator=torch.Generator().manual_seed(canvas.seed),
        ).images[0]
    )


def crop(picture: Image.Image, box: tuple[int, int, int, int], margin: int) -> np.ndarray:
    """The pixels of a region, less a margin on each side."""
    left, top, width, height = box
    rows = slice(top + margin, top + height - margin)
    return np.asarray(picture)[rows, left + margin : left + width - margin]


def measure_sets(lineup: Lineup, count: int) -> dict:
    """What sharing does to the color variance, and to things that are found."""
    pipeline = lumina.LuminaStylePipeline.from_pipe(load())
    pipeline.set_progress_bar_config(disable=True)
    measured = {}
    for way in ("independent", "shared", "asked in words"):
        start, sets = time.monotonic(), []
        for number, briefs in enumerate(draw_sets(count)):
            if way == "asked in words":
                briefs = [replace(brief, background=briefs[0].background) for brief in briefs]
            options = {} if way == "shared" else {"sharing": 0.0}
            sets.append(draw_set(pipeline, briefs, number, options))
        save_sheet(
            [one for some in sets[:4] for one in some],
            f"tasks_style_{way.replace(' ', '_')}",
            columns=SET,
        )
        measured[way] = judge_sets(lineup, list(draw_sets(count)), sets)
        measured[way]["seconds"] = round(time.monotonic() - start)
        print(way, measured[way], flush=True)
    before = measured["independent"]["color_variance"]
    shared = measured["shared"]
    return {
        "sets": count,
        "pictures_of": measured,
        "color_variance_ratio": round(shared["color_variance"] / before, 3),
        "ratio_interval": [round(end / before, 3) for end in shared["color_variance_interval"]],
    }


def draw_sets(count: int) -> Iterator[list[Brief]]:
    """As many sets, always the same; white is no color to follow, since it is the usual one."""
    things = iter(shuffled(shipped_things(), "style"))
    colors = [color for color in PALETTE if color != "white"]
    for number in range(count):
        color = str(np.random.default_rng([number, *b"style"]).choice(colors))
        yield [Brief((next(things),), color if place == 0 else None) for place in range(SET)]


def draw_set(pipeline: Any, briefs: list[Brief], number: int, options: dict) -> Any:
    """The pictures of a set, from seeds that no other set has."""
    return pipeline(
        [write(brief, "en") for brief in briefs],
        num_inference_steps=catalog.find("lumina-mini").defaults["steps"],
        generator=[torch.Generator().manual_seed(SET * number + place) for place in range(SET)],
        **options,
    ).images


def judge_sets(lineup: Lineup, briefs: list[list[Brief]], sets: list[list[Image.Image]]) -> dict:
    """Color variances and shares over all sets."""
    variances, found, followed = [], [], []
    for asked, pictures in zip(briefs, sets, strict=True):
        pixels = [np.asarray(picture) for picture in pictures]
        backgrounds = np.stack([cut_out(one).background for one in pixels])
        variances.append(float((backgrounds / 255).var(0).sum()))
        found += [
            lineup.judge(Brief(brief.things), one).is_found
            for brief, one in zip(asked, pixels, strict=True)
        ]
        followed += [nearest_color(color) == asked[0].background for color in backgrounds[1:]]
    return {
        "color_variance": float(np.mean(variances)),
        "color_variance_interval": list(interval_of_mean(variances)),
        "things": share(found),
        "follow": share(followed),
    }


def share(right: list[bool]) -> dict:
    """A share with its interval."""
    low, high = wilson(sum(right), len(right))
    return {
        "found": sum(right),
        "of": len(right),
        "share": round(sum(right) / len(right), 3),
        "interval": [round(low, 3), round(high, 3)],
    }


def as_table(result: dict) -> str:
    """The figures in Markdown, with what they were measured on."""
    if "sets" in result:
        rows = ["| way | color variance | follow the first | things found |", "|---|---|---|---|"]
        rows += [
            f"| {way} | {found['color_variance']:.4f} | {as_percent(found['follow'])}"
            f" | {as_percent(found['things'])} |"
            for way, found in result["pictures_of"].items()
        ]
        low, high = result["ratio_interval"]
        rows += ["", f"Ratio of the variances: {result['color_variance_ratio']} ({low} to {high})."]
    else:
        rows = ["| way | regions that hold their thing |", "|---|---|"]
        rows += [
            f"| {way} | {as_percent(found)} |"
            for way, found in result["regions_that_hold_their_thing"].items()
        ]
    versions = result["versions"]
    settings = f"`{result['command']}`, lumina-mini, {result['steps']} steps, guidance 4, CPU, "
    settings += f"torch {versions['torch']}. Intervals are of 95 %."
    return "\n".join([*rows, "", settings]) + "\n"


def as_percent(found: dict) -> str:
    """A share with its interval, in words."""
    low, high = (100 * end for end in found["interval"])
    return f"{100 * found['share']:.1f} % of {found['of']} ({low:.1f} to {high:.1f})"


def load() -> Any:
    """The shipped model."""
    return lumina.load("lumina-mini")


def save_sheet(pictures: list[Image.Image], name: str, *, columns: int) -> None:
    """Pictures side by side."""
    width, height = pictures[0].size
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * width, rows * height), "white")
    for number, picture in enumerate(pictures):
        sheet.paste(picture, (number % columns * width, number // columns * height))
    sheet.save(RESULTS / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
