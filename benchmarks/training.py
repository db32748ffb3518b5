"""Compare steps of training with a plain loop over diffusers' network: speed and use of the CPU.

Run `python benchmarks/training.py`. Ours is `lumina.training.trainer.Run` with its usual optimizer
and with AdamW; the other loop is written for this comparison around `LuminaNextDiT2DModel`. All
train in bfloat16 autocast on the same latents, texts, noise and times, clip the gradient and keep
an average. Writes `results/training.json` and `results/training.md`.
"""

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers.models.embeddings import get_2d_rotary_pos_embed_lumina
from diffusers.models.transformers.lumina_nextdit2d import LuminaNextDiT2DModel
from torch import Tensor, nn

from lumina.backbones.next_dit import NextDiT
from lumina.flow.path import flow_loss
from lumina.nn.attention import float32_attend
from lumina.training.metering import PASSES
from lumina.training.recipes import Recipe
from lumina.training.sharding import Share
from lumina.training.trainer import Run

RESULTS = Path(__file__).parent / "results"
SHAPE = {
    "sample_size": 16,  # with patches of 2x2, 64 tokens
    "hidden_size": 256,
    "num_layers": 8,
    "num_attention_heads": 8,
    "num_kv_heads": 8,
    "cross_attention_dim": 448,
}
BATCH, TEXT_TOKENS = 64, 32
RATE, MEMORY, CLIP, BETAS = 1e-3, 0.999, 1.0, (0.9, 0.99)
PEAK_SIDE, PEAK_ROUNDS = 1024, 10
LOOPS = ("diffusers, AdamW", "ours, AdamW", "ours, Muon")


