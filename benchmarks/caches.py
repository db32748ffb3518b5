"""Compare diffusers' step caches with each other, and with fewer steps, on a shipped model.

Run `python benchmarks/caches.py`. Draws each prompt exactly (30 steps, guidance 4, float32), and
then with every cache and every lower number of steps in turn. Writes `results/caches.json` and
`results/caches.md`: how much less time the transformer took, how many of its blocks ran, and how
like the exact picture the picture is.
"""

import argparse
import contextlib
import io
import json
import platform
import statistics
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers import (
    FirstBlockCacheConfig,
    MagCacheConfig,
    PyramidAttentionBroadcastConfig,
    SeaCacheConfig,
    TaylorSeerCacheConfig,
)

import lumina
from lumina.catalog import find
from lumina.evaluation.autoencoder import psnr
from lumina.worlds.captions import draw_brief, write
from lumina.worlds.vocabulary import shipped_things

RESULTS = Path(__file__).parent / "results"
STEPS, GUIDANCE = 30, 4.0
FLOORS = {"times_faster": 1.5, "psnr": 28.0}
CALIBRATION_SEED = 10_000  # of noise that no picture of the comparison starts from


@dataclass
class Way:
    """One way to draw a picture, and what came of it, picture by picture."""

    method: str
    settings: str
    config: Any = None
    steps: int = STEPS
    seconds: list[float] = field(default_factory=list)
    blocks: list[int] = field(default_factory=list)
    psnr: list[float] = field(default_factory=list)


def main() -> None:
    """Compare all ways, and write down what came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="lumina-mini", help="a name of the catalog")
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--output", type=Path, default=RESULTS / "caches.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    pipeline = lumina.LuminaPipeline.from_pretrained(find(options.model).folder)
    pipeline.set_progress_bar_config(disable=True)
    prompts = make_prompts(options.prompts)
    ways = list_ways(pipeline, calibrate(pipeline, prompts[:4]))
    compare(pipeline, prompts, ways)
    result = {
        "command": " ".join(["python", *sys.argv]),
        "exact": {"steps": STEPS, "guidance": GUIDANCE, "dtype": "float32"},
        "prompts": options.prompts,
        "threads": options.threads,
        **summarise(ways),
        "versions": {
            "lumina": lumina.__version__,
            "torch": torch.__version__,
            "diffusers": diffusers.__version__,
            "python": platform.python_version(),
        },
    }
    options.output.write_text(json.dumps(result, indent=2) + "\n")
    options.output.with_suffix(".md").write_text(write_table(result))
    print(write_table(result))


def make_prompts(count: int) -> list[str]:
    """English captions of things, colors, places and pairs."""
    rng = np.random.default_rng(0)
    return [write(draw_brief(rng, shipped_things()), "en") for _ in range(count)]


def list_ways(pipeline: lumina.LuminaPipeline, ratios: list[float]) -> list[Way]:
    """The exact way first, then caches from careful to bold, then fewer steps."""

    def taylor(interval: int, order: int, start: int) -> Way:
        config = TaylorSeerCacheConfig(
            cache_interval=interval,
            max_order=order,
            disable_cache_before_step=start,
            taylor_factors_dtype=torch.float32,
        )
        return Way("TaylorSeer", f"interval {interval}, order {order}, from step {start}", config)

    def mag(threshold: float, skipped: int) -> Way:
        config = MagCacheConfig(
            threshold=threshold,
            max_skip_steps=skipped,
            retention_ratio=0.1,
            num_inference_steps=STEPS,
            mag_ratios=ratios,
        )
        return Way("MagCache", f"threshold {threshold}, {skipped} skipped at most", config)

    def pyramid(interval: int) -> Way:
        config = PyramidAttentionBroadcastConfig(
            spatial_attention_block_skip_range=interval,
            cross_attention_block_skip_range=interval,
            spatial_attention_timestep_skip_range=(0, 900),
            cross_attention_timestep_skip_range=(0, 900),
            current_timestep_callback=lambda: float(pipeline.current_timestep),
        )
        return Way("PyramidAttentionBroadcast", f"interval {interval}", config)

    return [
        Way("exact", f"{STEPS} steps"),
        *(taylor(*numbers) for numbers in [(2, 1, 3), (3, 1, 3)]),
        *(
            Way("SeaCache", f"threshold {threshold}", SeaCacheConfig(threshold=threshold))
            for threshold in (0.1, 0.2)
        ),
        mag(0.05, 1),
        *(
            Way("FirstBlockCache", f"threshold {threshold}", FirstBlockCacheConfig(threshold))
            for threshold in (0.05, 0.1)
        ),
        pyramid(2),
        *(Way("fewer steps", f"{steps} steps", steps=steps) for steps in (20, 17, 15)),
    ]


def calibrate(pipeline: lumina.LuminaPipeline, prompts: list[str]) -> list[float]:
    """How much longer or shorter each step's sum of blocks is than that before, for MagCache."""
    config = MagCacheConfig(calibrate=True, num_inference_steps=STEPS)
    printed = io.StringIO()
    pipeline.transformer.enable_cache(config)
    with contextlib.redirect_stdout(printed):
        for index, prompt in enumerate(prompts):
            draw(pipeline, prompt, seed=CALIBRATION_SEED + index, steps=STEPS)
    pipeline.transformer.disable_cache()
    lines = printed.getvalue().splitlines()
    return np.mean([json.loads(line) for line in lines if line.endswith("]")], axis=0).tolist()


