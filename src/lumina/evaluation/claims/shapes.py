"""Pictures of shapes by a small network that is trained for them, and what they show."""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from lumina.backbones.next_dit import NextDiT
from lumina.devices import is_fast_at_bfloat16
from lumina.errors import LuminaError
from lumina.evaluation.claims.claim import Lab
from lumina.evaluation.claims.components import Seen, look
from lumina.flow.solvers import SOLVERS, integrate
from lumina.flow.times import shift_times, uniform_times
from lumina.nn.extrapolation import RopeScaling, extrapolate
from lumina.types import Velocity
from lumina.worlds.shapes import CLASSES, COLORS, SHAPES, SMALLEST, draw_shape, paint_shape

SCALE = 2
PICTURES, FIRST_SEED = {1: 60, SCALE: 12}, 20000  # by scale; as many of each class
"""Large ones take 20 times as long. More of them go on where fewer stopped."""
STEPS, SHIFT, SOLVER = 12, 2.0, "ab2"
BATCH = 6
SPECK = 0.2
"""Share of the area of the smallest trained triangle below which a part is a speck."""
LIKENESS = 0.75
"""Overlap with the shape asked for from which one object counts as that shape."""

RECIPES = ("claims_shapes", "claims_shapes_longer")
"""Names of recipes that come with the library."""


class Condition(NamedTuple):
    """How the larger canvas is sampled."""

    method: str
    proportional: bool

    @property
    def key(self) -> str:
        """For files."""
        return f"{self.method}{'-proportional' if self.proportional else ''}"


class Sampler(NamedTuple):
    """A network of shapes, followed in so many steps without guidance."""

    network: NextDiT
    steps: int = STEPS

    @torch.no_grad()
    def draw(
        self, labels: Int[Tensor, " b"], seeds: Sequence[int], *, scale: int, condition: Condition
    ) -> UInt8[np.ndarray, "b side side 3"]:
        """Pictures of classes, on a canvas so many times larger than the trained one."""
        side = self.network.config["sample_size"] * scale
        noise = torch.stack(
            [
                torch.randn(3, side, side, generator=torch.Generator().manual_seed(seed))
                for seed in seeds
            ]
        )
        times = shift_times(uniform_times(self.steps), SHIFT)
        velocity = self._velocity(labels, scale, condition)
        x = integrate(velocity, noise, times, solver=SOLVERS[SOLVER])[-1]
        return ((x.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()

    def _velocity(self, labels: Tensor, scale: int, condition: Condition) -> Velocity:
        tokens = self.network.config["sample_size"] // self.network.config["patch_size"]
        base = {"base_sequence_length": tokens**2} if condition.proportional else {}
        is_fast = is_fast_at_bfloat16(torch.device("cpu"))

        def velocity(x: Tensor, t: Tensor) -> Float[Tensor, "b 3 side side"]:
            with torch.autocast("cpu", torch.bfloat16, enabled=is_fast):
                return self.network(
                    x,
                    t.expand(len(x)),
                    class_labels=labels,
                    cross_attention_kwargs=base,
                    rope=scaling_of(self.network, condition.method, scale, t.item()),
                    return_dict=False,
                )[0].float()

        return velocity


def scaling_of(network: NextDiT, method: str, scale: float, time: float) -> RopeScaling:
    """Rotations of a method for a network on a larger canvas."""
    config = network.config
    return extrapolate(
        method,
        scale=float(scale),
        length=float(config["sample_size"] // config["patch_size"]),
        head_width=network.head_dim,
        theta=config["rope_theta"],
        time=time,
    )


def smallest_area(side: int) -> float:
    """Area in pixels below which a part of a picture is a speck: a trained triangle has 5 times it.

    Args:
        side: Of the trained canvas. Objects may keep their size in pixels on a larger one.
    """
    return SPECK * (SMALLEST * side) ** 2 / 2


def find_network(lab: Lab) -> NextDiT:
    """The trained network, trained now if it is not yet.

    Raises:
        LuminaError: If it has to be trained, and the lab does not say how.
    """
    last = None
    for number, recipe in enumerate(RECIPES):
        folder = lab.folder / f"training-{number}"
        if not (folder / "last").exists():
            if lab.train is None:
                raise LuminaError(
                    "this claim trains a network first", hint="give reproduce a way to train"
                )
            lab.tell(f"training by the recipe {recipe}, to be taken up where it stopped")
            start = [] if last is None else [f"start_from={last}"]
            lab.train(recipe, [f"out={folder}", *start])
        last = folder / "last"
    network: Any = NextDiT.from_pretrained(last, subfolder="transformer", torch_dtype=torch.float32)
    return network.eval()


def minutes_of_training(lab: Lab) -> float:
    """Minutes that the steps of all runs took."""
    return sum(
        json.loads(file.read_text())["minutes"]
        for file in lab.folder.glob("training-*/last/training.json")
    )


def look_at(
    lab: Lab, sampler: Sampler, condition: Condition, *, scale: int, first: int = 0
) -> list[Seen]:
    """What the pictures of a condition show, from a first seed on; they are kept beside."""
    end_of_all = first + PICTURES[scale]
    labels, parts = labels_of(end_of_all), []
    for start in range(first, end_of_all, BATCH):
        end = min(start + BATCH, end_of_all)
        file = lab.folder / f"{scale}x-{condition.key}-{start}.npy"
        if not file.exists():
            lab.tell(file.stem)
            pictures = sampler.draw(
                labels[start:end],
                range(FIRST_SEED + start, FIRST_SEED + end),
                scale=scale,
                condition=condition,
            )
            partial = file.with_suffix(".partial.npy")
            np.save(partial, pictures)
            partial.replace(file)
        parts.append(np.load(file))
    return _looks(sampler.network, np.concatenate(parts), labels[first:])


def look_at_painted(network: NextDiT, scale: int) -> list[Seen]:
    """Painted shapes, of which each picture has one."""
    rng = np.random.default_rng(FIRST_SEED)
    labels = labels_of(PICTURES[scale])
    side = network.config["sample_size"] * scale
    pictures = [paint_shape(draw_shape(rng, int(label)), side) for label in labels]
    return _looks(network, np.stack(pictures), labels)


def is_one(seen: Seen) -> bool:
    """Whether there is one object and no other."""
    return seen.objects == 1


def is_like(seen: Seen) -> bool:
    """Whether there is one object, of the shape that was asked for."""
    return is_one(seen) and seen.likeness >= LIKENESS


def labels_of(count: int) -> Int[Tensor, " count"]:
    """Classes of so many pictures, each as often as the others."""
    return torch.arange(count) % CLASSES


def kind_of(label: int) -> str:
    """The shape of a class."""
    return SHAPES[label // len(COLORS)]


def _looks(network: NextDiT, pictures: np.ndarray, labels: Tensor) -> list[Seen]:
    smallest = smallest_area(network.config["sample_size"])
    return [
        look(picture, smallest=smallest, kind=kind_of(int(label)))
        for picture, label in zip(pictures, labels, strict=True)
    ]
