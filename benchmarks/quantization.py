"""Compare pictures of a quantized transformer with those in float32, and the sizes of both files.

Run `python benchmarks/quantization.py`. It saves the transformer in float32 and in 8 bits, loads
each again, and draws the same 64 prompts from the same seeds with both. Writes
`results/quantization.json` and `results/quantization.md`.
"""

import argparse
import json
import platform
import statistics
import sys
import tempfile
from pathlib import Path

import diffusers
import numpy as np
import torch
import torchao
from diffusers import TorchAoConfig
from torchao.quantization import Int8DynamicActivationInt8WeightConfig, Int8WeightOnlyConfig

import lumina
from lumina.catalog import find
from lumina.evaluation.autoencoder import psnr
from lumina.evaluation.trials import Counts, plan
from lumina.worlds.vocabulary import shipped_things

RESULTS = Path(__file__).parent / "results"
KINDS = {
    "int8 weights": Int8WeightOnlyConfig,
    "int8 weights and activations": Int8DynamicActivationInt8WeightConfig,
}
SECTIONS = ("retrieval", "color", "place", "pairs")
BATCH = 16


def main() -> None:
    """Compare, and write down what came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=64, help="pictures of each, at least 4")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--keep", nargs="*", help="layers to leave in float32, not the usual ones")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    result = {
        "command": " ".join(["python", *sys.argv]),
        "steps": find("lumina-mini").defaults["steps"],
        "prompts": options.prompts,
        "kinds": compare(choose_prompts(options.prompts), options.keep),
        "versions": {
            "lumina": lumina.__version__,
            "torch": torch.__version__,
            "torchao": torchao.__version__,
            "diffusers": diffusers.__version__,
            "python": platform.python_version(),
        },
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "quantization.json").write_text(json.dumps(result, indent=2) + "\n")
    (RESULTS / "quantization.md").write_text(as_table(result))
    print(as_table(result))


def choose_prompts(count: int) -> list[str]:
    """As many prompts of each section of the evaluation, always the same."""
    each = count // len(SECTIONS)
    trials = plan(shipped_things(), Counts(names=each, combinations=each), languages=())
    return [trial.prompt for trial in trials if trial.section in SECTIONS]


def compare(prompts: list[str], keep: list[str] | None) -> dict:
    """For each kind of quantization, likeness to float32 in decibels, and the size of its file."""
    pipeline = lumina.load("lumina-mini", dtype=torch.float32, device="cpu")
    pipeline.set_progress_bar_config(disable=True)
    exact = pipeline.transformer
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "float32"
        exact.save_pretrained(source)
        expected = draw(pipeline, prompts)
        found = {}
        for kind, quantize in KINDS.items():
            target = Path(folder) / kind
            config = TorchAoConfig(quantize(), modules_to_not_convert=keep)
            load(source, quantization_config=config).save_pretrained(target)
            pipeline.transformer = load(target)
            pictures = draw(pipeline, prompts)
            values = [psnr(*pair) for pair in zip(expected, pictures, strict=True)]
            found[kind] = {
                "median_psnr": statistics.median(values),
                "lowest_psnr": min(values),
                "relative_file_size": file_size(target) / file_size(source),
            }
    return found


def load(folder: Path, **options) -> lumina.NextDiT:
    """Load a transformer whose layers that stay as they are compute in float32."""
    return lumina.NextDiT.from_pretrained(folder, torch_dtype=torch.float32, **options)


def draw(pipeline: lumina.LuminaPipeline, prompts: list[str]) -> list[np.ndarray]:
    """Pictures of all prompts, each from the seed of its number."""
    pictures = []
    for first in range(0, len(prompts), BATCH):
        batch = prompts[first : first + BATCH]
        numbers = range(first, first + len(batch))
        pictures += pipeline(
            batch,
            num_inference_steps=find("lumina-mini").defaults["steps"],
            generator=[torch.Generator().manual_seed(number) for number in numbers],
        ).images
    return [np.asarray(picture) for picture in pictures]


def file_size(folder: Path) -> int:
    """Bytes of the weights in a folder."""
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def as_table(result: dict) -> str:
    """The figures in Markdown, with what they were measured on."""
    rows = [
        f"| {kind} | {found['median_psnr']:.1f} | {found['lowest_psnr']:.1f}"
        f" | {found['relative_file_size']:.2f} |"
        for kind, found in result["kinds"].items()
    ]
    head = "| against float32 | median PSNR in dB | lowest | file size |"
    settings = (
        f"lumina-mini, {result['prompts']} prompts, {result['steps']} steps, guidance 4, CPU, "
        f"torch {result['versions']['torch']}, torchao "
        f"{result['versions']['torchao']}. All other layers are float32."
    )
    return "\n".join([head, "|---|---|---|---|", *rows, "", settings]) + "\n"


if __name__ == "__main__":
    main()
