"""Teach a shipped model one new thing by LoRA. Run `python benchmarks/lora.py`.

Five pictures of a drawing that the model never saw, with an invented name, are what
`recipes/lora.toml` trains on, beside what the model itself draws of other things. Asked for then:

- the new thing, in 20 prompts, no two alike, with colors (and in 12 of them places) that none of
  the five pictures has: how often is it what the picture resembles most, of all drawings and the
  new one (`Lineup`)?
- other things by their names, before and after, from the same seeds. None of them is among those
  that are drawn to be kept.

The minutes are those of the whole run: drawing what is to be kept, training, and writing the
adapters. The recipe was tried (`--tune`, from other seeds, on other names) with other new things
(`TRIED`) than those that are told (`TOLD`). To see that all of it works, in a minute:

    python benchmarks/lora.py --tune --things 1 --others 4 steps=2 prior_pictures=4 preview_steps=2
"""

import argparse
import dataclasses
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
COLORS = ("blue", "green", "black", "pink", "orange", "purple", "sky blue", "brown")
UNSEEN_PLACES = ("right", "bottom")
OTHERS = 100


def main() -> None:
    """Measure, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="lumina-mini")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tune", action="store_true", help="measure what the recipe is tried on")
    parser.add_argument(
        "--things", type=int, default=2, help="new things, each in a run of its own"
    )
    parser.add_argument("--others", type=int, default=OTHERS, help="other things, for what is lost")
    parser.add_argument(
        "--output", type=Path, help="folder of results (default, without --tune: here)"
    )
    parser.add_argument("settings", nargs="*", metavar="key=value", help="changes to the recipe")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows, cells = [], []
    for number, thing in enumerate((TRIED if options.tune else TOLD)[: options.things]):
        row, pictures = measure(thing, number, options)
        rows.append(row)
        cells += pictures
        print(json.dumps(row, ensure_ascii=False), flush=True)
    output = options.output or (None if options.tune else RESULTS)
    if output is not None:
        write_results(rows, cells, output)


def measure(thing: str, number: int, options: argparse.Namespace) -> tuple[dict, list]:
    """Figures of one new thing, and what was drawn of it."""
    things, drawings = load_references(find(options.model).folder)
    lineup = Lineup([*things, thing], np.concatenate([drawings, reference(thing)[None]]))
    start = 10000 if options.tune else 0
    others = shuffled(things, "tune" if options.tune else "lora")[: options.others]
    asked = [Brief((other,)) for other in others]
    pipeline = lumina.load(options.model)
    pipeline.set_progress_bar_config(disable=True)
    before = judge(lineup, asked, draw(pipeline, [write(b, "en") for b in asked], start))
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        kept = [one for one in things if one not in others]
        out = train_on(thing, Path(folder), number, kept, options)
        minutes = (time.perf_counter() - began) / 60
        pipeline.load_lora_weights(str(out))
    after = judge(lineup, asked, draw(pipeline, [write(b, "en") for b in asked], start))
    briefs = unseen(thing)
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
        "others": len(others),
    }
    return row, [(Image.fromarray(p), t) for p, t in zip(made, prompts, strict=True)]


def train_on(
    thing: str, folder: Path, number: int, kept: list[str], options: argparse.Namespace
) -> Path:
    """Train on five pictures of a thing, and return the folder of the adapters.

    Args:
        thing: The new one.
        folder: For the pictures and the run.
        number: Of the thing.
        kept: Things that are drawn before, for the model not to forget how.
        options: Of the command.
    """
    data = folder / "pictures"
    data.mkdir()
    rng = np.random.default_rng(number)
    for index, (color, place) in enumerate(SHOWN):
        brief = Brief((thing,), color, place)
        paint(stage(brief, rng), SIZE).save(data / f"{index}.png")
        (data / f"{index}.txt").write_text(caption(brief))
    parts = ("start_from", "autoencoder", "text_encoder")
    settings = [f"out={folder / 'run'}", f"data.0.path={data}"]
    settings += [f"{part}={options.model}" for part in parts] + options.settings
    recipe = load(RECIPE, settings)
    # What is kept is asked for as everything was in training, and never by held-out combinations.
    prompts = tuple(
        write(draw_brief(rng, kept, pairs=0.0), "en") for _ in range(recipe.prior_pictures)
    )
    return train(dataclasses.replace(recipe, prior_prompts=prompts))


def unseen(thing: str) -> list[Brief]:
    """Twenty different wishes for a thing, in colors and places that were not shown."""
    alone = [Brief((thing,), color) for color in COLORS]
    right, bottom = ([Brief((thing,), color, place) for color in COLORS] for place in UNSEEN_PLACES)
    return [*alone, *right[:6], *bottom[2:]]


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


def write_results(rows: list[dict], cells: list, output: Path) -> None:
    """Write the figures and the pictures."""
    output.mkdir(parents=True, exist_ok=True)
    versions = {"lumina": lumina.__version__, "torch": torch.__version__}
    versions["python"] = platform.python_version()
    command = "python benchmarks/lora.py " + " ".join(sys.argv[1:])
    result = {"command": command.strip(), "rows": rows, "versions": versions}
    (output / "lora.json").write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n")
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
    found, of = (sum(row[name] for row in rows) for name in ("found", "of"))
    lost = sum(row["others before"] - row["others after"] for row in rows)
    share = lost / sum(row["others"] for row in rows)
    lines += ["", f"In all {found / of:.1%} of the new, and {share:.1%} of the others lost."]
    lines += ["", "![What was drawn of the new things](lora.png)"]
    (output / "lora.md").write_text("\n".join(lines) + "\n")
    make_grid([picture for picture, _ in cells], [text for _, text in cells]).save(
        output / "lora.png"
    )


if __name__ == "__main__":
    main()
