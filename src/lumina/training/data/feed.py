"""Which examples make the batch of a step, as a function of the step and nothing else."""

import functools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import numpy as np

from lumina.errors import LuminaError
from lumina.settings import setting
from lumina.training.data.buckets import Placed
from lumina.training.data.interleaving import Interleaving, Turn

BUCKETS, SOURCES, EPOCHS, CAPTIONS = 20, 21, 22, 23
"""What tells random numbers of one use from those of others in a run."""


@dataclass(frozen=True, kw_only=True)
class Batches:
    """How examples come together in a step."""

    batch_size: int = setting(64, "pictures of a step, at the largest size of the run", ge=1)
    shapes: str = setting(
        "one", "all pictures of a step have one size, or any", choices=("one", "packed")
    )
    multiple: int = setting(
        1, "pictures of a step of one size are a multiple of this, for as many processes", ge=1
    )
    caption_dropout: float = setting(0.1, "share of captions that are left out", ge=0, le=1)


class Draw(NamedTuple):
    """One picture of a batch.

    Args:
        source: Number of its source.
        index: Its place among the examples of the source.
        placed: The example and its crop.
        caption: What is said of it; "" where it is left out.
        is_dropped: Whether caption and class are left out.
        place: Its place in the batch of all processes, which tells a picture that comes twice from
            itself.
    """

    source: int
    index: int
    placed: Placed
    caption: str
    is_dropped: bool
    place: int


