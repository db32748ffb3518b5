"""What views show of an item, by rules that need no model: kind, color, outline and agreement."""

import itertools
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image

from lumina.worlds.item_kinds import KINDS
from lumina.worlds.items import COLORS, ELEVATION, RADIUS, Item, camera_axes, render_outlines
from lumina.worlds.judge import border_color, drop_specks

SIDE = 48  # pixels of outlines that are compared
# A pixel shows the item if it is further than this from the background over RGB bytes: half of
# the distance of the parts that are nearest to white, so that outlines are where edges are.
DISTINCT = 60.0
# Only pixels with this share of the chroma of the most colorful ones tell the color: others are
# gray parts, or edges, where red on white is pink.
COLORFUL = 0.7
GRAY = 45  # chroma, over bytes, below which all is gray
MEMBERS = {2: 6, 3: 4}  # values of each number, of kinds with so many, among the known items
VOXELS = 64  # along each side of the cube that outlines are carved from


@dataclass(frozen=True)
class ItemVerdict:
    """What views show of an item.

    Args:
        item: What was asked for; of its shape nothing is.
        kinds: For each view, the kind of the known item whose outline fits best.
        colors: For each view, the nearest color; None where there is none.
        overlap: Mean overlap of outlines with those of the nearest known item of the kind asked
            for, which is the same item in all views: area of both over area of either.
        agreement: Share of the outlines that a solid can fill which lies within all outlines;
            near 1 where all views can be of one thing.
    """

    item: Item
    kinds: tuple[str | None, ...]
    colors: tuple[str | None, ...]
    overlap: float
    agreement: float

    @property
    def kind_share(self) -> float:
        """Share of views that show the kind asked for."""
        return self.kinds.count(self.item.kind) / len(self.kinds)

    @property
    def color_share(self) -> float:
        """Share of views that show the color asked for."""
        return self.colors.count(self.item.color) / len(self.colors)

    @property
    def is_of_one_color(self) -> bool:
        """Whether all views have the same color, which need not be the one asked for."""
        return None not in self.colors and len(set(self.colors)) == 1


class Showroom:
    """Known items of all kinds, and their outlines in some views.

    Args:
        azimuths: Of the views, in radians.
        elevation: Of the views, in radians.
    """

    def __init__(self, azimuths: Float[np.ndarray, " views"], elevation: float = ELEVATION):
        self.azimuths = azimuths
        self.elevation = elevation
        self._outlines: dict[str, Bool[np.ndarray, "members views side side"]] = {}

    def judge(self, item: Item, views: UInt8[np.ndarray, "views rows cols 3"]) -> ItemVerdict:
        """Say what views show of an item that was asked for."""
        masks = np.stack([outline_of(view) for view in views])
        overlaps = {kind: _overlaps(self._known(kind), masks) for kind in KINDS}
        best = np.stack([overlap.max(0) for overlap in overlaps.values()])  # (kinds, views)
        kinds = [list(KINDS)[k] if best[k, v] else None for v, k in enumerate(best.argmax(0))]
        colors = tuple(color_of(view) for view in views)
        overlap = float(overlaps[item.kind].mean(1).max())
        agreement = find_agreement(masks, self.azimuths, elevation=self.elevation)
        return ItemVerdict(item, tuple(kinds), colors, overlap, agreement)

    def _known(self, kind: str) -> Bool[np.ndarray, "members views side side"]:
        if kind not in self._outlines:
            count = len(KINDS[kind].ranges)
            values = (np.arange(MEMBERS[count]) + 0.5) / MEMBERS[count]
            self._outlines[kind] = np.stack(
                [
                    render_outlines(
                        Item(kind, "red", units), SIDE, self.azimuths, elevation=self.elevation
                    )
                    for units in itertools.product(values.tolist(), repeat=count)
                ]
            )
        return self._outlines[kind]


def outline_of(view: UInt8[np.ndarray, "rows cols 3"]) -> Bool[np.ndarray, "side side"]:
    """Which parts of a view are not background, at the size at which outlines are compared."""
    mask = np.linalg.norm(view - border_color(view), axis=-1) > DISTINCT
    kept = Image.fromarray(np.where(drop_specks(mask), 255, 0).astype(np.uint8))
    return np.asarray(kept.resize((SIDE, SIDE), Image.Resampling.BOX)) >= 128


def color_of(view: UInt8[np.ndarray, "rows cols 3"]) -> str | None:
    """Color in `COLORS` that is nearest to the most colorful pixels, however they are lit."""
    pixels = view.reshape(-1, 3).astype(np.float32)
    chroma = pixels.max(1) - pixels.min(1)
    seen = chroma > GRAY
    if not seen.any():
        return None
    clear = chroma >= COLORFUL * np.quantile(chroma[seen], 0.9)
    color = np.median(_hue(pixels[clear]), axis=0)
    distances = np.linalg.norm(_hue(np.array(list(COLORS.values()), np.float32)) - color, axis=1)
    return list(COLORS)[int(distances.argmin())]


def find_agreement(
    masks: Bool[np.ndarray, "views side side"],
    azimuths: Float[np.ndarray, " views"],
    *,
    elevation: float = ELEVATION,
) -> float:
    """Share of outlines that is filled by the largest solid which lies within all of them.

    Returns:
        The mean over views; 0 where any view is empty.
    """
    side = masks.shape[1]
    line = (np.arange(VOXELS) + 0.5) / VOXELS - 0.5
    points = np.stack(np.meshgrid(line, line, line, indexing="ij"), -1).reshape(-1, 3)
    points = points[np.linalg.norm(points, axis=1) <= 0.5]
    places = []
    for azimuth in azimuths:
        right, up, _ = camera_axes(azimuth, elevation)
        across = (0.5 + points @ right * (2 * RADIUS)) * side
        down = (0.5 - points @ up * (2 * RADIUS)) * side
        places.append(down.astype(int) * side + across.astype(int))
    flat = masks.reshape(len(masks), -1)
    inside = np.all([mask[place] for mask, place in zip(flat, places, strict=True)], axis=0)
    filled = np.zeros_like(flat)
    for row, place in zip(filled, places, strict=True):
        row[place[inside]] = True
    return float((filled.sum(1) / np.maximum(flat.sum(1), 1)).mean())


def _overlaps(
    known: Bool[np.ndarray, "members views side side"], masks: Bool[np.ndarray, "views side side"]
) -> Float[np.ndarray, "members views"]:
    both = (known & masks).sum((2, 3))
    return both / np.maximum((known | masks).sum((2, 3)), 1)


def _hue(colors: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
    """Colors at one brightness."""
    return colors / np.linalg.norm(colors, axis=1, keepdims=True)
