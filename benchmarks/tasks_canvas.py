"""Measure anagrams, wrapped canvases, two stages and interpolation with a shipped model.

Run `python benchmarks/tasks_canvas.py`, or with `--only anagram` and so on. Writes
`results/tasks_canvas.json` and `results/tasks_canvas.md`; parts that are left out keep what was
measured before.

- anagram: one thing upright and one turned by 180 degrees. The first of each pair are the things
  of `shuffled(things, "anagram")` in their order, none left out. "Random pairs": the second is
  drawn from all things. "Suited pairs": of 20 things drawn so, the second is the one whose drawing,
  turned, is nearest to that of the first (mean square over RGB on white), chosen from the reference
  drawings before any picture is made. A picture is right if, upright, the first thing is in the top
  five of the lineup of all things and, turned, the second is. No picture is drawn twice. "Plain
  pictures" are of the first thing alone and judged alike: what a pair is worth by itself. Suited
  pairs were added after random ones had stayed below 0.4 in tuning; their choice uses the same
  drawings as the judge, so read both.
- wrap: change of pixels across the edges that meet, against the change between the 32 columns (or
  rows) on either side of them, both as means over all pictures.
- upscale: pictures of 256x256 of things whose drawing is one connected part. A picture is right if
  what is cut out of it is one connected part, and the thing is the first of the lineup. Two stages
  against one, from the same seeds.
- interpolate: eight frames from one thing to another with the same noise. The largest change
  between two frames, against the mean change: 1 is an even way. Both ends have to be found.

Settings were chosen on things of `shuffled(things, "tune")` and seeds from 10000 on.
"""

import argparse
import json
import platform
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from jaxtyping import Float, UInt8

import lumina
from lumina.catalog import find
from lumina.evaluation.claims.components import split_parts
from lumina.evaluation.intervals import interval_of_mean, wilson
from lumina.evaluation.trials import shuffled
from lumina.worlds.captions import Brief, write
from lumina.worlds.judge import Lineup, cut_out
from lumina.worlds.references import load_references

RESULTS = Path(__file__).parent / "results"
STEPS = 12
NEAR = 32  # pixels on either side of an edge that its change is compared with
BATCH = 4
CANDIDATES = 20  # things that the partner of a suited pair is chosen from
TOP = 5
SCENES = ("a rainbow", "a fish", "a strawberry", "a tree on a sky blue background")


