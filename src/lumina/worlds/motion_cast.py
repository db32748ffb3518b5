"""Which things can be in which clips, and clips drawn at random from those."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from lumina.worlds.drawings import PALETTE
from lumina.worlds.motion import DIRECTIONS, FRAME_RATE, LONGEST, Clip

# Speeds in the units of `Clip.speed`, and extents by direction or kind. A thing of the largest
# extent at the highest speed is in view for `LONGEST` frames.
SPEEDS = {
    "move": (0.19, 0.24),
    "spin": (0.22, 0.34),
    "resize": (0.26, 0.31),
    "fade": (1.1, 1.3),
    "bounce": (0.46, 0.6),
    "still": (0.0, 0.0),
}
EXTENTS = {
    "move": (0.42, 0.48),
    "spin": (0.6, 0.68),
    "larger": (0.28, 0.34),
    "smaller": (0.84, 0.9),
    "fade": (0.7, 0.8),
    "bounce": (0.4, 0.46),
    "still": (0.7, 0.8),
}
FIRST_TURN = (0.3, 0.5)  # seconds after which a bounce goes back
JITTER = 0.02  # of centers, in canvases
MARGIN = 0.025  # canvases that a move leaves free along the border

# A pixel is told from a background that is this far over RGB bytes, and a thing if most are.
DISTINCT = 60.0
DISTINCT_SHARE = 0.75
# A thing is seen to spin if, turned by a little, it differs from itself by this share.
TURNED = 20  # degrees
CHANGE = 0.25

T = TypeVar("T")


class Cast:
    """Things, with the backgrounds that each can be seen on and whether each is seen to spin.

    Args:
        things: Their emoji.
        drawings: Their pictures as RGBA bytes, each padded to a square.
    """

    def __init__(self, things: list[str], drawings: UInt8[np.ndarray, "n side side 4"]):
        self.things = things
        self._drawings = dict(zip(things, drawings, strict=True))
        self._backgrounds: dict[str, list[str]] = {}
        self._spinners: dict[str, bool] = {}

    def backgrounds(self, thing: str) -> list[str]:
        """Palette colors from which most of a thing differs."""
        if thing not in self._backgrounds:
            self._backgrounds[thing] = _backgrounds(self._drawings[thing])
        return self._backgrounds[thing]

    def is_spinner(self, thing: str) -> bool:
        """Whether a thing that spins is seen to."""
        if thing not in self._spinners:
            self._spinners[thing] = _is_uneven(self._drawings[thing])
        return self._spinners[thing]

    def draw(
        self,
        rng: np.random.Generator,
        *,
        kinds: Sequence[str] = tuple(DIRECTIONS),
        is_held_out: bool = False,
        frames: int = LONGEST,
    ) -> Clip:
        """Random clip.

        Args:
            rng: Source of chance.
            kinds: Kinds of motion to choose from.
            is_held_out: Whether to draw a thing in a motion that is never trained on, or one that
                may be. Nothing that is still is held out.
            frames: For how many of them the thing is to stay in view.
        """
        while True:
            thing = self.things[rng.integers(len(self.things))]
            kind = kinds[int(rng.integers(len(kinds)))]
            if not self.backgrounds(thing) or (kind == "spin" and not self.is_spinner(thing)):
                continue
            clip = self.draw_of(thing, kind, rng, frames=frames)
            if clip.is_held_out == is_held_out:
                return clip

    def draw_of(
        self, thing: str, kind: str, rng: np.random.Generator, *, frames: int = LONGEST
    ) -> Clip:
        """Random clip of a thing in a kind of motion, which may be held out."""
        direction = _pick(DIRECTIONS[kind] or (None,), rng)
        background = _pick(self.backgrounds(thing), rng)
        speed = float(rng.uniform(*SPEEDS[kind]))
        extent = float(rng.uniform(*EXTENTS.get(direction or "", EXTENTS.get(kind, (0, 0)))))
        x, y = (0.5 + rng.uniform(-JITTER, JITTER, 2)).tolist()
        if kind == "move":
            edge = MARGIN + extent / 2
            at = rng.uniform(edge, 1 - edge - speed * (frames - 1) / FRAME_RATE)
            starts = {"right": (at, y), "left": (1 - at, y), "down": (x, at), "up": (x, 1 - at)}
            x, y = starts[direction or ""]
        if kind == "bounce":
            speed = speed if rng.random() < 0.5 else -speed
            wall = 1 - extent / 2 if speed > 0 else extent / 2
            at = wall - rng.uniform(*FIRST_TURN) * speed
            x, y = (at, y) if direction == "sideways" else (x, at)
        return Clip(thing, kind, direction, speed, (float(x), float(y)), extent, background)


def _pick(options: Sequence[T], rng: np.random.Generator) -> T:
    return options[int(rng.integers(len(options)))]


def _backgrounds(drawing: UInt8[np.ndarray, "side side 4"]) -> list[str]:
    """Palette colors from which most of a drawing differs."""
    opacity = drawing[..., 3] / 255
    colors = drawing[..., :3].astype(np.float32)
    distinct = {
        name: opacity[np.linalg.norm(colors - color, axis=-1) > DISTINCT].sum()
        for name, color in PALETTE.items()
    }
    return [name for name, sum_ in distinct.items() if sum_ > DISTINCT_SHARE * opacity.sum()]


def _is_uneven(drawing: UInt8[np.ndarray, "side side 4"]) -> bool:
    """Whether a drawing that is turned a little differs from itself."""
    picture = Image.fromarray(drawing).convert("RGBa")
    turned = picture.rotate(TURNED, Image.Resampling.BICUBIC)
    # Turned there and back is as blurred as turned once.
    back = turned.rotate(-TURNED, Image.Resampling.BICUBIC)
    once, twice = (np.asarray(one, np.float32) for one in (turned, back))
    return bool(np.square(once - twice).sum() > CHANGE**2 * np.square(twice).sum())
