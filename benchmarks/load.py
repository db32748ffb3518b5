"""Measure the memory that loading a 2B network as bfloat16 takes, from files of every format.

Run `python benchmarks/load.py`. It writes files of random weights (NextDiT_2B_GQA of the original
release: 1.6 billion weights, 23 GB in all) to a temporary folder, and loads each in a process of
its own (Linux). Writes `results/load.json` and `results/load.md`.

Two peaks are counted above what the process held after its imports: *anonymous* memory, which is
what the process made itself and cannot be taken from it, sampled every 5 ms; and *resident* memory
(`VmHWM`), which also counts pages of mapped files, that the kernel may drop at any time. All
weights are read once after loading, as moving them to an accelerator does, so that no file stays
unread.
"""

import argparse
import json
import math
import platform
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import diffusers
import safetensors
import torch
from diffusers import LuminaNextDiT2DModel
from safetensors.torch import load_file
from torch import Tensor

from lumina import NextDiT, load_backbone
from lumina.checkpoints.convert import convert
from lumina.checkpoints.keys import original_names, to_original
from lumina.checkpoints.weights import Weight
from lumina.checkpoints.writing import write_safetensors

RESULTS = Path(__file__).parent / "results"
NETWORK = {
    "hidden_size": 2304,
    "num_layers": 24,
    "num_attention_heads": 32,
    "num_kv_heads": 8,
    "cross_attention_dim": 2048,
}
SHARD = "2GB"
LOADERS = {
    "ours": lambda path: load_backbone(path, dtype=torch.bfloat16),
    "diffusers": lambda path: LuminaNextDiT2DModel.from_pretrained(path, dtype=torch.bfloat16),
}
CASES = {
    "single file, bf16": ("ours", "bf16.safetensors"),
    "original folder, fp32": ("ours", "original"),
    "original .pth, fp32": ("ours", "fp32.pth"),
    "diffusers folder, fp32": ("ours", "folder"),
    "diffusers folder, fp32, by diffusers": ("diffusers", "folder"),
}


def main() -> None:
    """Measure what the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=NETWORK["num_layers"], help="of the network")
    parser.add_argument("--folder", type=Path, help="where to write the files (default: /tmp)")
    parser.add_argument("--load", nargs=2, help="load one file and print its peaks, and stop")
    options = parser.parse_args()
    if options.load:
        loader, path = options.load
        print(json.dumps(measure(loader, Path(path))))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        result = compare(Path(folder), options.layers)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "load.json").write_text(json.dumps(result, indent=2) + "\n")
    (RESULTS / "load.md").write_text(as_table(result))
    print(as_table(result))


def compare(folder: Path, layers: int) -> dict:
    """Write all files and load each in a process of its own."""
    with torch.device("meta"):
        model = NextDiT(**NETWORK | {"num_layers": layers})
    parameters = sum(weight.numel() for weight in model.parameters())
    write_files(folder, {name: tuple(w.shape) for name, w in model.state_dict().items()})
    loads = {}
    for name, (loader, file) in CASES.items():
        command = [sys.executable, __file__, "--load", loader, str(folder / file)]
        loads[name] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return {
        "command": " ".join(["python", *sys.argv]),
        "setting": NETWORK | {"num_layers": layers},
        "parameters": parameters,
        "bf16_gb": parameters * 2 / 1e9,
        "largest_shard_gb": max(f.stat().st_size for f in (folder / "folder").iterdir()) / 1e9,
        "loads": loads,
        "versions": {
            "torch": torch.__version__,
            "diffusers": diffusers.__version__,
            "safetensors": safetensors.__version__,
            "python": platform.python_version(),
        },
    }


def write_files(folder: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    """Write one network in every format, no two weights in memory at once."""
    weights = {
        name: Weight(shape, torch.float32, lambda shape=shape: torch.randn(shape) * 0.02)
        for name, shape in shapes.items()
    }
    (folder / "original").mkdir()
    file = folder / "original" / "consolidated.00-of-01.safetensors"
    write_safetensors(file, to_original(weights, original_names(shapes)), {})
    torch.save(load_file(file), folder / "fp32.pth")
    convert(folder / "original", folder / "folder", max_shard=SHARD)
    convert(folder / "original", folder / "bf16.safetensors", dtype="bf16")


@torch.no_grad()
def measure(loader: str, path: Path) -> dict[str, float]:
    """Load a file, read all its weights, and return peaks of memory and the time it took."""
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = {name: status_gb(name) for name in ("RssAnon", "VmRSS")}
    peak, done = [0.0], threading.Event()

    def sample() -> None:
        while not done.wait(0.005):
            peak[0] = max(peak[0], status_gb("RssAnon"))

    thread = threading.Thread(target=sample)
    thread.start()
    begin = time.perf_counter()
    model = LOADERS[loader](path)
    loaded = time.perf_counter()
    total = sum(read(weight) for weight in model.parameters())
    seconds = loaded - begin
    done.set()
    thread.join()
    if not math.isfinite(total):
        raise ValueError(f"{path} does not hold the weights that were written")
    return {
        "anonymous_gb": peak[0] - before["RssAnon"],
        "resident_gb": status_gb("VmHWM") - before["VmRSS"],
        "seconds": seconds,
    }


def read(weight: Tensor) -> float:
    """Touch every number of a weight."""
    return weight.amax().item()


def status_gb(field: str) -> float:
    """Read a field of this process's memory status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024 / 1e9


def as_table(result: dict) -> str:
    """Show a result as Markdown."""
    size = result["bf16_gb"]
    lines = [
        f"| {name} | {load['anonymous_gb']:.2f} | {load['anonymous_gb'] / size:.2f} "
        f"| {load['resident_gb']:.2f} | {load['resident_gb'] / size:.2f} |"
        for name, load in result["loads"].items()
    ]
    note = (
        f"NextDiT_2B_GQA, {result['parameters']:,} random weights, {size:.2f} GB in bf16, loaded "
        f"as bf16 on the CPU; the largest shard of the folder is {result['largest_shard_gb']:.2f} "
        "GB. *anonymous* is what the process made itself; *resident* also counts pages of mapped "
        f"files, which the kernel may drop at any time. `{result['command']}`, torch "
        f"{result['versions']['torch']}, diffusers {result['versions']['diffusers']}, safetensors "
        f"{result['versions']['safetensors']}."
    )
    head = "| loaded from | anonymous, GB | of the bf16 size | resident, GB | of the bf16 size |"
    return "\n".join([head, "|---|---|---|---|---|", *lines, "", note, ""])


if __name__ == "__main__":
    main()
