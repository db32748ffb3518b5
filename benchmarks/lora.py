"""Teach a shipped model one new thing by LoRA. Run `python benchmarks/lora.py`.

Five pictures of a drawing that the model never saw, with an invented name, are what
`recipes/lora.toml` trains on, beside what the model itself draws of other things. Asked for then:

- the new thing, in 20 prompts with colors and places that none of the five pictures has: how often
  is it what the picture resembles most, of all drawings and the new one (`Lineup`)?
- other things by their names, before and after, from the same seeds.

The recipe was tried on other new things (`TRIED`) than those that are told (`TOLD`).
"""

import argparse
import json
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import lumina
from lumina.catalog import find
from lumina.evaluation.intervals import wilson
from lumina.evaluation.trials import shuffled
from lumina.media import make_grid
from lumina.training.recipes import load
from lumina.training.trainer import train
from lumina.types import Size
from lumina.worlds.captions import Brief, draw_brief, stage, write
from lumina.worlds.drawings import paint, reference
from lumina.worlds.judge import Lineup
from lumina.worlds.references import load_references

RESULTS = Path(__file__).parent / "results"
RECIPE = Path(__file__).parents[1] / "recipes" / "lora.toml"
NAME = "zibbo"
TRIED = ("\U0001f1ef\U0001f1f5", "\U0001f9d1\u200d\U0001f692")
TOLD = ("\U0001f9d1\u200d\U0001f680", "\U0001f1e7\U0001f1f7")  # an astronaut, the flag of Brazil
SIZE, STEPS = Size(128, 128), 12
SHOWN = (  # the five pictures: their backgrounds and places
    (None, None),
    ("red", None),
    ("gray", None),
    (None, "left"),
    ("yellow", "top"),
)
COLORS = (
    "blue",
    "green",
    "black",
    "pink",
    "orange",
    "purple",
    "sky blue",
    "brown",
    "green",
    "blue",
)
PLACES = ("right", "bottom", "right", "bottom", "right", "bottom", "left", "top", "left", "top")
OTHERS = 100


def main() -> None:
    """Measure, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="lumina-mini")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tune", action="store_true", help="measure what the recipe is tried on")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="changes to the recipe")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows, cells = [], []
    for number, thing in enumerate(TRIED if options.tune else TOLD):
        row, pictures = measure(thing, number, options)
        rows.append(row)
        cells += pictures
        print(json.dumps(row), flush=True)
    if options.tune:
        make_grid([picture for picture, _ in cells], [text for _, text in cells]).save(
            "/tmp/lora.png"
        )
        return
    write_results(rows, cells)


def measure(thing: str, number: int, options: argparse.Namespace) -> tuple[dict, list]:
    """Figures of one new thing, and what was drawn of it."""
    things, drawings = load_references(find(options.model).folder)
    lineup = Lineup([*things, thing], np.concatenate([drawings, reference(thing)[None]]))
    start = 10000 if options.tune else 0
    others = shuffled(things, "tune" if options.tune else "lora")[:OTHERS]
    asked = [Brief((other,)) for other in others]
    pipeline = lumina.load(options.model)
    pipeline.set_progress_bar_config(disable=True)
    before = judge(lineup, asked, draw(pipeline, [write(b, "en") for b in asked], start))
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        out = train_on(thing, Path(folder), number, things, options)
        minutes = (time.perf_counter() - began) / 60
        pipeline.load_lora_weights(str(out))
    after = judge(lineup, asked, draw(pipeline, [write(b, "en") for b in asked], start))
    briefs = [Brief((thing,), color) for color in COLORS]
    briefs += [Brief((thing,), color, place) for color, place in zip(COLORS, PLACES, strict=True)]
    prompts = [caption(brief) for brief in briefs]
    made = draw(pipeline, prompts, start + 1000)
    found = judge(lineup, briefs, made)
    row = {
        "thing": thing,
        "minutes": round(minutes, 1),
        "found": sum(found),
        "of": len(found),
        "interval": [round(x, 3) for x in wilson(sum(found), len(found))],
        "others before": sum(before),
        "others after": sum(after),
        "others": OTHERS,
    }
    return row, [(Image.fromarray(p), t) for p, t in zip(made, prompts, strict=True)]


def train_on(
    thing: str, folder: Path, number: int, things: list[str], options: argparse.Namespace
) -> Path:
    """Train on five pictures of a thing, and return the folder of the adapters."""
    data = folder / "pictures"
    data.mkdir()
    rng = np.random.default_rng(number)
    for index, (color, place) in enumerate(SHOWN):
        brief = Brief((thing,), color, place)
        paint(stage(brief, rng), SIZE).save(data / f"{index}.png")
        (data / f"{index}.txt").write_text(caption(brief))
    prompts = [
        write(draw_brief(rng, things, pairs=0.0), "en") for _ in range(96)
    ]  # never of held-out combinations
    recipe = load(
        RECIPE,
        [
            f"out={folder / 'run'}",
            f"data.0.path={data}",
            f"start_from={options.model}",
            f"autoencoder={options.model}",
            f"text_encoder={options.model}",
            f"prior_prompts={json.dumps(prompts)}",
            *options.settings,
        ],
    )
    return train(recipe)


def caption(brief: Brief) -> str:
    """What a prompt calls the new thing in a brief."""
    text = f"a small {NAME} at the {brief.place}" if brief.place else f"a {NAME}"
    return f"{text} on a {brief.background} background" if brief.background else text


def draw(pipeline: Any, prompts: list[str], start: int) -> list[np.ndarray]:
    """Pictures of prompts, from seeds that follow each other."""
    made = []
    for first in range(0, len(prompts), 10):
        some = prompts[first : first + 10]
        images = pipeline(
            some,
            width=SIZE.width,
            height=SIZE.height,
            num_inference_steps=STEPS,
            generator=[torch.Generator().manual_seed(start + first + i) for i in range(len(some))],
            output_type="np",
        ).images
        made += list((images * 255).round().astype(np.uint8))
    return made


def judge(lineup: Lineup, briefs: list[Brief], made: list[np.ndarray]) -> list[bool]:
    """Whether each picture shows what its brief asks for."""
    return [
        lineup.judge(brief, pixels).is_found for brief, pixels in zip(briefs, made, strict=True)
    ]


def write_results(rows: list[dict], cells: list) -> None:
    """Write the figures and the pictures."""
    versions = {"lumina": lumina.__version__, "torch": torch.__version__}
    versions["python"] = platform.python_version()
    command = "python benchmarks/lora.py " + " ".join(sys.argv[1:])
    result = {"command": command.strip(), "rows": rows, "versions": versions}
    (RESULTS / "lora.json").write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n")
    lines = [
        f"`{result['command']}`, torch {torch.__version__}:",
        "",
        "| new thing | minutes | found in 20 prompts | 95 % interval | others before | after |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        low, high = row["interval"]
        lines.append(
            f"| {row['thing']} | {row['minutes']} | {row['found']} | {low:.0%} to {high:.0%} |"
            f" {row['others before']} of {row['others']} | {row['others after']} |"
        )
    lines += ["", "![What was drawn of the new things](lora.png)"]
    (RESULTS / "lora.md").write_text("\n".join(lines) + "\n")
    make_grid([picture for picture, _ in cells], [text for _, text in cells]).save(
        RESULTS / "lora.png"
    )


if __name__ == "__main__":
    main()
