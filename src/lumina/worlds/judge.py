"""What a picture shows, by rules that need no model: which thing, where, on which color."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image

from lumina.worlds.captions import PLACES, RELATIONS, Brief
from lumina.worlds.drawings import PALETTE

# A pixel belongs to a thing if it is further than this from the background, as euclidean distance
# over RGB bytes. Noise of 12 levels stays below it once nine neighbors are averaged, and the pale
# gray with which the font shades white things stays above it.
DISTINCT = 28.0
# Blots smaller than this share of the largest one are specks, not parts of a thing.
SPECK = 0.02
BORDER = 2  # pixels along each edge in which the background is looked for
MIDDLE = 0.2  # share of the picture, around its middle, in which two things are told apart
NEAR = 5  # a thing that ranks above this among all is nearly right


class CutOut(NamedTuple):
    """A picture, and which of its pixels are not background."""

    pixels: UInt8[np.ndarray, "rows cols 3"]
    mask: Bool[np.ndarray, "rows cols"]
    background: Float[np.ndarray, "3"]

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing but background."""
        return not self.mask.any()

    @property
    def box(self) -> tuple[slice, slice]:
        """Rows and columns that hold all that is not background."""
        rows, cols = (np.flatnonzero(self.mask.any(axis)) for axis in (1, 0))
        return slice(rows[0], rows[-1] + 1), slice(cols[0], cols[-1] + 1)

    @property
    def centroid(self) -> tuple[float, float]:
        """Mean place of what is not background, as fractions of the width and height."""
        rows, cols = np.nonzero(self.mask)
        height, width = self.mask.shape
        return (cols.mean() + 0.5) / width, (rows.mean() + 0.5) / height


@dataclass(frozen=True)
class Verdict:
    """What a picture shows of a brief.

    Args:
        brief: What was asked for.
        ranks: For each thing asked for, how many others its part of the picture resembles more.
        found: For each thing asked for, what its part of the picture resembles most.
        background: Nearest palette color.
        place: Where the middle of what is not background is.
    """

    brief: Brief
    ranks: tuple[int, ...]
    found: tuple[str | None, ...]
    background: str
    place: str | None

    @property
    def is_found(self) -> bool:
        """Whether each thing asked for is what its part of the picture resembles most."""
        return max(self.ranks) == 0

    @property
    def is_near(self) -> bool:
        """Whether each thing asked for is among the five that its part resembles most."""
        return max(self.ranks) < NEAR

    @property
    def is_color_right(self) -> bool:
        """Whether the background is the one asked for; white where none was."""
        return self.background == (self.brief.background or "white")

    @property
    def is_place_right(self) -> bool:
        """Whether the thing is where it was asked for."""
        return self.place == (self.brief.place or "middle")


class Lineup:
    """All reference drawings, to find the one that a picture resembles.

    Args:
        things: Their emoji.
        drawings: Their pictures as RGBA bytes, each padded to a square.
    """

    def __init__(self, things: list[str], drawings: UInt8[np.ndarray, "n side side 4"]):
        self.things = things
        self._side = drawings.shape[1]
        opacity = drawings[..., 3].reshape(len(things), -1).astype(np.float32) / 255
        colors = drawings[..., :3].reshape(len(things), -1, 3) / np.float32(255)
        self._opacity = opacity
        self._colors = (colors * opacity[..., None]).reshape(len(things), -1)
        self._color_squares = np.square(self._colors).sum(1)
        self._products = np.einsum("npc,np->nc", colors, np.square(opacity))
        self._opacity_squares = np.square(opacity).sum(1)

    def distances(self, cut: CutOut) -> Float[np.ndarray, " n"]:
        """How far a cut-out is from each drawing on the same background.

        Root mean square over RGB in [0, 1], both in a square of the references' size.

        Args:
            cut: A cut-out that is not empty.
        """
        background = cut.background.astype(np.float32) / 255
        seen = _square(cut, self._side).reshape(-1, 3) / 255 - background
        # The square of (colors - opacity * background - seen), multiplied out: two products with
        # matrices that are always the same, where painting all drawings anew takes far longer.
        squares = (
            self._color_squares
            - 2 * self._products @ background
            + self._opacity_squares * np.square(background).sum()
            - 2 * (self._colors @ seen.ravel() - self._opacity @ (seen @ background))
            + np.square(seen).sum()
        )
        return np.sqrt(np.maximum(squares, 0) / seen.size)

    def judge(self, brief: Brief, pixels: UInt8[np.ndarray, "rows cols 3"]) -> Verdict:
        """Say what a picture shows of what was asked for."""
        cut = cut_out(pixels)
        parts = split(cut, brief.relation) if brief.relation else (cut,)
        seen = [self._look(part, thing) for thing, part in zip(brief.things, parts, strict=True)]
        ranks, found = zip(*seen, strict=True)
        return Verdict(brief, ranks, found, nearest_color(cut.background), place_of(cut))

    def _look(self, cut: CutOut, thing: str) -> tuple[int, str | None]:
        """Rank of a thing, and the thing that is nearest."""
        if cut.is_empty:
            return len(self.things), None
        distances = self.distances(cut)
        rank = int((distances < distances[self.things.index(thing)]).sum())
        return rank, self.things[int(distances.argmin())]