def main() -> None:
    """Measure what was asked for, and write down what came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="lumina-mini", help="a name of the catalog")
    parser.add_argument("--only", nargs="*", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--pictures", type=int, default=60, help="of each part")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--output", type=Path, default=RESULTS / "tasks_canvas.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    world = World(options.model)
    for part in options.only:
        figures = PARTS[part](world, options.pictures)
        figures["command"] = " ".join(["python", *sys.argv])
        write_part(part, figures, model=options.model, path=options.output)
    print(options.output.with_suffix(".md").read_text())


def write_part(part: str, figures: dict, *, model: str, path: Path) -> None:
    """Write down what came out, beside the other parts."""
    result: dict[str, Any] = {"parts": {}}
    if path.exists():
        result = json.loads(path.read_text())
    result["parts"][part] = figures
    result |= {"model": model, "steps": STEPS, "versions": versions()}
    path.write_text(json.dumps(result, indent=2) + "\n")
    path.with_suffix(".md").write_text(write_table(result))


class World:
    """A model, and the things that it draws."""

    def __init__(self, model: str):
        self.pipeline = lumina.load(model)
        self.pipeline.set_progress_bar_config(disable=True)
        self.things, self.drawings = load_references(find(model).folder)
        self.lineup = Lineup(self.things, self.drawings)

    def rank(self, thing: str, pixels: UInt8[np.ndarray, "rows cols 3"]) -> int:
        """How many things a picture resembles more than this one."""
        return self.lineup.judge(Brief((thing,)), pixels).ranks[0]

    def is_one_part(self, thing: str) -> bool:
        """Whether the drawing of a thing hangs together."""
        opacity = self.drawings[self.things.index(thing), ..., 3]
        return len(split_parts(opacity > 127)) == 1

    def task(self, kind: type) -> Any:
        """A pipeline of another task with the same parts."""
        pipeline = kind.from_pipe(self.pipeline)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline


def measure_anagrams(world: World, pictures: int) -> dict:
    """Pairs of things, one of them upside down."""
    result: dict[str, Any] = {"pictures": pictures}
    for kind, candidates in (("random", 1), ("suited", CANDIDATES)):
        pairs = choose_pairs(world, pictures, candidates=candidates)
        anagrams = [draw_anagram(world, pair, seed) for seed, pair in enumerate(pairs)]
        plain = [
            draw(world.pipeline, caption(upright), seeds=[seed])[0]
            for seed, (upright, _) in enumerate(pairs)
        ]
        for name, drawn in (("anagrams", anagrams), ("plain pictures", plain)):
            ranks = np.array([rank_both(world, *each) for each in zip(pairs, drawn, strict=True)])
            result |= {
                f"{kind} pairs, {name}: both in the top five": share(ranks.max(1) < TOP),
                f"{kind} pairs, {name}: both first": share(ranks.max(1) < 1),
                f"{kind} pairs, {name}: upright in the top five": share(ranks[:, 0] < TOP),
                f"{kind} pairs, {name}: turned in the top five": share(ranks[:, 1] < TOP),
            }
    return result


def choose_pairs(world: World, count: int, *, candidates: int) -> list[tuple[str, str]]:
    """Things, each with the one of some candidates that is most like it when it is turned."""
    rng = np.random.default_rng(0)
    opacity = world.drawings[..., 3:].astype(np.float32) / 255
    on_white = world.drawings[..., :3] / np.float32(255) * opacity + 1 - opacity
    pairs = []
    for upright in shuffled(world.things, "anagram")[:count]:
        others = [thing for thing in world.things if thing != upright]
        drawn = rng.choice(len(others), candidates, replace=False)
        indices = [world.things.index(others[number]) for number in drawn]
        turned = on_white[indices][:, ::-1, ::-1]
        distances = np.square(turned - on_white[world.things.index(upright)]).mean((1, 2, 3))
        pairs.append((upright, world.things[indices[int(distances.argmin())]]))
    return pairs


def draw_anagram(
    world: World, pair: tuple[str, str], seed: int
) -> UInt8[np.ndarray, "rows cols 3"]:
    """One picture of a pair."""
    pipeline = world.task(lumina.LuminaAnagramPipeline)
    upright, turned = pair
    views = [("identity", caption(upright)), ("rotate180", caption(turned))]
    return draw(pipeline, views, seeds=[seed])[0]


def rank_both(
    world: World, pair: tuple[str, str], pixels: UInt8[np.ndarray, "rows cols 3"]
) -> tuple[int, int]:
    """Ranks of the first thing upright and of the second turned."""
    upright, turned = pair
    there = np.ascontiguousarray(pixels[::-1, ::-1])
    return world.rank(upright, pixels), world.rank(turned, there)


def measure_wraps(world: World, pictures: int) -> dict:
    """Panoramas whose sides meet, and tiles."""
    pipeline = world.task(lumina.LuminaPanoramaPipeline)
    each = max(1, pictures // (2 * len(SCENES)))
    across = {"panorama, x": [], "tile, x": [], "tile, y": []}
    for scene in SCENES:
        for seed in range(each):
            wide = draw(pipeline, scene, seeds=[seed], width=256, height=128, wraps="x")[0]
            tile = draw(pipeline, scene, seeds=[seed], width=128, height=128, wraps="both")[0]
            across["panorama, x"].append(edge_changes(wide))
            across["tile, x"].append(edge_changes(tile))
            across["tile, y"].append(edge_changes(tile.swapaxes(0, 1)))
    ratios = {
        f"change across edges, {name}": float(np.divide(*np.mean(changes, axis=0)))
        for name, changes in across.items()
    }
    return {"pictures": 2 * each * len(SCENES), **ratios}


def edge_changes(pixels: UInt8[np.ndarray, "rows cols 3"]) -> tuple[float, float]:
    """Mean change from the last column to the first, and between columns near both."""
    values = pixels.astype(np.float64)
    changes = np.abs(np.roll(values, -1, axis=1) - values).mean((0, 2))
    return float(changes[-1]), float(
        np.concatenate([changes[:NEAR], changes[-1 - NEAR : -1]]).mean()
    )


def measure_upscaling(world: World, pictures: int) -> dict:
    """Things at twice the trained size, in two stages and in one."""
    chosen = [thing for thing in shuffled(world.things, "upscale") if world.is_one_part(thing)]
    chosen = chosen[:pictures]
    size = {"width": 256, "height": 256}
    ways = {
        "two stages": world.task(lumina.LuminaUpscalePipeline),
        "one stage": world.task(lumina.LuminaPipeline),
    }
    result: dict[str, Any] = {"pictures": len(chosen)}
    for way, pipeline in ways.items():
        drawn = [
            pixels
            for seeds in batches(range(len(chosen)))
            for pixels in draw(
                pipeline, [caption(chosen[seed]) for seed in seeds], seeds=seeds, **size
            )
        ]
        is_one = np.array([len(split_parts(cut_out(pixels).mask)) == 1 for pixels in drawn])
        is_found = np.array([world.rank(*pair) == 0 for pair in zip(chosen, drawn, strict=True)])
        result |= {
            f"{way}: one part and found": share(is_one & is_found),
            f"{way}: one part": share(is_one),
            f"{way}: found": share(is_found),
        }
    return result


def measure_interpolation(world: World, pictures: int) -> dict:
    """Ways from one thing to another."""
    pipeline = world.task(lumina.LuminaInterpolationPipeline)
    order, frames = shuffled(world.things, "interpolate"), 8
    ways = max(2, pictures // frames)
    unevenness, found = [], []
    for seed in range(ways):
        ends = order[2 * seed : 2 * seed + 2]
        generator = torch.Generator().manual_seed(seed)
        drawn = to_bytes(
            pipeline(
                [caption(thing) for thing in ends],
                frames=frames,
                generators=generator,
                num_inference_steps=STEPS,
                output_type="np",
            ).images
        )
        changes = np.abs(np.diff(drawn.astype(np.float64), axis=0)).mean((1, 2, 3))
        unevenness.append(changes.max() / changes.mean())
        found += [world.rank(ends[0], drawn[0]) == 0, world.rank(ends[1], drawn[-1]) == 0]
    low, high = interval_of_mean(unevenness)
    return {
        "ways": ways,
        "largest change of mean change": [float(np.mean(unevenness)), low, high],
        "ends found": share(np.array(found)),
    }


PARTS: dict[str, Callable[[World, int], dict]] = {
    "anagram": measure_anagrams,
    "wrap": measure_wraps,
    "upscale": measure_upscaling,
    "interpolate": measure_interpolation,
}


def caption(thing: str) -> str:
    """What a thing is asked for by."""
    return write(Brief((thing,)), "en")


def draw(
    pipeline: Any, prompt: Any, *, seeds: list[int], **arguments: Any
) -> UInt8[np.ndarray, "b rows cols 3"]:
    """Pictures of a call."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    defaults = {"num_inference_steps": STEPS, "output_type": "np", "generator": generators}
    return to_bytes(pipeline(prompt, **defaults | arguments).images)