def main() -> None:
    """Measure what the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, default=7, help="timed blocks of each loop")
    parser.add_argument("--steps", type=int, default=3, help="steps in a block")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    result = compare(options.blocks, options.steps) | {
        "command": " ".join(["python", *sys.argv]),
        "threads": options.threads,
        "blocks": options.blocks,
        "steps_in_a_block": options.steps,
        "shape": SHAPE | {"batch": BATCH, "text_tokens": TEXT_TOKENS},
        "versions": {
            "torch": torch.__version__,
            "diffusers": diffusers.__version__,
            "python": platform.python_version(),
        },
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "training.json").write_text(json.dumps(result, indent=2) + "\n")
    (RESULTS / "training.md").write_text(as_table(result))
    print(as_table(result))


def compare(blocks: int, steps: int) -> dict:
    """Take blocks of steps of all loops in turns, with products of matrices between them.

    Time is that of the processor, so that what else the machine does counts for little. Each
    ratio is the median of those within one round, which the machine treated alike.
    """
    with tempfile.TemporaryDirectory() as folder:
        runs = {
            name: make_run(optimizer, f"{folder}/{optimizer}")
            for name, optimizer in (("ours, AdamW", "adamw"), ("ours, Muon", "muon"))
        }
        plain = PlainLoop()
        loops = {"diffusers, AdamW": plain.step}
        loops |= {name: _stepping(run) for name, run in runs.items()}
        losses = {name: loop(0) for name, loop in loops.items()}
        rounds = [_round(loops, 1 + number * steps, steps) for number in range(blocks)]
    flop = PASSES * runs["ours, AdamW"].meter.forward
    speeds = {name: [BATCH * steps / one[name] for one in rounds] for name in loops}
    peaks = [one["peak"] for one in rounds]
    ratios = {
        name: [own / other for own, other in zip(speeds[name], speeds[LOOPS[0]], strict=True)]
        for name in runs
    }
    return {
        "weights_million": sum(w.numel() for w in plain.module.parameters()) / 1e6,
        "samples_per_second": {name: statistics.median(found) for name, found in speeds.items()},
        "times_faster": {name: statistics.median(found) for name, found in ratios.items()},
        "times_faster_of_blocks": ratios,
        "gigaflop_of_a_step": flop / 1e9,
        "peak_gigaflop_per_second": statistics.median(peaks) / 1e9,
        "share_of_peak": {
            name: statistics.median(
                flop * speed / BATCH / most for speed, most in zip(found, peaks, strict=True)
            )
            for name, found in speeds.items()
        },
        "first_losses": losses,
    }


def _round(loops: dict[str, Callable[[int], float]], first: int, steps: int) -> dict[str, float]:
    """Seconds of a block of each loop, and the operations per second of products alone."""
    found = {"peak": peak()}
    for name, loop in loops.items():
        began = time.process_time()
        for step in range(first, first + steps):
            loop(step)
        found[name] = (time.process_time() - began) / torch.get_num_threads()
    return found


def peak() -> float:
    """The most operations per second that products of large bfloat16 matrices reach."""
    a = torch.randn(PEAK_SIDE, PEAK_SIDE).bfloat16()
    a @ a  # warms up
    seconds = []
    for _ in range(PEAK_ROUNDS):
        began = time.process_time()
        torch.mm(a, a)
        seconds.append((time.process_time() - began) / torch.get_num_threads())
    return 2 * PEAK_SIDE**3 / min(seconds)


def make_batch(step: int) -> dict[str, Tensor]:
    """The same data for the same step."""
    generator = torch.Generator().manual_seed(step)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    side = SHAPE["sample_size"]
    lengths = torch.randint(8, TEXT_TOKENS + 1, (BATCH, 1), generator=generator)
    return {
        "data": draw(BATCH, 4, side, side),
        "noise": draw(BATCH, 4, side, side),
        "times": torch.rand(BATCH, generator=generator),
        "text": draw(BATCH, TEXT_TOKENS, SHAPE["cross_attention_dim"]),
        "mask": (torch.arange(TEXT_TOKENS) < lengths).long(),
    }


def make_module(kind: type) -> Any:
    """A network whose gates are open; both classes get the same weights."""
    torch.manual_seed(0)
    module = LuminaNextDiT2DModel(**SHAPE)
    for block in module.layers:
        block.gate.data.normal_()
        block.attn2.to_q.load_state_dict(block.attn1.to_q.state_dict())
    if kind is LuminaNextDiT2DModel:
        return module.train()
    ours = kind(**SHAPE)
    ours.load_state_dict(module.state_dict())
    return ours.train()


class Flow:
    """What `FlowObjective` computes, on random latents and texts."""

    def __init__(self) -> None:
        self.module = make_module(NextDiT)

    def to(self, device: torch.device) -> None:
        """Move the weights."""
        self.module.to(device)

    def batch(self, number: int, share: Share) -> dict[str, Tensor]:
        """All of a batch."""
        return make_batch(number)

    def loss(self, batch: dict[str, Tensor], step: int) -> tuple[Tensor, dict[str, float]]:
        """Mean squared error of the velocity."""

        def velocity(points: Tensor, times: Tensor) -> Tensor:
            return self.module(
                points,
                times,
                batch["text"],
                batch["mask"],
                return_dict=False,
                attend=float32_attend,
                attend_text=float32_attend,
            )[0]

        errors = flow_loss(velocity, batch["noise"], batch["data"], batch["times"])
        return errors.mean(), {"samples": BATCH}

    def validate(self) -> dict[str, float]:
        """Nothing."""
        return {}

    def preview(self, folder: Path, step: int) -> None:
        """Draw nothing."""

    def export(self, folder: Path) -> None:
        """Write nothing."""


def make_run(optimizer: str, out: str) -> Run:
    """Our training, with an optimizer of hidden matrices."""
    recipe = Recipe(
        out=out,
        steps=1_000_000,
        warmup=0,
        learning_rate=RATE,
        matrix_optimizer=optimizer,
        precision="bf16",
        clip=CLIP,
        ema=MEMORY,
    )
    return Run(recipe, Flow())


def _stepping(run: Run) -> Callable[[int], float]:
    def take(step: int) -> float:
        return run.update([run.objective.batch(step, run.share)], step)["loss"]

    return take


class PlainLoop:
    """A usual loop over diffusers' network, with the fast forms of what PyTorch offers."""

    def __init__(self) -> None:
        self.module = make_module(LuminaNextDiT2DModel)
        self.weights = [w for w in self.module.parameters() if w.requires_grad]
        self.average = [w.detach().clone() for w in self.weights]
        self.optimizer = torch.optim.AdamW(
            self.weights, lr=RATE, betas=BETAS, weight_decay=0.0, fused=True
        )
        side = SHAPE["sample_size"]
        self.table = get_2d_rotary_pos_embed_lumina(self.module.head_dim, side, side)

    def step(self, number: int) -> float:
        """Take one step, and return its loss."""
        batch = make_batch(number)
        times = batch["times"].view(-1, 1, 1, 1)
        points = times * batch["data"] + (1 - times) * batch["noise"]
        with torch.autocast("cpu", torch.bfloat16):
            found = self.module(
                points,
                batch["times"],
                batch["text"],
                batch["mask"],
                self.table,
                cross_attention_kwargs={},
                return_dict=False,
            )[0]
        velocity = found.chunk(2, dim=1)[0].float()
        loss = nn.functional.mse_loss(velocity, batch["data"] - batch["noise"])
        loss.backward()
        nn.utils.clip_grad_norm_(self.weights, CLIP)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        torch._foreach_lerp_(self.average, self.weights, 1 - MEMORY)
        return loss.item()


def as_table(result: dict) -> str:
    """Show a result as Markdown."""
    speeds, shares = result["samples_per_second"], result["share_of_peak"]
    faster = {LOOPS[0]: 1.0} | result["times_faster"]
    lines = [
        f"| {name} | {speeds[name]:.1f} | {faster[name]:.2f} | {shares[name]:.1%} |"
        for name in LOOPS
    ]
    versions = result["versions"]
    note = (
        f"`{result['command']}`: {result['weights_million']:.1f} million weights, 64 tokens,"
        f" {TEXT_TOKENS} text tokens, batch {BATCH}, bfloat16 autocast, {result['threads']} thread"
        f" of a CPU, time of the processor; medians of {result['blocks']} blocks of"
        f" {result['steps_in_a_block']} steps in turns. Peak:"
        f" {result['peak_gigaflop_per_second']:.0f} GFLOP/s in products of {PEAK_SIDE}x{PEAK_SIDE}"
        f" matrices; operations are 3 times those of our forward pass, whatever"
        f" the loop and its optimizer compute."
        f" torch {versions['torch']}, diffusers {versions['diffusers']}."
    )
    head = "| loop | samples/s | times faster | share of peak |"
    return "\n".join([head, "|---|---|---|---|", *lines, "", note, ""])


if __name__ == "__main__":
    main()
