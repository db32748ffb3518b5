"""Send 131,072 tokens through a small Next-DiT and back: memory, time, and an exact attention.

Run `python benchmarks/long_context.py`. One forward and one backward pass on the CPU in float32,
with the kernel that models use unless told otherwise, and the attention of the first layer against
a reference that takes some queries at a time. Writes `results/long_context.json` and
`results/long_context.md`.
"""

import argparse
import json
import platform
import resource
import sys
import time
from pathlib import Path

import diffusers
import torch
from torch import Tensor

from lumina.backbones.next_dit import NextDiT
from lumina.nn.attention import fused_attend

RESULTS = Path(__file__).parent / "results"
SETTING = {
    "hidden_size": 64,
    "num_layers": 2,
    "num_attention_heads": 2,
    "cross_attention_dim": 64,
}
GRID = (256, 512)
TEXT_TOKENS = 32
QUERIES_AT_ONCE = 512


def main() -> None:
    """Measure, compare, and write both down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=GRID[0], help="rows of tokens")
    parser.add_argument("--cols", type=int, default=GRID[1], help="columns of tokens")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    result = {
        "command": " ".join(["python", *sys.argv]),
        "setting": SETTING | {"tokens": options.rows * options.cols, "dtype": "float32"},
        **measure(options.rows, options.cols),
        "threads": options.threads,
        "versions": {
            "torch": torch.__version__,
            "diffusers": diffusers.__version__,
            "python": platform.python_version(),
        },
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "long_context.json").write_text(json.dumps(result, indent=2) + "\n")
    (RESULTS / "long_context.md").write_text(as_table(result))
    print(as_table(result))


def measure(rows: int, cols: int) -> dict[str, float]:
    """Memory and time of both passes, and the error of the first layer's attention."""
    model = build()
    latents, text = make_inputs(rows, cols)
    recorder = Recorder()
    before = peak_gib()
    start = time.perf_counter()
    sample = model(latents, torch.tensor([0.5]), text, attend=[recorder, None], return_dict=False)[
        0
    ]
    middle = time.perf_counter()
    sample.square().mean().backward()
    end = time.perf_counter()
    peak = peak_gib()  # before the reference, which is no part of training
    gradients = [weight.grad for weight in model.parameters() if weight.requires_grad]
    if not all(gradient is not None and gradient.isfinite().all() for gradient in gradients):
        raise RuntimeError("a weight has no gradient, or one that is not finite")
    return {
        "forward_seconds": middle - start,
        "backward_seconds": end - middle,
        "peak_gib": peak,
        "peak_gib_before": before,
        "largest_error": recorder.largest_error(),
        "weights_with_gradients": len(gradients),
    }


class Recorder:
    """The usual attention, which keeps what it was asked and what it answered."""

    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        mask: Tensor | None = None,
        scale: float | None = None,
    ) -> Tensor:
        """Attend, and remember."""
        values = fused_attend(query, key, value, mask=mask, scale=scale)
        self.query, self.key, self.value = (part.detach() for part in (query, key, value))
        self.scale, self.values = scale, values.detach()
        return values

    @torch.no_grad()
    def largest_error(self) -> float:
        """The largest difference from products of matrices and a softmax, for some queries each."""
        key, value = self.key.transpose(1, 2), self.value.transpose(1, 2)
        queries = self.query.transpose(1, 2).split(QUERIES_AT_ONCE, dim=2)
        found = self.values.transpose(1, 2).split(QUERIES_AT_ONCE, dim=2)
        errors = [
            ((query @ key.mT * self.scale).softmax(-1) @ value - part).abs().max()
            for query, part in zip(queries, found, strict=True)
        ]
        return torch.stack(errors).max().item()


def build() -> NextDiT:
    """A network whose every weight matters: new ones have gates and outputs of zero."""
    torch.manual_seed(0)
    model = NextDiT(**SETTING)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.1)
    return model


def make_inputs(rows: int, cols: int) -> tuple[Tensor, Tensor]:
    """Latents of as many patches, and text."""
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(1, 4, 2 * rows, 2 * cols, generator=generator)
    return latents, torch.randn(1, TEXT_TOKENS, 64, generator=generator)


def peak_gib() -> float:
    """The most memory that this process has had so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def as_table(result: dict) -> str:
    """Show a result as Markdown."""
    setting, versions = result["setting"], result["versions"]
    rows = [
        ("seconds, forward", f"{result['forward_seconds']:.0f}"),
        ("seconds, backward", f"{result['backward_seconds']:.0f}"),
        ("peak GiB of the process", f"{result['peak_gib']:.2f}"),
        ("of these before the first pass", f"{result['peak_gib_before']:.2f}"),
        ("largest error of the first layer's attention", f"{result['largest_error']:.1e}"),
        ("weights with finite gradients", f"{result['weights_with_gradients']} (all)"),
    ]
    note = (
        f"Width {setting['hidden_size']}, {setting['num_layers']} layers, "
        f"{setting['num_attention_heads']} heads, {TEXT_TOKENS} text tokens, {setting['dtype']}, "
        f"CPU, {result['threads']} threads, torch {versions['torch']}, diffusers "
        f"{versions['diffusers']}, python {versions['python']}."
    )
    lines = [f"| {name} | {value} |" for name, value in rows]
    head = [f"| {setting['tokens']:,} tokens | |", "|---|---|"]
    return "\n".join([f"    {result['command']}", "", *head, *lines, "", note, ""])


if __name__ == "__main__":
    main()
