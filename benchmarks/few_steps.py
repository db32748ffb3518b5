"""Compare a student of few steps with its teacher.

Run `python benchmarks/few_steps.py STUDENT --teacher TEACHER`. Both name the same things from the
same noise, at 128x128 in bfloat16. Writes `results/few_steps.json`, `.md` and `.png`: how often
the right drawing is the nearest one, and how far latents are from where 60 steps of the guided
teacher lead.
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
from lumina.evaluation.trials import shuffled
from lumina.flow.scheduler import FlowSolverScheduler
from lumina.media import make_grid
from lumina.worlds.captions import Brief, write
from lumina.worlds.judge import Lineup
from lumina.worlds.references import load_references

RESULTS = Path(__file__).parent / "results"
GUIDANCE = 4.0
EXACT = 60  # steps of the reference
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
WAYS = (
    Way("teacher", 30, GUIDANCE),
    Way("teacher", 4, GUIDANCE),
    Way("teacher", 2, GUIDANCE),
    Way("teacher", 1, GUIDANCE),
    Way("teacher", 4, 1.0),
    Way("teacher", 2, 1.0),
    Way("teacher", 1, 1.0),
    Way("student", 4, 1.0),
    Way("student", 2, 1.0),
    Way("student", 1, 1.0),
)


def main() -> None:
    """Draw every way, and write down what came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("student", type=Path, help="folder of the student")
    parser.add_argument("--teacher", type=Path, required=True, help="folder of its teacher")
    parser.add_argument("--names", type=int, default=150)
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--output", type=Path, default=RESULTS / "few_steps.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    things, drawings = load_references(options.teacher)
    lineup = Lineup(things, drawings)
    briefs = [Brief((thing,)) for thing in shuffled(things, "en")[: options.names]]
    pipelines = {
        "teacher": _load(options.teacher),
        "student": _load(options.student),
    }
    exact, _ = draw(pipelines["teacher"], REFERENCE, briefs)
    rows, pictures, labels = [], [], []
    for way in WAYS:
        latents, images = draw(pipelines[way.who], way, briefs)
        pairs = zip(briefs, images, strict=True)
        right = sum(lineup.judge(brief, image).is_found for brief, image in pairs)
        error = (latents - exact).square().mean().sqrt() / exact.square().mean().sqrt()
        low, high = wilson(right, len(briefs))
        rows.append(
            asdict(way)
            | {"evaluations": way.evaluations, "top1": right / len(briefs)}
            | {"low": low, "high": high, "error": error.item()}
        )
        print(rows[-1], file=sys.stderr, flush=True)
        pictures += [Image.fromarray(image) for image in images[:SHOWN]]
        title = f"{way.who} {way.steps} steps, guidance {way.guidance:g}"
        labels += [f"{title}: {write(brief, 'en')}" for brief in briefs[:SHOWN]]
    result = {
        "command": " ".join(["python", *sys.argv]),
        "names": len(briefs),
        "threads": options.threads,
        "rows": rows,
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


@torch.no_grad()
def draw(
    pipeline: Any, way: Way, briefs: list[Brief]
) -> tuple[Float[Tensor, "b c rows cols"], list[np.ndarray]]:
    """Latents and pictures of a way; picture k starts from the noise of seed k."""
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
    lines = [
        f"`{result['command']}`: {result['names']} English names. The error is that of the"
        f" latents to {EXACT} steps of the guided teacher, relative to their size.",
        "",
        "| network | steps | guidance | evaluations | top-1 | 95 % interval | error |",
        "| --- | --: | --: | --: | --: | --- | --: |",
    ]
    lines += [
        f"| {row['who']} | {row['steps']} | {row['guidance']:g} | {row['evaluations']}"
        f" | {100 * row['top1']:.1f} % | {100 * row['low']:.1f} % to {100 * row['high']:.1f} %"
        f" | {row['error']:.3f} |"
        for row in result["rows"]
    ]
    return "\n".join(lines) + "\n"


def _load(folder: Path) -> Any:
    pipeline: Any = lumina.load(folder, dtype="bfloat16")
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = FlowSolverScheduler(solver="euler")
    return pipeline


if __name__ == "__main__":
    main()
