"""Measure inpainting and inversion with a shipped model. Run `python benchmarks/tasks_editing.py`.

Inpainting. Each picture is a real drawing of two things side by side (`lumina.worlds`), each in
the middle of its half and so without a part of either at the outline of a mask, half of them on
white and half on a color of the palette. Half of the masks cover the place of one thing (60 x 80
pixels), the others the half of the picture that it is in. A third thing is asked for there, in two
ways: by what is new ("a small cat at the left on a blue background"), which is the way the guide
advises, and by all that is to be seen ("a cat to the left of a dog on a blue background"). The
whole picture is looked at, or ("crop") the mask's box and 4 pixels around it, with "a cat on a
blue background".

- changed outside: largest change of a pixel outside of the mask and its border of 16, in 1/255.
- found: share of pictures in whose masked box the asked thing is the most similar of all drawings
  (`Lineup`); found near: among the five most similar.
- found without a mask: the same prompts and seeds as text to image, the model's own limit.
- gradient: mean absolute difference of neighboring pixels across the outline of the mask, in
  1/255, over all pictures; and how many times as large that is as without a mask at the same
  places: of what the model makes of the same two things ("a cat to the left of a dog"), and of
  the drawings as the autoencoder gives them back.

Inversion. Drawings of one thing are encoded, taken back to noise with their caption, and forth
again with it, without guidance: root mean square of the difference over that of the latents.

Settings were chosen on other things (`shuffled(things, "tune")`) and seeds (from 10000).
"""

import argparse
import json
import platform
import sys
from itertools import groupby
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import diffusers
import numpy as np
import torch
from PIL import Image

import lumina
from lumina.catalog import find
from lumina.evaluation.autoencoder import round_trip
from lumina.evaluation.intervals import interval_of_mean, wilson
from lumina.evaluation.trials import shuffled
from lumina.media import make_grid
from lumina.pipelines.pictures import as_mask, as_pixels, dilate, encode_pixels
from lumina.types import Size
from lumina.worlds.captions import RELATIONS, Brief, stage, write
from lumina.worlds.drawings import PALETTE, paint
from lumina.worlds.judge import Lineup
from lumina.worlds.references import load_references

RESULTS = Path(__file__).parent / "results"
SIZE, STEPS, BORDER = Size(128, 128), 12, 16
BOXES = {
    "left": [(4, 24, 64, 104), (0, 0, 64, 128)],
    "right": [(64, 24, 124, 104), (64, 0, 128, 128)],
    "top": [(24, 4, 104, 64), (0, 0, 128, 64)],
    "bottom": [(24, 64, 104, 124), (0, 64, 128, 128)],
}
FLOORS = {"changed outside": 1, "found": 0.6, "gradient": 1.5, "rms": 0.01}


class Case(NamedTuple):
    """One picture to repaint."""

    seed: int
    picture: Image.Image
    box: tuple[int, int, int, int]
    new: Brief
    pair: Brief

    @property
    def mask(self) -> Image.Image:
        """White over the box."""
        mask = Image.new("L", SIZE)
        mask.paste(255, self.box)
        return mask

    @property
    def alone(self) -> Brief:
        """The new thing as all that there is."""
        return Brief(self.new.things, self.new.background or "white")