def cut_out(pixels: UInt8[np.ndarray, "rows cols 3"]) -> CutOut:
    """Tell what is not background from the background, which is the usual color of the border."""
    background = border_color(pixels)
    distance = np.linalg.norm(average_neighbors(pixels) - background, axis=-1)
    return CutOut(pixels, drop_specks(distance > DISTINCT), background)


def border_color(pixels: UInt8[np.ndarray, "rows cols 3"]) -> Float[np.ndarray, "3"]:
    """Usual color of the border."""
    edges = (pixels[:BORDER], pixels[-BORDER:], pixels[:, :BORDER], pixels[:, -BORDER:])
    border = np.concatenate([edge.reshape(-1, 3) for edge in edges])
    return np.median(border, axis=0)


def nearest_color(color: Float[np.ndarray, "3"]) -> str:
    """Name of the palette color that is nearest over RGB."""
    return min(PALETTE, key=lambda name: float(np.linalg.norm(color - PALETTE[name])))


def place_of(cut: CutOut) -> str | None:
    """Which of the places that captions name, or "middle", the centroid is nearest to."""
    if cut.is_empty:
        return None
    places = PLACES | {"middle": (0.5, 0.5)}
    return min(places, key=lambda name: float(np.hypot(*np.subtract(cut.centroid, places[name]))))


def split(cut: CutOut, relation: str) -> tuple[CutOut, CutOut]:
    """Part in two at the emptiest line near the middle.

    Args:
        cut: The cut-out of a picture with two things.
        relation: How the first stands to the second.

    Returns:
        The parts where the first and the second should be.
    """
    first_place, _ = RELATIONS[relation]
    axis = 1 if first_place in ("left", "right") else 0
    counts = cut.mask.sum(1 - axis)
    middle = len(counts) / 2
    reach = MIDDLE / 2 * len(counts)
    lines = range(int(middle - reach), int(middle + reach) + 1)
    line = min(lines, key=lambda line: (counts[line], abs(line + 0.5 - middle)))
    is_before = np.expand_dims(np.arange(len(counts)) < line, 1 - axis)
    before = cut._replace(mask=cut.mask & is_before)
    after = cut._replace(mask=cut.mask & ~is_before)
    return (before, after) if first_place in ("left", "top") else (after, before)


def join_runs(
    rows: Int[np.ndarray, " runs"], starts: Int[np.ndarray, " runs"], ends: Int[np.ndarray, " runs"]
) -> Int[np.ndarray, " runs"]:
    """Number of the connected blot that each run of pixels in a row belongs to."""
    is_next_row = rows[:, None] + 1 == rows
    upper, lower = np.nonzero(is_next_row & (starts[:, None] <= ends) & (starts <= ends[:, None]))
    blots = np.arange(len(rows))
    while (blots[upper] != blots[lower]).any():
        np.minimum.at(blots, lower, blots[upper])
        np.minimum.at(blots, upper, blots[lower])
        blots = blots[blots]
    return blots


def average_neighbors(
    pixels: UInt8[np.ndarray, "rows cols 3"],
) -> Float[np.ndarray, "rows cols 3"]:
    """Mean of each pixel and the eight around it, as far as they are in the picture."""
    height, width, _ = pixels.shape
    padded = np.pad(pixels.astype(np.float32), ((1, 1), (1, 1), (0, 0)), mode="edge")
    windows = [padded[y : y + height, x : x + width] for y in range(3) for x in range(3)]
    return np.mean(windows, axis=0)


def drop_specks(mask: Bool[np.ndarray, "rows cols"]) -> Bool[np.ndarray, "rows cols"]:
    """Leave out blots that are small beside the largest."""
    steps = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    rows, starts = np.nonzero(steps == 1)
    _, ends = np.nonzero(steps == -1)
    if not len(rows):
        return mask
    blots = join_runs(rows, starts, ends)
    areas = np.bincount(blots, weights=ends - starts)
    is_kept = areas[blots] >= SPECK * areas.max()
    changes = np.zeros_like(steps)
    changes[rows, starts] += is_kept
    # The end of one run is never the start of the next, so nothing is written twice.
    changes[rows, ends] -= is_kept
    return np.cumsum(changes, axis=1)[:, :-1] == 1


def _square(cut: CutOut, side: int) -> Float[np.ndarray, "side side 3"]:
    """What is cut out, padded to a square with the background and resized."""
    crop = cut.pixels[cut.box]
    rows, cols, _ = crop.shape
    longer = max(rows, cols)
    square = np.empty((longer, longer, 3), np.uint8)
    square[:] = cut.background.round()
    top, left = (longer - rows) // 2, (longer - cols) // 2
    square[top : top + rows, left : left + cols] = crop
    small = Image.fromarray(square).resize((side, side), Image.Resampling.BOX)
    return np.asarray(small, np.float32)