def draw(pipeline: lumina.LuminaPipeline, prompt: str, *, seed: int, steps: int) -> np.ndarray:
    """One picture."""
    generator = torch.Generator().manual_seed(seed)
    picture = pipeline(
        prompt, num_inference_steps=steps, guidance_scale=GUIDANCE, generator=generator
    ).images[0]
    return np.asarray(picture)


def compare(pipeline: lumina.LuminaPipeline, prompts: list[str], ways: list[Way]) -> None:
    """Draw each prompt in all ways, in turns, so that a busy machine slows all alike."""
    transformer, meter = pipeline.transformer, Meter()
    transformer.register_forward_pre_hook(lambda *_: meter.start())
    transformer.register_forward_hook(lambda *_: meter.stop())
    for block in transformer.layers:
        block.feed_forward.register_forward_pre_hook(lambda *_: meter.count())
    draw(pipeline, prompts[0], seed=0, steps=2)  # warm up
    for seed, prompt in enumerate(prompts):
        exact = None
        for way in ways:
            if way.config is not None:
                transformer.enable_cache(way.config)
            meter.reset()
            picture = draw(pipeline, prompt, seed=seed, steps=way.steps)
            if way.config is not None:
                transformer.disable_cache()
            exact = picture if exact is None else exact
            way.seconds.append(meter.seconds)
            way.blocks.append(meter.blocks)
            way.psnr.append(psnr(picture, exact))


class Meter:
    """Seconds inside of the transformer, and how many blocks ran."""

    def reset(self) -> None:
        """Begin a picture."""
        self.seconds, self.blocks = 0.0, 0

    def start(self) -> None:
        """A call of the transformer begins."""
        self._begun = time.perf_counter()

    def stop(self) -> None:
        """A call of the transformer ends."""
        self.seconds += time.perf_counter() - self._begun

    def count(self) -> None:
        """A block runs."""
        self.blocks += 1

    __init__ = reset


def summarise(ways: list[Way]) -> dict:
    """Medians of every way, the best cache, and the fewer steps that take as long."""
    exact, *others = ways
    rows = [
        {
            "method": way.method,
            "settings": way.settings,
            "blocks": statistics.mean(way.blocks) / statistics.mean(exact.blocks),
            "times_faster": statistics.median(
                slow / fast for slow, fast in zip(exact.seconds, way.seconds, strict=True)
            ),
            "psnr": statistics.median(way.psnr),
            "psnr_worst": min(way.psnr),
        }
        for way in others
    ]
    fewer = [row for row in rows if row["method"] == "fewer steps"]
    caches = [row for row in rows if row["method"] != "fewer steps"]
    fast = [row for row in caches if row["times_faster"] >= FLOORS["times_faster"]]
    best = max(fast, key=lambda row: row["psnr"], default=None)
    rival = best and max(
        (row for row in fewer if row["times_faster"] <= best["times_faster"]),
        key=lambda row: row["times_faster"],
        default=None,
    )
    return {
        "exact_seconds": statistics.median(exact.seconds),
        "rows": rows,
        "best": best,
        "fewer_steps_in_no_less_time": rival,
    }


def write_table(result: dict) -> str:
    """All ways as Markdown, and what is best."""
    lines = [
        "| method | settings | blocks that ran | times faster | PSNR, dB | worst |",
        "|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        lines.append(
            f"| {row['method']} | {row['settings']} | {row['blocks']:.0%} |"
            f" {row['times_faster']:.2f} | {row['psnr']:.1f} | {row['psnr_worst']:.1f} |"
        )
    best, rival = result["best"], result["fewer_steps_in_no_less_time"]
    exact = result["exact"]
    lines += [
        "",
        f"Against {exact['steps']} exact steps, guidance {exact['guidance']:g}, {exact['dtype']}:"
        f" time in the transformer, and PSNR of the pictures, medians over {result['prompts']}"
        f" prompts, CPU, {result['threads']} threads, torch {result['versions']['torch']},"
        f" diffusers {result['versions']['diffusers']}.",
        "",
    ]
    if best is None:
        return "\n".join([*lines, "No cache is fast enough.", ""])
    verdict = (
        f"Best at {FLOORS['times_faster']} times faster or more: {best['method']},"
        f" {best['settings']}: {best['psnr']:.1f} dB, {best['times_faster']:.2f} times faster."
    )
    if rival is not None:
        verdict += f" {rival['settings']}, which take no less time, reach {rival['psnr']:.1f} dB."
    return "\n".join([*lines, verdict, ""])


if __name__ == "__main__":
    main()
