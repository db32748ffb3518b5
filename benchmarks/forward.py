"""Compare one forward pass of NextDiT with diffusers' LuminaNextDiT2DModel: speed, memory, result.

Run `python benchmarks/forward.py`. Both run on the CPU with the same random weights in the same
float32 eager mode. Writes `results/forward.json` and `results/forward.md`.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import diffusers
import torch
from diffusers.models.embeddings import get_2d_rotary_pos_embed_lumina
from diffusers.models.transformers.lumina_nextdit2d import LuminaNextDiT2DModel
from torch import Tensor

from lumina.backbones.next_dit import NextDiT, StepCache

RESULTS = Path(__file__).parent / "results"
SMALL = {
    "sample_size": 64,
    "hidden_size": 512,
    "num_layers": 8,
    "num_attention_heads": 8,
    "num_kv_heads": 4,
}
LARGE = {
    "sample_size": 128,
    "hidden_size": 2304,
    "num_layers": 2,
    "num_attention_heads": 32,
    "num_kv_heads": 8,
}
TEXT_TOKENS, TEXT_WIDTH = 64, 2048
MODELS = {"ours": NextDiT, "diffusers": LuminaNextDiT2DModel}


def main() -> None:
    """Measure what the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="timed forward passes of each")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--peak", choices=MODELS, help="print one peak of memory, and stop")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.peak:
        print(peak_memory_gb(options.peak))
        return
    result = {
        "command": " ".join(["python", *sys.argv]),
        "speed": compare_speed(options.rounds),
        "memory": compare_memory(options.threads),
        "threads": options.threads,
        "versions": {
            "torch": torch.__version__,
            "diffusers": diffusers.__version__,
            "python": platform.python_version(),
        },
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "forward.json").write_text(json.dumps(result, indent=2) + "\n")
    (RESULTS / "forward.md").write_text(as_table(result))
    print(as_table(result))


@torch.no_grad()
def compare_speed(rounds: int) -> dict:
    """Time both models in turns, so that whatever else the machine does slows both alike."""
    theirs, ours = build(LuminaNextDiT2DModel, SMALL), build(NextDiT, SMALL)
    ours.load_state_dict(theirs.state_dict())
    inputs, cache = make_inputs(SMALL), StepCache()
    table = diffusers_table(theirs)
    calls = {
        "diffusers": lambda: theirs(**inputs, image_rotary_emb=table, cross_attention_kwargs={}),
        "ours": lambda: ours(**inputs),
        "ours, text cached": lambda: ours(**inputs, cache=cache),
    }
    samples = {name: call().sample for name, call in calls.items()}
    seconds = interleaved_medians(calls, rounds)
    difference = (samples["ours"] - samples["diffusers"]).abs().max()
    return {
        "setting": SMALL,
        "median_seconds": seconds,
        "times_faster": seconds["diffusers"] / seconds["ours"],
        "times_faster_with_cached": seconds["diffusers"] / seconds["ours, text cached"],
        "relative_difference": (difference / samples["diffusers"].abs().max()).item(),
    }


def compare_memory(threads: int) -> dict:
    """Measure each model in a process of its own."""
    command = [sys.executable, __file__, "--threads", str(threads), "--peak"]
    peaks = {
        name: float(subprocess.run([*command, name], check=True, capture_output=True).stdout)
        for name in MODELS
    }
    return {
        "setting": LARGE,
        "peak_gb_above_weights": peaks,
        "ratio": peaks["ours"] / peaks["diffusers"],
    }


@torch.no_grad()
def peak_memory_gb(name: str) -> float:
    """Peak of resident memory during one forward pass, above what it was before (Linux)."""
    model = build(MODELS[name], LARGE)
    inputs = make_inputs(LARGE)
    if name == "diffusers":
        inputs |= {"image_rotary_emb": diffusers_table(model), "cross_attention_kwargs": {}}
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = resident_gb("VmRSS")
    model(**inputs)
    return resident_gb("VmHWM") - before


def resident_gb(field: str) -> float:
    """Read a field of this process's memory status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1e6


def build(kind: type, setting: dict) -> torch.nn.Module:
    """Make a model whose every weight matters: gates open, one query projection for both."""
    torch.manual_seed(0)
    model = kind(**setting, cross_attention_dim=TEXT_WIDTH).eval()
    for block in model.layers:
        block.gate.data.normal_()
        block.attn2.to_q.load_state_dict(block.attn1.to_q.state_dict())
    return model


def make_inputs(setting: dict) -> dict[str, Tensor]:
    """Latents, times and padded text for two samples."""
    torch.manual_seed(1)
    mask = torch.ones(2, TEXT_TOKENS)
    mask[1, 8:] = 0
    return {
        "hidden_states": torch.randn(2, 4, setting["sample_size"], setting["sample_size"]),
        "timestep": torch.tensor([0.3, 0.3]),
        "encoder_hidden_states": torch.randn(2, TEXT_TOKENS, TEXT_WIDTH),
        "encoder_mask": mask,
    }


def diffusers_table(model: torch.nn.Module) -> Tensor:
    """The rotations that diffusers' pipeline makes anew at every step; here made once."""
    return get_2d_rotary_pos_embed_lumina(model.head_dim, 384, 384)


def interleaved_medians(calls: dict[str, Callable], rounds: int) -> dict[str, float]:
    """Median seconds of each call."""
    seconds = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def as_table(result: dict) -> str:
    """Show a result as Markdown."""
    speed, memory = result["speed"], result["memory"]
    rows = [
        ("seconds, diffusers", f"{speed['median_seconds']['diffusers']:.2f}"),
        ("seconds, ours", f"{speed['median_seconds']['ours']:.2f}"),
        ("times faster", f"{speed['times_faster']:.2f}"),
        ("times faster, text cached", f"{speed['times_faster_with_cached']:.2f}"),
        ("relative difference of outputs", f"{speed['relative_difference']:.1e}"),
        ("peak GB above weights, diffusers", f"{memory['peak_gb_above_weights']['diffusers']:.2f}"),
        ("peak GB above weights, ours", f"{memory['peak_gb_above_weights']['ours']:.2f}"),
        ("ratio of peaks", f"{memory['ratio']:.3f}"),
    ]
    lines = [f"| {name} | {value} |" for name, value in rows]
    note = (
        "Speed: hidden 512, 8 layers, 8 heads, 4 key-value heads, latents 64x64. "
        "Memory: hidden 2304, 2 layers, 32 heads, 8 key-value heads, latents 128x128. "
        f"Batch 2, {TEXT_TOKENS} text tokens, float32, CPU, {result['threads']} threads, "
        f"torch {result['versions']['torch']}, diffusers {result['versions']['diffusers']}."
    )
    return "\n".join(["| one forward pass | |", "|---|---|", *lines, "", note, ""])


if __name__ == "__main__":
    main()