def main() -> None:
    """Measure everything, and write it down."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=64)
    parser.add_argument("--inversions", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    folder = find("lumina-mini").folder
    things, drawings = load_references(folder)
    lineup = Lineup(things, drawings)
    pipeline = lumina.load("lumina-mini")
    pipeline.set_progress_bar_config(disable=True)
    cases = make_cases(shuffled(things, "editing"), options.pictures)
    result = {
        "command": " ".join(["python", *sys.argv]),
        "steps": STEPS,
        "dtype": str(pipeline.dtype),
        "lines": [
            *measure_inpainting(pipeline, lineup, cases),
            *measure_inversion(pipeline, shuffled(things, "inversion")[: options.inversions]),
        ],
        "floors": FLOORS,
        "versions": {
            "lumina": lumina.__version__,
            "torch": torch.__version__,
            "diffusers": diffusers.__version__,
            "python": platform.python_version(),
        },
    }
    (RESULTS / "tasks_editing.json").write_text(json.dumps(result, indent=2) + "\n")
    (RESULTS / "tasks_editing.md").write_text(write_table(result))
    print(write_table(result))


def make_cases(things: list[str], count: int) -> list[Case]:
    """Pictures of two things each, and a third thing to put in the place of one."""
    rng = np.random.default_rng(0)
    cases = []
    for seed in range(count):
        first, second, new = things[3 * seed : 3 * seed + 3]
        relation = list(RELATIONS)[seed % 4]
        background = list(PALETTE)[rng.integers(len(PALETTE))] if seed // 8 % 2 else None
        picture = paint(stage(Brief((first, second), background, relation=relation)), SIZE)
        place = RELATIONS[relation][0]
        cases.append(
            Case(
                seed,
                picture,
                BOXES[place][seed // 4 % 2],
                Brief((new,), background, place),
                Brief((new, second), background, relation=relation),
            )
        )
    return sorted(cases, key=lambda case: case.box)


def measure_inpainting(
    pipeline: lumina.LuminaPipeline, lineup: Lineup, cases: list[Case]
) -> list[dict]:
    """All ways to ask, and how like unmasked pictures the outlines are."""
    painter = lumina.LuminaInpaintPipeline.from_pipe(pipeline)
    painter.set_progress_bar_config(disable=True)
    unmasked = draw(pipeline, [case.pair for case in cases], cases)
    returned = round_trip(pipeline.vae, [case.picture for case in cases])
    usual = {"text to image": gradients(cases, unmasked), "autoencoder": gradients(cases, returned)}
    alone = draw(pipeline, [case.new for case in cases], cases)
    limit = [
        lineup.judge(case.new, picture).is_found for case, picture in zip(cases, alone, strict=True)
    ]
    lines = [share("found without a mask, what is new", limit)]
    lines += [mean(f"gradient without a mask, {way}", values) for way, values in usual.items()]
    rows = [np.asarray(case.picture) for case in cases]
    for way, briefs, context in (
        ("what is new", [case.new for case in cases], None),
        ("all that is seen", [case.pair for case in cases], None),
        ("crop", [case.alone for case in cases], 4),
    ):
        painted = repaint(painter, briefs, cases, context)
        lines += judge(way, lineup, cases, painted, usual)
        rows += painted
    shown = [index for index in range(len(rows)) if index % len(cases) % 8 == 0]
    labels = [write(cases[index % len(cases)].new, "en") for index in shown]
    make_grid([Image.fromarray(rows[index]) for index in shown], labels).save(
        RESULTS / "tasks_editing.png"
    )
    return lines


def repaint(
    painter: lumina.LuminaInpaintPipeline,
    briefs: list[Brief],
    cases: list[Case],
    context: int | None,
) -> list[np.ndarray]:
    """All cases, those of one mask at once."""
    painted = []
    asked = zip(briefs, cases, strict=True)
    for _, group in groupby(asked, key=lambda pair: pair[1].box):
        some, same = zip(*group, strict=True)
        painted += painter(
            [write(brief, "en") for brief in some],
            [case.picture for case in same],
            same[0].mask,
            border=BORDER,
            padding_mask_crop=context,
            num_inference_steps=STEPS,
            generator=[torch.Generator().manual_seed(case.seed) for case in same],
        ).images
    return [np.asarray(picture) for picture in painted]


def draw(
    pipeline: lumina.LuminaPipeline, briefs: list[Brief], cases: list[Case], batch: int = 8
) -> list[np.ndarray]:
    """Text to image with the seeds of the cases."""
    pictures = []
    for start in range(0, len(cases), batch):
        part = slice(start, start + batch)
        pictures += pipeline(
            [write(brief, "en") for brief in briefs[part]],
            num_inference_steps=STEPS,
            generator=[torch.Generator().manual_seed(case.seed) for case in cases[part]],
        ).images
    return [np.asarray(picture) for picture in pictures]


def judge(
    way: str, lineup: Lineup, cases: list[Case], painted: list[np.ndarray], usual: dict
) -> list[dict]:
    """What became of one way to ask."""
    verdicts, changes = [], []
    for case, picture in zip(cases, painted, strict=True):
        left, top, right, bottom = case.box
        verdicts.append(lineup.judge(Brief(case.new.things), picture[top:bottom, left:right]))
        difference = np.abs(picture.astype(int) - np.asarray(case.picture, int)).max(-1)
        near = dilate(as_mask(case.mask), BORDER)[0, 0].numpy() > 0
        changes.append(int((difference * ~near).max()))
    steps = gradients(cases, painted)
    return [
        {"what": f"changed outside, {way}", "count": len(cases), "value": max(changes)},
        share(f"found, {way}", [verdict.is_found for verdict in verdicts]),
        share(f"found near, {way}", [verdict.is_near for verdict in verdicts]),
        mean(f"gradient, {way}", steps),
        *(
            {
                "what": f"gradient, {way}, times that of {other}",
                "count": len(cases),
                "value": fmean(steps) / fmean(values),
            }
            for other, values in usual.items()
        ),
    ]


def gradients(cases: list[Case], pictures: list[np.ndarray]) -> list[float]:
    """One for each picture."""
    return [gradient(case, picture) for case, picture in zip(cases, pictures, strict=True)]


def gradient(case: Case, picture: np.ndarray) -> float:
    """Mean absolute difference of neighboring pixels of which the mask covers one."""
    mask = np.asarray(case.mask) > 0
    values = picture.astype(int)
    steps = [
        np.abs(np.diff(values, axis=axis))[np.diff(mask, axis=axis)].ravel() for axis in (0, 1)
    ]
    return float(np.concatenate(steps).mean())


def measure_inversion(pipeline: lumina.LuminaPipeline, things: list[str]) -> list[dict]:
    """How near latents are that go back to noise and forth again."""
    lines = []
    for dtype in dict.fromkeys([pipeline.dtype, torch.float32]):
        rewriter = lumina.LuminaRewritePipeline.from_pipe(pipeline).to(dtype)
        rewriter.set_progress_bar_config(disable=True)
        errors = []
        for seed, thing in enumerate(things):
            brief = Brief((thing,), list(PALETTE)[seed % len(PALETTE)])
            picture, caption = paint(stage(brief), SIZE), write(brief, "en")
            with torch.no_grad():
                data = encode_pixels(rewriter.vae, as_pixels([picture], SIZE))
            options = {"num_inference_steps": STEPS, "guidance_scale": 1.0}
            back = rewriter(caption, picture, caption, output_type="latent", **options).images
            errors.append(((back - data).norm() / data.norm()).item())
        lines.append(mean(f"inversion and back, rms, {str(dtype).removeprefix('torch.')}", errors))
    return lines


def share(what: str, are_right: list[bool]) -> dict:
    """A share with its interval."""
    right, count = sum(are_right), len(are_right)
    low, high = wilson(right, count)
    return {"what": what, "count": count, "value": right / count, "low": low, "high": high}


def mean(what: str, values: list[float]) -> dict:
    """A mean with its interval."""
    low, high = interval_of_mean(values)
    return {"what": what, "count": len(values), "value": fmean(values), "low": low, "high": high}


def write_table(result: dict) -> str:
    """All lines as Markdown."""
    rows = ["| measured | pictures | value | 95 % interval |", "|---|---|---|---|"]
    for line in result["lines"]:
        interval = f"{line['low']:.4g} to {line['high']:.4g}" if "low" in line else ""
        rows.append(f"| {line['what']} | {line['count']} | {line['value']:.4g} | {interval} |")
    versions = result["versions"]
    note = (
        f"{result['steps']} steps, guidance 4, {result['dtype'].removeprefix('torch.')} on a CPU,"
        f" torch {versions['torch']}, diffusers {versions['diffusers']}. What each line means is"
        " at the head of `benchmarks/tasks_editing.py`."
    )
    return "\n".join([*rows, "", note, ""])


if __name__ == "__main__":
    main()
