"""Compare a student of few steps with its teacher.

Run `python benchmarks/few_steps.py STUDENT --teacher TEACHER`. Both draw the same things, and the
same held-out pairs of things, from the same noise, at 128x128 in the numbers that suit the machine.
Writes `results/few_steps.json`, `.md` and `.png`: how often the right drawing is the nearest one,
how often both things of a pair and their relation are right, how far latents are from where exact
steps of the guided teacher lead, and the share of the gap between the teacher with few steps and
with 30 that the student closes.
"""

import argparse
import json
import platform
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

import lumina
from lumina.evaluation.intervals import wilson
from lumina.evaluation.trials import Counts, plan
from lumina.flow.scheduler import FlowSolverScheduler
from lumina.media import make_grid
from lumina.worlds.captions import Brief, write
from lumina.worlds.judge import Lineup
from lumina.worlds.references import load_references

RESULTS = Path(__file__).parent / "results"
GUIDANCE = 4.0
EXACT = 24  # steps of ab2 of the reference
AT_ONCE = 32
SHOWN = 8  # pictures of each way in the grid


@dataclass(frozen=True)
class Way:
    """A way to draw."""

    who: str
    steps: int
    guidance: float

    @property
    def evaluations(self) -> int:
        """How often the network runs for a picture; guidance runs it twice a step."""
        return self.steps * (1 if self.guidance == 1 else 2)


REFERENCE = Way("teacher", EXACT, GUIDANCE)
FULL = Way("teacher", 30, GUIDANCE)
STUDENT = Way("student", 4, 1.0)
WAYS = (
    FULL,
    Way("teacher", 4, GUIDANCE),
    Way("teacher", 2, GUIDANCE),
    Way("teacher", 1, GUIDANCE),
    Way("teacher", 4, 1.0),
    Way("teacher", 2, 1.0),
    Way("teacher", 1, 1.0),
    STUDENT,
    Way("student", 2, 1.0),
    Way("student", 1, 1.0),
)
FEW = (Way("teacher", 4, 1.0), Way("teacher", 2, GUIDANCE), Way("teacher", 4, GUIDANCE))
"""What the student is compared with: four passes, and the four guided steps that take eight."""