class Feed:
    """Batches from several sources, mixed by weight, each with its own epochs.

    The feed has no state: a run that goes on at a step gets what an unbroken run gets there.
    Within a source every example comes once before any comes again, among those of its size.
    A step takes as many pixels at any size: smaller pictures come in larger batches.

    Args:
        sources: Examples of each source, with their crops.
        weights: How often each source is drawn from, relative to the others, in pictures.
        batches: How examples come together.
        seed: Of the order and the captions.
        pixels: How many pixels a step takes at most; 0 stands for a batch of the largest size.

    Raises:
        LuminaError: If a source is empty, sources and weights do not match, or packed batches
            have one picture.
    """

    def __init__(
        self,
        sources: Sequence[Sequence[Placed]],
        weights: Sequence[float],
        batches: Batches,
        *,
        seed: int,
        pixels: int = 0,
    ):
        if len(sources) != len(weights) or not sources or not all(map(len, sources)):
            raise LuminaError(
                f"sources have {', '.join(str(len(source)) for source in sources)} examples"
                f" for {len(weights)} weights",
                hint="each source needs a weight and at least one example",
            )
        if batches.shapes == "packed" and batches.batch_size < 2:
            raise LuminaError("packed batches of one picture", hint="choose a batch_size above 1")
        self._sources, self._batches, self._seed = sources, batches, seed
        members = _members(sources)
        self.sizes = sorted(members, key=lambda size: (-prod(size), size))
        self.pixels = pixels or batches.batch_size * prod(self.sizes[0])
        self._groups = [members[size] for size in self.sizes]
        self._shares = [
            [weights[source] * len(group) / len(sources[source]) for source, group in bucket]
            for bucket in self._groups
        ]
        self._mixes = [
            Interleaving(shares, [1] * len(shares), self._random(SOURCES, number))
            for number, shares in enumerate(self._shares)
        ]
        self._order = self._interleave_sizes()

    def count(self, size: tuple[int, ...]) -> int:
        """How many pictures a batch of one size has."""
        multiple = self._batches.multiple
        return max(1, self.pixels // (prod(size)) // multiple) * multiple

    def batch(self, step: int) -> list[Draw]:
        """All pictures of a step, of all processes together."""
        rng = self._random(CAPTIONS, step)
        members = enumerate(self._indices(step))
        return [self._draw(source, index, place, rng) for place, (source, index) in members]

    def share(self, step: int, *, rank: int, world: int) -> list[Draw]:
        """The part of a step that one process takes.

        The parts of all processes are the same pictures with the same captions as the whole,
        however many processes there are.

        Args:
            step: Number of the step, from 0.
            rank: Number of the process, from 0.
            world: How many processes there are.

        Raises:
            LuminaError: If a batch of one size cannot be shared evenly, or a packed one has
                fewer pictures than there are processes.
        """
        self.check_shares(world)
        batch = self.batch(step)
        if self._batches.shapes == "packed":
            return _deal(batch, world)[rank]
        size = len(batch) // world
        return batch[rank * size : (rank + 1) * size]

    def check_shares(self, world: int) -> None:
        """Refuse batches of one size that so many processes cannot share evenly.

        Raises:
            LuminaError: If there are such.
        """
        if self._batches.shapes == "packed":
            return
        for size in self.sizes:
            if self.count(size) % world:
                raise LuminaError(
                    f"the {self.count(size)} pictures of a batch of {'x'.join(map(str, size))}"
                    f" cannot be shared evenly by {world} processes",
                    hint=f"set batch_multiple = {world}",
                )

    def lines(self) -> list[str]:
        """What the batches are, size by size, as lines of text."""
        total = sum(map(sum, self._shares))
        return [
            f"{'x'.join(map(str, size))}: {sum(len(group) for _, group in bucket)} examples,"
            f" {sum(shares) / total:.1%} of those drawn, {self._describe(size)}"
            for size, bucket, shares in zip(self.sizes, self._groups, self._shares, strict=True)
        ]

    def _describe(self, size: tuple[int, ...]) -> str:
        if self._batches.shapes == "packed":
            return "in batches of any sizes"
        return f"in batches of {self.count(size)}"

    def _interleave_sizes(self) -> Interleaving:
        shares = [sum(shares) for shares in self._shares]
        rng = self._random(BUCKETS)
        if self._batches.shapes == "packed":
            return Interleaving(shares, [prod(size) for size in self.sizes], rng)
        counts = [self.count(size) for size in self.sizes]
        weights = [share / count for share, count in zip(shares, counts, strict=True)]
        return Interleaving(weights, [1] * len(weights), rng)

    def _indices(self, step: int) -> list[tuple[int, int]]:
        """Source and place in it of each picture of a step."""
        if self._batches.shapes == "packed":
            return [self._member(turn) for turn in self._packed_turns(step)]
        (turn,) = self._order.between(step, step + 1)
        count = self.count(self.sizes[turn.which])
        first = turn.index * count
        return [self._member(Turn(turn.which, first + number)) for number in range(count)]

    def _packed_turns(self, step: int) -> list[Turn]:
        """Pictures that begin within the pixels of a step.

        The last of them may end one picture later, for which room is left.
        """
        largest = prod(self.sizes[0])
        room = self.pixels - largest
        return self._order.between(step * room, (step + 1) * room)

    def _member(self, turn: Turn) -> tuple[int, int]:
        (inner,) = self._mixes[turn.which].between(turn.index, turn.index + 1)
        source, group = self._groups[turn.which][inner.which]
        epoch, place = divmod(inner.index, len(group))
        order = _permutation((self._seed, EPOCHS, turn.which, source, epoch), len(group))
        return source, int(group[order[place]])

    def _draw(self, source: int, index: int, place: int, rng: np.random.Generator) -> Draw:
        placed = self._sources[source][index]
        is_dropped = bool(rng.random() < self._batches.caption_dropout)
        caption = placed.example.captions.draw(rng)
        return Draw(source, index, placed, "" if is_dropped else caption, is_dropped, place)

    def _random(self, *use: int) -> np.random.Generator:
        return np.random.default_rng((self._seed, *use))


Bucket = list[tuple[int, np.ndarray]]
"""Sources that have a size, each with the places of its examples of that size."""


def _members(sources: Sequence[Sequence[Placed]]) -> dict[tuple[int, ...], Bucket]:
    buckets: dict[tuple[int, ...], Bucket] = defaultdict(list)
    for number, source in enumerate(sources):
        places: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for index, placed in enumerate(source):
            places[placed.size].append(index)
        for size, group in places.items():
            buckets[size].append((number, np.array(group)))
    return buckets


@functools.lru_cache(maxsize=1024)
def _permutation(key: tuple[int, ...], count: int) -> np.ndarray:
    return np.random.default_rng(key).permutation(count)


def _deal(batch: list[Draw], world: int) -> list[list[Draw]]:
    """Parts of a batch with about as many pixels each: the largest first, to whom has the least.

    Raises:
        LuminaError: If there are fewer pictures than parts.
    """
    if len(batch) < world:
        raise LuminaError(
            f"{len(batch)} pictures cannot be shared by {world} processes",
            hint="choose a larger batch_size",
        )
    parts: list[list[Draw]] = [[] for _ in range(world)]
    pixels = [0] * world
    for draw in sorted(batch, key=_pixels, reverse=True):
        least = pixels.index(min(pixels))
        parts[least].append(draw)
        pixels[least] += _pixels(draw)
    return parts


def _pixels(draw: Draw) -> int:
    return prod(draw.placed.size)
