"""Claim: attention to averaged keys and values is faster, at no cost to pictures."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from statistics import fmean, median
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lumina.backbones.next_dit import NextDiT
from lumina.evaluation.claims.claim import Claim, Findings, Lab, Picture, Table, Threshold
from lumina.evaluation.claims.mini import NAME, SIDE, Prompts, load_mini, usual_numbers
from lumina.evaluation.claims.plots import lay_out
from lumina.evaluation.intervals import wilson
from lumina.flow.solvers import SOLVERS, integrate
from lumina.flow.times import shift_times, uniform_times
from lumina.nn.attention import fused_attend, plain_attend
from lumina.nn.context_drop import drop_in_blocks, pooled_attend
from lumina.nn.extrapolation import RopeScaling
from lumina.requests import CONTEXT_DROPS
from lumina.types import Attend

LAYERS = 2
RELEASED_LAYERS = 24
TIMES = [(index + 0.5) / 20 for index in range(20)]
SEED = 0

THINGS, FIRST_SEED, SAMPLE_STEPS, SHIFT, BATCH = 16, 50000, 12, 2.0, 8
SHOWN = 6


class Case(NamedTuple):
    """One length, with one attention."""

    side: int  # tokens of an axis
    attention: str
    repeats: int

    @property
    def key(self) -> str:
        """For tables and files."""
        return f"{self.attention}-{self.side**2}"


CASES = (
    Case(32, "naive", 3),
    Case(64, "naive", 1),
    Case(32, "fused", 3),
    Case(64, "fused", 2),
    Case(128, "fused", 1),
)
ATTENDS: dict[str, Attend] = {"naive": plain_attend, "fused": fused_attend}


def dropped_share(mode: str, *, blocks: int, times: Sequence[float]) -> float:
    """Share of blocks that see averages, in the mean over times."""
    shares = []
    for moment in times:
        attends = drop_in_blocks(mode, [fused_attend] * blocks, time=moment)
        shares.append(fmean(a is not None for a in attends) if attends else 0.0)
    return fmean(shares)


def speedup(seconds: Sequence[float], share: float) -> float:
    """How many times faster a network is whose blocks drop in such a share.

    Args:
        seconds: Of a network with none and with all of its blocks dropping.
        share: In the mean over times.
    """
    full, dropped = seconds
    return full / (full + share * (dropped - full))


def measure_seconds(
    run: Callable[[bool], object], *, repeats: int, clock: Callable[[], float] = time.process_time
) -> tuple[float, float]:
    """Median seconds of a run without and with the drop, taken in turns, the first pair left out.

    Args:
        run: Takes whether to drop.
        repeats: How often to measure each.
        clock: Tells seconds. That of the process does not count what others compute.
    """
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(repeats + 1):
        for drops in (False, True):
            began = clock()
            run(drops)
            seconds[drops].append(clock() - began)
    return median(seconds[False][1:]), median(seconds[True][1:])


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute in one thread, whose seconds add up to the work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _make_network() -> NextDiT:
    """The first layers of the released 2B model, with random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        network = NextDiT(
            hidden_size=2304, num_layers=LAYERS, num_attention_heads=32, num_kv_heads=8
        )
        for weight in network.parameters():
            if not weight.any():
                torch.nn.init.normal_(weight, std=0.02)
    module: Any = network  # pyright misreads what diffusers' `to` takes
    return module.to(getattr(torch, usual_numbers())).eval()


@torch.no_grad()
def _time(case: Case) -> tuple[float, float]:
    network = _make_network()
    generator = torch.Generator().manual_seed(SEED)
    side = 2 * case.side
    x = torch.randn(1, 4, side, side, generator=generator).to(network.dtype)
    text = torch.randn(1, 32, 2048, generator=generator).to(network.dtype)
    moment = torch.tensor([0.5])
    attend = ATTENDS[case.attention]
    pooled = pooled_attend((case.side, case.side), attend=attend)

    def run(drops: bool) -> Tensor:
        return network(x, moment, text, attend=pooled if drops else attend, return_dict=False)[0]

    with one_thread():
        return measure_seconds(run, repeats=case.repeats)


