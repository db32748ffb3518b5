"""Samples of different sizes in one pass, against as many tokens in samples of one size.

Run `python benchmarks/sizes.py`. A Next-DiT of lumina-mini's shape, forward and backward, on a CPU:
16 pictures of four sizes as a list, 16 of one size as a batch and as a list, in turns. Writes
`results/sizes.json`, and checks that gradients of the list are the mean of those of each picture.
"""

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from lumina.backbones.next_dit import NextDiT

RESULTS = Path(__file__).parent / "results"
SHAPE = {
    "sample_size": 16,
    "hidden_size": 256,
    "num_layers": 8,
    "num_attention_heads": 8,
    "cross_attention_dim": 256,
}
MIXED = ((8, 8), (16, 16), (32, 16), (24, 24))  # 16, 64, 128 and 144 tokens
COPIES = 4


def main() -> None:
    """Measure, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="timed passes of each")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    model = NextDiT(**SHAPE)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(0.05 * torch.randn_like(weight))
    mixed = [torch.randn(4, *size) for size in MIXED * COPIES]
    even = torch.randn(len(mixed), 4, 16, 22)  # 88 tokens each, as the mixed ones on average
    passes = {
        "mixed sizes, a list": lambda: step(model, mixed),
        "one size, a list": lambda: step(model, list(even)),
        "one size, a batch": lambda: step(model, even),
    }
    tokens = {
        "mixed sizes, a list": sum(x.shape[1] * x.shape[2] // 4 for x in mixed),
        "one size, a list": 88 * len(mixed),
        "one size, a batch": 88 * len(mixed),
    }
    seconds = interleaved_medians(passes, options.rounds)
    per_token = {name: 1e6 * seconds[name] / tokens[name] for name in passes}
    result = {
        "command": " ".join(["python", *sys.argv]),
        "tokens": tokens,
        "microseconds_per_token": {name: round(value, 2) for name, value in per_token.items()},
        "mixed_by_one_size": round(
            per_token["mixed sizes, a list"] / per_token["one size, a batch"], 3
        ),
        "relative_difference_of_gradients": gradient_difference(model, mixed),
        "threads": options.threads,
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
    }
    (RESULTS / "sizes.json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


def step(model: NextDiT, samples: torch.Tensor | list[torch.Tensor]) -> None:
    """One forward and backward pass."""
    loss_of(model, samples, torch.arange(len(samples))).backward()
    model.zero_grad(set_to_none=True)


def loss_of(
    model: NextDiT, samples: torch.Tensor | list[torch.Tensor], numbers: torch.Tensor
) -> torch.Tensor:
    """Mean over samples of the mean square of what comes out."""
    text = torch.randn(64, 12, 256, generator=torch.Generator().manual_seed(1))[numbers]
    times = (numbers + 0.5) / 64
    output = model(samples, times, text).sample
    return torch.stack([sample.square().mean() for sample in output]).mean()


def gradient_difference(model: NextDiT, samples: list[torch.Tensor]) -> float:
    """How far gradients of a list are from the mean of those of each sample."""
    numbers = torch.arange(len(samples))
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    together = torch.autograd.grad(loss_of(model, samples, numbers), weights)
    alone = [torch.zeros_like(weight) for weight in weights]
    for number, sample in zip(numbers, samples, strict=True):
        loss = loss_of(model, sample[None], number[None]) / len(samples)
        for total, part in zip(alone, torch.autograd.grad(loss, weights), strict=True):
            total += part
    difference = sum((a - b).square().sum() for a, b in zip(together, alone, strict=True))
    size = sum(a.square().sum() for a in alone)
    return float((difference / size).sqrt())


def interleaved_medians(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each call, taken in turns."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + 1):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            if number:  # the first round warms up
                found[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in found.items()}


if __name__ == "__main__":
    main()