def main() -> None:
    """Draw every way, and write down what came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("student", type=Path, help="folder of the student")
    parser.add_argument("--teacher", type=Path, required=True, help="folder of its teacher")
    parser.add_argument("--names", type=int, default=150)
    parser.add_argument("--pairs", type=int, default=120)
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--output", type=Path, default=RESULTS / "few_steps.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    things, drawings = load_references(options.teacher)
    lineup = Lineup(things, drawings)
    counts = Counts(names=options.names, combinations=options.pairs)
    trials = plan(things, counts, languages=())
    briefs = {
        name: [trial.brief for trial in trials if trial.section == section]
        for name, section in (("names", "retrieval"), ("pairs", "pairs"))
    }
    pipelines = {
        "teacher": _load(options.teacher),
        "student": _load(options.student),
    }
    exact = {name: draw(pipelines["teacher"], REFERENCE, some)[0] for name, some in briefs.items()}
    rows, pictures, labels = [], [], []
    for way in WAYS:
        row: dict[str, Any] = asdict(way) | {"evaluations": way.evaluations}
        for name, some in briefs.items():
            latents, images = draw(pipelines[way.who], way, some)
            verdicts = map(lineup.judge, some, images)
            right = sum(verdict.is_found for verdict in verdicts)
            error = (latents - exact[name]).square().mean() / exact[name].square().mean()
            row[name] = {
                "right": right / len(some),
                "interval": wilson(right, len(some)),
                "error": error.sqrt().item(),
            }
            pictures += [Image.fromarray(image) for image in images[: SHOWN // 2]]
            title = f"{way.who} {way.steps} steps, guidance {way.guidance:g}"
            labels += [f"{title}: {write(brief, 'en')}" for brief in some[: SHOWN // 2]]
        rows.append(row)
        print(row, file=sys.stderr, flush=True)
    result = {
        "command": " ".join(["python", *sys.argv]),
        "counts": {name: len(some) for name, some in briefs.items()},
        "threads": options.threads,
        "dtype": str(pipelines["teacher"].dtype).removeprefix("torch."),
        "rows": rows,
        "gaps": [gap_closed(rows, few) for few in FEW],
        "versions": {
            "lumina": lumina.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }
    options.output.write_text(json.dumps(result, indent=2) + "\n")
    options.output.with_suffix(".md").write_text(write_table(result))
    make_grid(pictures, labels).save(options.output.with_suffix(".png"))
    print(write_table(result))


def gap_closed(rows: list[dict[str, Any]], few: Way) -> dict[str, Any]:
    """Share of the gap between few and many steps of the teacher that the student closes.

    Args:
        rows: Figures of all ways.
        few: The way of the teacher that the student is compared with.
    """
    begin, end, student = (rows[WAYS.index(way)] for way in (few, FULL, STUDENT))

    def share(name: str, figure: str) -> float | None:
        gap = end[name][figure] - begin[name][figure]
        return (student[name][figure] - begin[name][figure]) / gap if gap else None

    shares = {
        "names right": share("names", "right"),
        "pairs right": share("pairs", "right"),
        "error of names": share("names", "error"),
        "error of pairs": share("pairs", "error"),
    }
    return asdict(few) | {"evaluations": few.evaluations} | shares


@torch.no_grad()
def draw(
    pipeline: Any, way: Way, briefs: list[Brief]
) -> tuple[Float[Tensor, "b c rows cols"], list[np.ndarray]]:
    """Latents and pictures of a way; picture k starts from the noise of seed k."""
    solver = "ab2" if way == REFERENCE else "euler"
    pipeline.scheduler = FlowSolverScheduler(solver=solver)
    latents, images = [], []
    for start in range(0, len(briefs), AT_ONCE):
        some = briefs[start : start + AT_ONCE]
        found = pipeline(
            [write(brief, "en") for brief in some],
            num_inference_steps=way.steps,
            guidance_scale=way.guidance,
            generator=[torch.Generator().manual_seed(start + k) for k in range(len(some))],
            output_type="latent",
        ).images
        latents.append(found.float())
        vae = pipeline.vae
        decoded = vae.decode(found.to(vae.dtype) / vae.config.scaling_factor).sample.float()
        pixels = ((decoded / 2 + 0.5).clamp(0, 1) * 255).round().byte()
        images += list(pixels.permute(0, 2, 3, 1).numpy())
    return torch.cat(latents), images


def write_table(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    counts = result["counts"]
    lines = [
        f"`{result['command']}`: {counts['names']} English names, and {counts['pairs']} held-out"
        " pairs, right where both things and their relation are. The error is that of the latents"
        f" to {EXACT} steps of ab2 of the guided teacher, relative to their size; all others are"
        f" Euler's. {result['dtype']}, {result['threads']} threads.",
        "",
        "| network | steps | guidance | passes | names, top-1 | error | pairs right | error |",
        "| --- | --: | --: | --: | --- | --: | --- | --: |",
    ]
    for row in result["rows"]:
        cells = [row["who"], str(row["steps"]), f"{row['guidance']:g}", str(row["evaluations"])]
        for name in counts:
            low, high = row[name]["interval"]
            cells.append(f"{row[name]['right']:.1%} ({low:.1%} to {high:.1%})")
            cells.append(f"{row[name]['error']:.3f}")
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        f"Share of the gap to {FULL.steps} guided steps of the teacher that {STUDENT.steps} steps"
        " of the student close:",
        "",
        "| against the teacher with | passes | names, top-1 | pairs right | error of names"
        " | error of pairs |",
        "| --- | --: | --: | --: | --: | --: |",
    ]
    for gap in result["gaps"]:
        what = ("names right", "pairs right", "error of names", "error of pairs")
        shares = [gap[name] for name in what]
        told = ["-" if share is None else f"{share:.2f}" for share in shares]
        with_what = f"{gap['steps']} steps, guidance {gap['guidance']:g}"
        lines.append(f"| {' | '.join([with_what, str(gap['evaluations']), *told])} |")
    return "\n".join(lines) + "\n"


def _load(folder: Path) -> Any:
    pipeline: Any = lumina.load(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


if __name__ == "__main__":
    main()
