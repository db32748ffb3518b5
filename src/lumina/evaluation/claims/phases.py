"""Claim: scaled by NTK, rotations still reach phases that training never showed."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from lumina.evaluation.claims.claim import Claim, Findings, Lab, Table, Threshold
from lumina.nn.extrapolation import extrapolate
from lumina.nn.rope import rope_table
from lumina.requests import EXTRAPOLATIONS

SCALE = 2.0
TIMES = (0.0, 0.3, 0.6, 1.0)
TOLERANCE = 1e-5  # float32 in which rotations are made


class Shape(NamedTuple):
    """What decides the rotations of a model."""

    name: str
    length: int  # tokens of an axis in training
    head_width: int
    theta: float


RELEASED = Shape("the released 2B model (64 tokens an axis, base 10,000)", 64, 72, 10000.0)
SHAPES = Shape("the model of the extrapolation claim (32 tokens, base 100)", 32, 48, 100.0)


def unseen(shape: Shape, method: str, *, scale: float, time: float) -> tuple[int, int]:
    """How many frequencies of an axis reach phases that training never showed.

    A frequency that made a whole turn on the trained grid has shown all phases. Another shows
    those up to its turn over the trained length, and on a larger grid it may turn further.

    Returns:
        How many do, and how many made no whole turn in training.
    """
    trained = frequencies(shape, "none", scale=1.0, time=time)
    scaled = frequencies(shape, method, scale=scale, time=time)
    is_incomplete = trained * shape.length < 2 * math.pi
    goes_further = scaled * scale > trained * (1 + TOLERANCE)
    return int((is_incomplete & goes_further).sum()), int(is_incomplete.sum())


def frequencies(
    shape: Shape, method: str, *, scale: float, time: float
) -> Float[Tensor, " frequencies"]:
    """Radians for each token of an axis, from the very table that the network is given."""
    scaling = extrapolate(
        method,
        scale=scale,
        length=float(shape.length),
        head_width=shape.head_width,
        theta=shape.theta,
        time=time,
    )
    half = shape.head_width // 2
    step = torch.tensor([[0.0, 1.0, 0.0]])
    table = rope_table(step, channels=(0, half, half), theta=shape.theta, scaling=scaling)[0]
    return torch.atan2(table[:, 1], table[:, 0]).double()[::2]  # rows and columns take turns


def _run(lab: Lab) -> Findings:
    counts = lab.piece("counts", lambda: {s.name: _count_all(s) for s in (RELEASED, SHAPES)})
    released, incomplete = counts[RELEASED.name]["methods"], counts[RELEASED.name]["incomplete"]
    values = {
        "ntk_share": max(released["ntk"]) / incomplete,
        "linear": float(max(released["linear"])),
        "frequency_aware": float(max(released["frequency-aware"])),
        "time_aware_start": float(released["time-aware"][0]),
        "time_aware_end": released["time-aware"][-1] / incomplete,
    }
    tables = [
        Table(
            f"Frequencies with unseen phases, of {counts[shape.name]['incomplete']} that make no"
            f" whole turn in training: {shape.name}",
            ["method", *(f"t = {time:g}" for time in TIMES)],
            [[m, *map(str, row)] for m, row in counts[shape.name]["methods"].items()],
        )
        for shape in (RELEASED, SHAPES)
    ]
    settings = {"scale": SCALE, "times": ", ".join(f"{t:g}" for t in TIMES), "seeds": "none: exact"}
    return Findings(values, _words(released, incomplete), tables, settings=settings)


def _words(released: dict[str, Sequence[int]], incomplete: int) -> list[str]:
    steps = ", ".join(map(str, released["time-aware"]))
    return [
        f"At twice the length of the 2B model, NTK scaling leaves {max(released['ntk'])} of the"
        f" {incomplete} slow frequencies with phases that training never showed (no scaling:"
        f" {max(released['none'])}), linear interpolation {max(released['linear'])} and"
        f" frequency-aware scaling {max(released['frequency-aware'])}.",
        f"Time-aware scaling goes from one to the other: {steps} from noise to data. YaRN leaves"
        f" {max(released['yarn'])}.",
    ]


def _count_all(shape: Shape) -> dict:
    methods = {
        method: [unseen(shape, method, scale=SCALE, time=time)[0] for time in TIMES]
        for method in EXTRAPOLATIONS
    }
    return {"methods": methods, "incomplete": unseen(shape, "none", scale=SCALE, time=0.0)[1]}


PHASES = Claim(
    name="phases",
    title="Phases that training never showed",
    statement="On larger grids NTK-aware scaling leaves low frequencies with positions that are"
    " out of the trained range, which repeats contents; frequency-aware scaling leaves none, and"
    " time-aware scaling leaves none at noise, where the composition is decided.",
    source="Lumina-Next, arXiv:2406.18583, section 2.3",
    metric="Of the frequencies of one axis that make no whole turn on the trained grid, how many"
    " turn further at twice the length than they ever did in training. Exact, from the tables that"
    " the network is given.",
    thresholds=(
        Threshold("ntk_share", "NTK: share of slow frequencies with unseen phases", least=1),
        Threshold("linear", "linear: such frequencies", most=0),
        Threshold("frequency_aware", "frequency-aware: such frequencies", most=0),
        Threshold("time_aware_start", "time-aware at noise: such frequencies", most=0),
        Threshold("time_aware_end", "time-aware at data: share of slow frequencies", least=1),
    ),
    run=_run,
    minutes=0.1,
)
