"""Claim: most gates of the attention to text stay near zero, and can be closed."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from statistics import fmean
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lumina.evaluation.claims.claim import Claim, Findings, Lab, Picture, Table, Threshold
from lumina.evaluation.claims.mini import NAME, load_mini
from lumina.evaluation.claims.plots import lay_out, plot_lines
from lumina.evaluation.intervals import wilson
from lumina.flow.solvers import SOLVERS, integrate
from lumina.flow.times import shift_times, uniform_times

SHARES = (0.0, 0.5, 0.8, 0.9, 1.0)
NEAR_ZERO = 0.1
THINGS, FIRST_SEED, STEPS, SHIFT, BATCH = 48, 60000, 12, 2.0, 16
RANDOM_SEED = 0
SHOWN = 6


def smallest(gates: Float[Tensor, "blocks heads"], share: float) -> Bool[Tensor, "blocks heads"]:
    """Which gates are the smallest, in absolute value, of such a share of all."""
    count = round(share * gates.numel())
    order = gates.abs().flatten().argsort(stable=True)
    chosen = torch.zeros(gates.numel(), dtype=torch.bool)
    chosen[order[:count]] = True
    return chosen.view_as(gates)


def at_random(gates: Float[Tensor, "blocks heads"], share: float) -> Bool[Tensor, "blocks heads"]:
    """As many gates, whichever they are."""
    generator = torch.Generator().manual_seed(RANDOM_SEED)
    return smallest(torch.rand(gates.shape, generator=generator), share)


def gates_of(network: Any) -> Float[Tensor, "blocks heads"]:
    """What the attention to text of each head is multiplied by."""
    return torch.stack([block.gate.detach().float().tanh() for block in network.layers])


@contextmanager
def closed(network: Any, chosen: Bool[Tensor, "blocks heads"]) -> Iterator[None]:
    """Close gates for as long as the context lasts."""
    before = [block.gate.detach().clone() for block in network.layers]
    try:
        with torch.no_grad():
            for block, row in zip(network.layers, chosen, strict=True):
                block.gate.masked_fill_(row, 0)
        yield
    finally:
        with torch.no_grad():
            for block, gate in zip(network.layers, before, strict=True):
                block.gate.copy_(gate)


def _run(lab: Lab) -> Findings:
    gates = lab.piece("gates", lambda: gates_of(load_mini().pipeline.transformer).tolist())
    found = {
        f"{way}-{share:g}": lab.piece(f"{way}-{share:g}", partial(_draw, lab, way, share))
        for way in ("smallest", "random")
        for share in SHARES
        if way == "smallest" or 0 < share < 1
    }
    return _tell_findings(lab, torch.tensor(gates), found)


def _draw(lab: Lab, way: str, share: float) -> list[int]:
    """Whether each thing is found (0 or 1) with a share of gates closed."""
    mini = load_mini()
    network = mini.pipeline.transformer
    chosen = (smallest if way == "smallest" else at_random)(gates_of(network), share)
    briefs = mini.briefs("en", THINGS)
    times = shift_times(uniform_times(STEPS), SHIFT)
    parts = []
    with closed(network, chosen):
        for start in range(0, THINGS, BATCH):
            prompts = mini.prompts(briefs[start : start + BATCH])
            noise = prompts.noise(FIRST_SEED + start)
            x = integrate(prompts.velocity(), noise, times, solver=SOLVERS["ab2"])[-1]
            parts.append(mini.decode(x))
    pictures = np.concatenate(parts)
    np.save(lab.folder / f"{way}-{share:g}.npy", pictures[:SHOWN])
    return [int(is_found) for is_found in mini.found(briefs, pictures)]


def _tell_findings(lab: Lab, gates: Tensor, found: dict[str, list[int]]) -> Findings:
    shares = {name: fmean(results) for name, results in found.items()}
    sizes = gates.abs().flatten()
    values = {
        "near_zero": (sizes < NEAR_ZERO).float().mean().item(),
        "median_to_largest": (sizes.median() / sizes.max()).item(),
        "loss_50": shares["smallest-0"] - shares["smallest-0.5"],
        "loss_80": shares["smallest-0"] - shares["smallest-0.8"],
        "loss_90": shares["smallest-0"] - shares["smallest-0.9"],
        "loss_100": shares["smallest-0"] - shares["smallest-1"],
    }
    plot = plot_lines(
        {"gates, smallest first": list(enumerate(sizes.sort().values.tolist(), start=1))},
        title="Lumina-mini",
        x_label="gates",
        y_label="absolute value of the tanh of a gate",
    )
    return Findings(
        values,
        _words(values, shares, gates),
        [_found_table(found), _gates_table(gates)],
        [
            lab.picture("values", plot, "All gates, in order."),
            _samples(lab, found),
        ],
        {
            "things": f"{THINGS}, seeds from {FIRST_SEED}",
            "sampling": f"{STEPS} steps of ab2, shift {SHIFT:g}, guidance 4",
            "gates": gates.numel(),
        },
    )


def _words(values: dict[str, float], shares: dict[str, float], gates: Tensor) -> list[str]:
    blocks = gates.abs().mean(1)
    return [
        f"{100 * values['near_zero']:.0f} % of lumina-mini's {gates.numel()} gates are below"
        f" {NEAR_ZERO:g} (the median is {values['median_to_largest']:.2f} of the largest)."
        f" Closing the smallest 50, 80 and 90 % changes the share of things found from"
        f" {100 * shares['smallest-0']:.0f} % to {100 * shares['smallest-0.5']:.0f},"
        f" {100 * shares['smallest-0.8']:.0f} and {100 * shares['smallest-0.9']:.0f} %; closing"
        f" all, to {100 * shares['smallest-1']:.0f} %.",
        f"As many at random: {100 * shares['random-0.5']:.0f},"
        f" {100 * shares['random-0.8']:.0f} and {100 * shares['random-0.9']:.0f} %. The mean text"
        f" still enters by modulation when all are closed. Block {int(blocks.argmax()) + 1} of"
        f" {len(blocks)} has the largest gates.",
    ]


def _found_table(found: dict[str, list[int]]) -> Table:
    rows = []
    for name, results in found.items():
        way, _, share = name.partition("-")
        low, high = wilson(sum(results), len(results))
        mean = fmean(results)
        rows.append([f"{100 * float(share):.0f} %", way, f"{mean:.2f} ({low:.2f} to {high:.2f})"])
    return Table("Things found with gates closed", ["closed", "which", "found (95 %)"], rows)


def _gates_table(gates: Tensor) -> Table:
    rows = [
        [str(number), f"{row.mean():.3f}", f"{row.max():.3f}", f"{(row < NEAR_ZERO).sum()}"]
        for number, row in enumerate(gates.abs(), start=1)
    ]
    header = ["block", "mean", "largest", f"below {NEAR_ZERO:g}, of {gates.shape[1]}"]
    return Table("Absolute values of gates", header, rows)


def _samples(lab: Lab, found: dict[str, list[int]]) -> Picture:
    rows = {
        f"{way}, {100 * float(share):.0f} %": list(np.load(lab.folder / f"{way}-{share}.npy"))
        for way, _, share in (name.partition("-") for name in found)
    }
    mini = load_mini()
    columns: Sequence[str] = [mini.name_of(brief) for brief in mini.briefs("en", SHOWN)]
    image = lay_out(rows, columns=columns, side=128)
    return lab.picture("samples", image, "Lumina-mini with gates closed, same seeds.")


GATES = Claim(
    name="text-gates",
    title="Gates of the attention to text",
    statement="The gates through which heads look at the text become very sparse: 80 to 90 % of"
    " them can be closed without visible loss.",
    source="Lumina-T2X, arXiv:2405.05945, sections 2.2 and 3",
    metric=f"The tanh of lumina-mini's gates; the share of {THINGS} things found, prompts of the"
    " evaluation with other seeds, when the smallest 50, 80 and 90 % of gates are closed, or as"
    " many at random.",
    thresholds=(
        Threshold("near_zero", f"share of gates below {NEAR_ZERO:g}", least=0.8),
        Threshold("loss_50", "share of things lost with 50 % closed", most=0.05),
        Threshold("loss_80", "share of things lost with 80 % closed", most=0.05),
        Threshold("loss_90", "share of things lost with 90 % closed", most=0.05, is_aim=True),
    ),
    run=_run,
    minutes=10,
    model=NAME,
)