def _draw(mode: str, side: int, lab: Lab) -> list[int]:
    """Whether each thing is found (0 or 1); pictures are kept in a file."""
    mini = load_mini()
    briefs = mini.briefs("context drop", THINGS)
    times = shift_times(uniform_times(SAMPLE_STEPS), SHIFT)
    parts = []
    for start in range(0, THINGS, BATCH):
        prompts = mini.prompts(briefs[start : start + BATCH])
        noise = prompts.noise(FIRST_SEED + start, side)
        velocity = partial(_velocity, prompts, mode, side)
        parts.append(mini.decode(integrate(velocity, noise, times, solver=SOLVERS["ab2"])[-1]))
    pictures = np.concatenate(parts)
    np.save(lab.folder / f"{mode}-{side}.npy", pictures)
    return [int(is_found) for is_found in mini.found(briefs, pictures)]


def _velocity(prompts: Prompts, mode: str, side: int, x: Tensor, t: Tensor) -> Tensor:
    grid = (side // 2, side // 2)
    attends = [pooled_attend(grid)] * len(prompts.network.layers)
    attend = drop_in_blocks(mode, attends, time=t.item())
    return prompts.velocity(rope=RopeScaling(linear=side / SIDE), attend=attend)(x, t)


def _run(lab: Lab) -> Findings:
    seconds = {c.key: lab.piece(c.key, partial(_time, c)) for c in CASES}
    found = {
        f"{mode}-{side}": lab.piece(f"{mode}-{side}", partial(_draw, mode, side, lab))
        for side in (SIDE, 2 * SIDE)
        for mode in CONTEXT_DROPS
    }
    return _tell_findings(lab, seconds, found)


def _tell_findings(
    lab: Lab, seconds: dict[str, list[float]], found: dict[str, list[int]]
) -> Findings:
    shares = {
        mode: dropped_share(mode, blocks=RELEASED_LAYERS, times=TIMES) for mode in CONTEXT_DROPS
    }
    two = dropped_share("time-aware", blocks=LAYERS, times=TIMES)
    longest = seconds["fused-16384"]
    differences = {name: _difference(lab, name) for name in found}
    usual = f"none-{SIDE}"
    aware = f"time-aware-{SIDE}"
    values = {
        "fused_16k": speedup(longest, shares["time-aware"]),
        "fused_16k_two_layers": speedup(longest, two),
        "fused_16k_all": speedup(longest, 1.0),
        "fused_4k": speedup(seconds["fused-4096"], shares["time-aware"]),
        "fused_4k_all": speedup(seconds["fused-4096"], 1.0),
        "fused_1k_all": speedup(seconds["fused-1024"], 1.0),
        "naive_1k_all": speedup(seconds["naive-1024"], 1.0),
        "naive_4k_all": speedup(seconds["naive-4096"], 1.0),
        "found_loss": fmean(found[usual]) - fmean(found[aware]),
        "found_loss_large": fmean(found[f"none-{2 * SIDE}"])
        - fmean(found[f"time-aware-{2 * SIDE}"]),
        "difference": differences[aware],
    }
    rows = []
    for case in CASES:
        full, dropped = seconds[case.key]
        rows.append(
            [f"{case.side**2:,}", case.attention, f"{full:.3f}", f"{dropped:.3f}"]
            + [f"{speedup((full, dropped), s):.2f}" for s in (1.0, shares["time-aware"], two)]
        )
    header = ["tokens", "attention", "seconds", "seconds, all drop", "times as fast, all drop"]
    header += [f"time-aware, {RELEASED_LAYERS} layers", f"time-aware, {LAYERS} layers"]
    return Findings(
        values,
        _words(values),
        [
            Table(
                f"{LAYERS} layers of the 2B shape, {usual_numbers()}, random weights", header, rows
            ),
            _picture_table(found, differences),
        ],
        [_samples(lab)],
        {
            "time": f"mean over {len(TIMES)} equal times; blocks that drop"
            f" {100 * shares['time-aware']:.0f} % ({RELEASED_LAYERS} layers),"
            f" {100 * two:.0f} % ({LAYERS} layers)",
            "repeats": ", ".join(f"{c.key} {c.repeats}" for c in CASES),
            "things": f"{THINGS}, seeds from {FIRST_SEED}",
            "sampling": f"{SAMPLE_STEPS} steps of ab2, shift {SHIFT:g}",
        },
    )


def _words(values: dict[str, float]) -> list[str]:
    verb = "loses" if values["found_loss"] > 0 else "does not lose"
    return [
        "At 16,384 tokens with fused attention the time-aware drop makes a network"
        f" {values['fused_16k']:.2f} times as fast in the mean over time, and dropping everywhere"
        f" {values['fused_16k_all']:.2f} times. At 4,096 tokens it is {values['fused_4k']:.2f}"
        " times.",
        "Where all blocks drop, 4,096 tokens (a picture of 1,024 pixels, for which about two is"
        f" claimed) run {values['naive_4k_all']:.2f} times as fast with naive attention and"
        f" {values['fused_4k_all']:.2f} times with fused; 1,024 tokens,"
        f" {values['naive_1k_all']:.2f} and {values['fused_1k_all']:.2f} times.",
        f"Lumina-mini has 8 by 8 tokens at its usual size, a hard test: with the time-aware drop it"
        f" {verb} things ({100 * abs(values['found_loss']):.0f} points), and pixels differ by"
        f" {values['difference']:.3f} (rms, of a range of 1). At twice the size the difference is"
        f" {100 * values['found_loss_large']:.0f} points.",
    ]


def _difference(lab: Lab, name: str) -> float:
    """Root mean square difference of pixels in [0, 1] to those without any drop."""
    side = name.rpartition("-")[2]
    pictures, usual = (
        np.load(lab.folder / f"{key}.npy").astype(np.float64) / 255
        for key in (name, f"none-{side}")
    )
    return float(np.sqrt(np.square(pictures - usual).mean()))


def _picture_table(found: dict[str, list[int]], differences: dict[str, float]) -> Table:
    rows = []
    for name, results in found.items():
        mode, _, side = name.rpartition("-")
        low, high = wilson(sum(results), len(results))
        pixels = int(side) * 8
        share = f"{fmean(results):.2f} ({low:.2f} to {high:.2f})"
        rows.append([f"{pixels}x{pixels}", mode, share, f"{differences[name]:.3f}"])
    header = ["size", "drop", "things found (95 %)", "rms difference of pixels to none"]
    return Table("Lumina-mini, same seeds", header, rows)


def _samples(lab: Lab) -> Picture:
    rows = {
        f"{mode}, {side * 8}": list(np.load(lab.folder / f"{mode}-{side}.npy"))[:SHOWN]
        for side in (SIDE, 2 * SIDE)
        for mode in CONTEXT_DROPS
    }
    mini = load_mini()
    columns = [mini.name_of(brief) for brief in mini.briefs("context drop", SHOWN)]
    image = lay_out(rows, columns=columns, side=128)
    return lab.picture("samples", image, "Lumina-mini without and with context drop, same seeds.")


CONTEXT_DROP = Claim(
    name="context-drop",
    title="Context drop",
    statement="Averaging keys and values over 2x2 tokens, in fewer and fewer blocks from noise to"
    " data, makes sampling about twice as fast at 1,024 pixels and more above, and pictures stay as"
    " good or get better.",
    source="Lumina-Next, arXiv:2406.18583, section 2.3",
    metric=f"Processor seconds of one thread for {LAYERS} layers of the 2B shape (width 2304, 32"
    " heads of 72, 8 of keys) with and without the drop, in turns. The mean over time takes the"
    f" share of {RELEASED_LAYERS} blocks (as the 2B model has) that drop at each; 2 blocks of their"
    " own would drop in a quarter. On lumina-mini: things found and difference of pixels, same"
    " seeds.",
    thresholds=(
        Threshold("fused_16k", "16,384 tokens, fused, mean over time: times as fast", least=1.05),
        Threshold(
            "fused_16k",
            "16,384 tokens, fused, mean over time: times as fast",
            least=1.15,
            is_aim=True,
        ),
        Threshold("found_loss", "lumina-mini: share of things lost, time-aware", most=0.1),
    ),
    run=_run,
    minutes=15,
    model=NAME,
)
