"""Compare one picture by our pipeline with one by diffusers', from the same folder.

Run `python benchmarks/pipeline.py lumina-mini`. Both draw the same picture in turns, once with the
same settings (30 steps, guidance 4, float32) and once each with its own defaults. Writes
`results/pipeline.json`.
"""

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import diffusers
import torch
import transformers

import lumina
from lumina.catalog import find
from lumina.requests import TextToImage

RESULTS = Path(__file__).parent / "results"
PROMPT = "a red apple on a blue background"
SAME = {"num_inference_steps": 30, "guidance_scale": 4.0}


def main() -> None:
    """Compare both ways, and write down what came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="a name, or a folder in diffusers' layout")
    parser.add_argument("--runs", type=int, default=5, help="timed pictures of each")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--output", type=Path, default=RESULTS / "pipeline.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    result = {
        "command": " ".join(["python", *sys.argv]),
        "same settings": compare_same(options.model, options.runs),
        "own defaults": compare_defaults(options.model, options.runs),
        "runs": options.runs,
        "threads": options.threads,
        "versions": {
            "lumina": lumina.__version__,
            "torch": torch.__version__,
            "diffusers": diffusers.__version__,
            "transformers": transformers.__version__,
            "python": platform.python_version(),
        },
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


def compare_same(model: str, runs: int) -> dict:
    """Time exactly the same work, and say how far the latents are apart."""
    folder = find(model).folder
    ours = lumina.LuminaPipeline.from_pretrained(folder, dtype=torch.float32)
    theirs = diffusers.LuminaPipeline.from_pretrained(folder, dtype=torch.float32)
    latents = [draw(pipeline, **SAME, output_type="latent") for pipeline in (ours, theirs)]
    difference = (latents[0] - latents[1]).abs().max() / latents[1].abs().max()
    seconds = interleaved_medians(lambda: draw(ours, **SAME), lambda: draw(theirs, **SAME), runs)
    return {"settings": SAME, "relative_difference": difference.item()} | seconds


def compare_defaults(model: str, runs: int) -> dict:
    """Time what a person gets who sets nothing: our dtype and steps against diffusers'."""
    folder, defaults = find(model).folder, find(model).defaults
    ours, theirs = lumina.load(model), diffusers.LuminaPipeline.from_pretrained(folder)
    settings = {
        "num_inference_steps": defaults.get("steps", TextToImage.steps),
        "guidance_scale": defaults.get("guidance", TextToImage.guidance),
    }
    seconds = interleaved_medians(lambda: draw(ours, **settings), lambda: draw(theirs), runs)
    return {
        "our_settings": settings | describe(ours),
        "diffusers_settings": SAME | describe(theirs),
    } | seconds


def describe(pipeline: diffusers.DiffusionPipeline) -> dict:
    """Settings of a pipeline that are not arguments of its call."""
    return {
        "dtype": str(pipeline.transformer.dtype),
        "scheduler": type(pipeline.scheduler).__name__,
    }


def draw(pipeline: diffusers.DiffusionPipeline, **settings):
    """Draw the one picture of this comparison."""
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    return pipeline(PROMPT, generator=generator, **settings).images


def interleaved_medians(
    ours: Callable[[], object], theirs: Callable[[], object], runs: int
) -> dict[str, float]:
    """Seconds of both, in turns, so that whatever else the machine does slows both alike."""
    seconds = {"ours": [], "diffusers": []}
    ours()
    theirs()
    for _ in range(runs):
        for name, run in (("ours", ours), ("diffusers", theirs)):
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "median_seconds": medians,
        "times_faster": medians["diffusers"] / medians["ours"],
    }


if __name__ == "__main__":
    main()