def to_bytes(pixels: Float[np.ndarray, "b rows cols 3"]) -> UInt8[np.ndarray, "b rows cols 3"]:
    """Pixels as a file has them."""
    return (pixels * 255).round().astype(np.uint8)


def batches(numbers: range) -> Iterator[list[int]]:
    """Numbers a few at a time."""
    for first in range(0, len(numbers), BATCH):
        yield list(numbers[first : first + BATCH])


def share(is_right: np.ndarray) -> list[float]:
    """A share with its 95 % interval."""
    right = int(is_right.sum())
    return [right / len(is_right), *wilson(right, len(is_right))]


def versions() -> dict[str, str]:
    """What the figures were made with."""
    return {
        "lumina": lumina.__version__,
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "python": platform.python_version(),
    }


def write_table(result: dict) -> str:
    """All figures as Markdown."""
    lines = ["| part | figure | value | 95 % interval |", "|---|---|---|---|"]
    for part, figures in result["parts"].items():
        for name, value in figures.items():
            if isinstance(value, list):
                middle, low, high = value
                lines.append(f"| {part} | {name} | {middle:.2f} | {low:.2f} to {high:.2f} |")
            elif isinstance(value, float):
                lines.append(f"| {part} | {name} | {value:.2f} | |")
            elif isinstance(value, int):
                lines.append(f"| {part} | {name} | {value} | |")
    found = result["versions"]
    lines += [
        "",
        f"{result['model']}, {result['steps']} steps, guidance 4, CPU, torch {found['torch']},"
        f" diffusers {found['diffusers']}.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
