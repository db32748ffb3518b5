"""Claim: norms before and after each layer keep activations bounded, however deep and strong."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from lumina.backbones.flag_dit import FlagDiT
from lumina.backbones.next_dit import NextDiT
from lumina.evaluation.claims.claim import Claim, Findings, Lab, Table, Threshold
from lumina.evaluation.claims.plots import plot_lines

DEPTHS = (8, 16, 32, 64)
GAINS = (0.5, 1.0, 2.0, 3.0)
GATES = (0.5, 2.0)
SEEDS = (0, 1, 2)
WIDTH, HEADS, GRID = 128, 4, 16
LARGE_GAIN, LARGE_GATE = 2.0, 2.0
KINDS = {"sandwich": NextDiT, "plain": FlagDiT}


@torch.no_grad()
def block_outputs(network: NextDiT | FlagDiT, x: Tensor) -> list[float]:
    """Root mean square of the tokens before the first block and after each, the largest token."""
    seen: list[float] = []

    def note(tokens: Tensor) -> None:
        seen.append(tokens.square().mean(-1).sqrt().max().item())

    handles = [network.layers[0].register_forward_pre_hook(lambda _, inputs: note(inputs[0]))]
    handles += [
        block.register_forward_hook(lambda *parts: note(parts[2])) for block in network.layers
    ]
    network(x, torch.full((len(x),), 0.5), class_labels=torch.zeros(len(x), dtype=torch.long))
    for handle in handles:
        handle.remove()
    return seen


def bound(first: float, gate: float, depth: int) -> float:
    """What no token can exceed between sandwich norms of unit weight, whatever else is inside."""
    return first + 2 * depth * math.tanh(gate)


@torch.no_grad()
def random_network(kind: str, *, depth: int, gain: float, gate: float, seed: int) -> Any:
    """A network of random weights.

    Args:
        kind: "sandwich", the blocks of Next-DiT; or "plain", those of Flag-DiT, with a norm
            before each layer alone.
        depth: Blocks.
        gain: Factor on all matrices inside attention and feed-forward.
        gate: What every gate is, before the tanh that Next-DiT has.
        seed: Of the weights.
    """
    torch.manual_seed(seed)
    network = KINDS[kind](
        sample_size=GRID,
        hidden_size=WIDTH,
        num_layers=depth,
        num_attention_heads=HEADS,
        multiple_of=32,
        num_classes=1,
    ).eval()
    for block in network.layers:
        for name, weight in block.named_parameters():
            if weight.ndim == 2 and "norm" not in name:
                nn.init.xavier_uniform_(weight, gain=gain)
        modulation: Any = block.norm1
        _set_gates(modulation.linear, parts=modulation.parts, gate=gate)
    return network


def _set_gates(linear: nn.Linear, *, parts: int, gate: float) -> None:
    """Make modulation the same for all: no shift, no scale, and these gates.

    Parts are shift, scale and gate (Flag-DiT), or scale and gate (Next-DiT), twice.
    """
    linear.weight.zero_()
    bias = torch.zeros(2, parts // 2, WIDTH)
    bias[:, -1] = gate
    linear.bias.copy_(bias.flatten())


def _run(lab: Lab) -> Findings:
    runs = {
        key: lab.piece(key, lambda k=kind, g=gain, a=gate: _measure(k, gain=g, gate=a))
        for kind in KINDS
        for gate in GATES
        for gain in GAINS
        for key in [f"{kind}-gate{gate:g}-gain{gain:g}"]
    }
    return _tell_findings(lab, runs)


def _measure(kind: str, *, gain: float, gate: float) -> list[list[float]]:
    """For each seed, the largest token after each block of the deepest network.

    A shallower network is the beginning of a deeper one, since blocks are alike.
    """
    x = torch.randn(2, 4, GRID, GRID, generator=torch.Generator().manual_seed(0))
    with torch.random.fork_rng():
        return [
            block_outputs(
                random_network(kind, depth=max(DEPTHS), gain=gain, gate=gate, seed=seed), x
            )
            for seed in SEEDS
        ]


def _tell_findings(lab: Lab, runs: dict[str, list[list[float]]]) -> Findings:
    ratios = [
        rms / bound(line[0], gate, depth)
        for gate in GATES
        for gain in GAINS
        for line in runs[f"sandwich-gate{gate:g}-gain{gain:g}"]
        for depth, rms in enumerate(line)
        if depth
    ]

    def last(kind: str, gain: float) -> float:
        lines = runs[f"{kind}-gate{LARGE_GATE:g}-gain{gain:g}"]
        return sum(line[-1] for line in lines) / len(lines)

    values = {
        "worst_to_bound": max(ratios),
        "plain_growth": last("plain", LARGE_GAIN) / last("plain", LARGE_GAIN / 2),
        "sandwich_growth": last("sandwich", LARGE_GAIN) / last("sandwich", LARGE_GAIN / 2),
        "plain_to_sandwich": last("plain", LARGE_GAIN) / last("sandwich", LARGE_GAIN),
        "mild": _mean_last(runs["plain-gate0.5-gain1"])
        / _mean_last(runs["sandwich-gate0.5-gain1"]),
    }
    return Findings(
        values,
        _words(values),
        [_table(runs, gate) for gate in GATES],
        [lab.picture("depth", _plot(runs), "The largest token after each block, mean of seeds.")],
        {
            "width": WIDTH,
            "tokens": (GRID // 2) ** 2,
            "seeds": ", ".join(map(str, SEEDS)),
            "depth": max(DEPTHS),
        },
    )


def _mean_last(lines: list[list[float]]) -> float:
    return sum(line[-1] for line in lines) / len(lines)


def _table(runs: dict[str, list[list[float]]], gate: float) -> Table:
    rows = []
    for kind in KINDS:
        for gain in GAINS:
            lines = runs[f"{kind}-gate{gate:g}-gain{gain:g}"]
            means = [sum(line[depth] for line in lines) / len(lines) for depth in DEPTHS]
            rows.append([kind, f"{gain:g}", *(f"{mean:.3g}" for mean in means)])
    first = runs[f"sandwich-gate{gate:g}-gain1"][0][0]
    rows.append(["bound of sandwich", "any", *(f"{bound(first, gate, d):.3g}" for d in DEPTHS)])
    header = ["norms", "gain", *(f"{depth} blocks" for depth in DEPTHS)]
    return Table(f"Largest root mean square of a token, gates of {gate:g}", header, rows)


def _plot(runs: dict[str, list[list[float]]]) -> Any:
    lines = {}
    for kind in KINDS:
        for gain in GAINS:
            seeds = runs[f"{kind}-gate{LARGE_GATE:g}-gain{gain:g}"]
            means = [sum(values) / len(values) for values in zip(*seeds, strict=True)]
            lines[f"{kind}, gain {gain:g}"] = list(enumerate(means))[::4]
    return plot_lines(
        lines,
        title=f"Gates of {LARGE_GATE:g}",
        x_label="blocks",
        y_label="largest root mean square of a token",
        y_log=True,
    )


def _words(values: dict[str, float]) -> list[str]:
    return [
        "Between sandwich norms the largest token reached at most"
        f" {values['worst_to_bound']:.2f} of the bound that no weights can exceed. When all"
        f" matrices get twice as strong (gain {LARGE_GAIN / 2:g} to {LARGE_GAIN:g}, gates of"
        f" {LARGE_GATE:g}, {max(DEPTHS)} blocks), it grows {values['sandwich_growth']:.2f} times;"
        f" with a plain norm before each layer, {values['plain_growth']:.2f} times.",
        f"At gain {LARGE_GAIN:g} plain norms end {values['plain_to_sandwich']:.1f} times as high as"
        " sandwich norms; at gain 1 with gates of 0.5 they end"
        f" {values['mild']:.2f} times as high: the difference needs strong weights to show.",
    ]


SANDWICH = Claim(
    name="sandwich-norm",
    title="Sandwich norms against plain ones",
    statement="A norm before and one after each layer keeps activations from growing with depth"
    " and with the strength of weights, where a norm before the layer alone does not.",
    source="Lumina-Next, arXiv:2406.18583, section 2.2",
    metric=f"Random weights, width {WIDTH}, up to {max(DEPTHS)} blocks; matrices scaled by gains"
    f" of {', '.join(f'{g:g}' for g in GAINS)}, gates held at"
    f" {' and '.join(f'{g:g}' for g in GATES)}. The largest root mean square of a token after"
    " each block, of Next-DiT's blocks and of Flag-DiT's; the bound is that before the first block"
    " plus 2 tanh(gate) for each block.",
    thresholds=(
        Threshold("worst_to_bound", "sandwich: largest token / bound, anywhere", most=1),
        Threshold("sandwich_growth", "sandwich: growth when matrices double", most=1.1),
        Threshold("plain_growth", "plain: growth when matrices double", least=2),
        Threshold("plain_to_sandwich", "plain / sandwich at gain 2, 64 blocks", least=4),
    ),
    run=_run,
    minutes=2,
    changes="After a first run, the tokens before the first block, which are at the bound by its"
    " definition, no longer count in the ratio to it.",
)
