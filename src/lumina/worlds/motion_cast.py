"""Which things can be in which clips, and clips drawn at random from those."""

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image

from lumina.worlds.drawings import PALETTE
from lumina.worlds.motion import DIRECTIONS, FRAME_RATE, LONGEST, Clip

# Speeds in the units of `Clip.speed`, and extents. A thing of the largest extent, at the highest
# speed, is in view for `LONGEST` frames.
MOVING, MOVING_EXTENT = (0.2, 0.26), (0.44, 0.5)
SPINNING, SPINNING_EXTENT = (0.22, 0.34), (0.6, 0.68)
GROWING, SMALL_EXTENT, LARGE_EXTENT = (0.26, 0.31), (0.28, 0.34), (0.84, 0.9)
FADING, WHOLE_EXTENT = (0.75, 1.0), (0.7, 0.8)
BOUNCING, BOUNCING_EXTENT = (0.46, 0.6), (0.4, 0.46)
FIRST_WALL = (0.3, 0.5)  # seconds after which a bounce first turns back
JITTER = 0.02  # of centers, in canvases

# A pixel is told from a background that is this far over RGB bytes, and a thing if most are.
DISTINCT = 60.0
DISTINCT_SHARE = 0.75
# A thing is seen to spin if, turned by a little, it differs from itself by this share.
TURNED = 20  # degrees
CHANGE = 0.25


class Cast:
    """Things, with the backgrounds that each can be seen on and whether each is seen to spin.

    Args:
        things: Their emoji.
        drawings: Their pictures as RGBA bytes, each padded to a square.
    """

    def __init__(self, things: list[str], drawings: UInt8[np.ndarray, "n side side 4"]):
        self.things = things
        self.backgrounds = {
            thing: _backgrounds(drawing) for thing, drawing in zip(things, drawings, strict=True)
        }
        self.spinners = {
            thing for thing, drawing in zip(things, drawings, strict=True) if _is_uneven(drawing)
        }
        self.things = [thing for thing in things if self.backgrounds[thing]]

    def draw(
        self, rng: np.random.Generator, *, is_held_out: bool = False, frames: int = LONGEST
    ) -> Clip:
        """Random clip.

        Args:
            rng: Source of chance.
            is_held_out: Whether to draw a thing in a motion that is never trained on, or one that
                may be.
            frames: For how many of them the thing is to stay in view.
        """
        while True:
            thing = self.things[rng.integers(len(self.things))]
            kind = list(DIRECTIONS)[rng.integers(len(DIRECTIONS))]
            clip = self.draw_of(thing, kind, rng, frames=frames)
            if clip.is_held_out == is_held_out and not (
                kind == "spin" and thing not in self.spinners
            ):
                return clip

    def draw_of(
        self, thing: str, kind: str, rng: np.random.Generator, *, frames: int = LONGEST
    ) -> Clip:
        """Random clip of a thing in a kind of motion."""
        ways = DIRECTIONS[kind]
        direction = ways[rng.integers(len(ways))] if ways else None
        background = self.backgrounds[thing][rng.integers(len(self.backgrounds[thing]))]
        x, y = 0.5 + rng.uniform(-JITTER, JITTER, 2)
        seconds = (frames - 1) / FRAME_RATE
        if kind == "move":
            speed, extent = rng.uniform(*MOVING), rng.uniform(*MOVING_EXTENT)
            at = rng.uniform(extent / 2, 1 - extent / 2 - speed * seconds)
            x, y = {"right": (at, y), "left": (1 - at, y), "down": (x, at), "up": (x, 1 - at)}[
                direction or ""
            ]
        elif kind == "bounce":
            extent = rng.uniform(*BOUNCING_EXTENT)
            speed = rng.uniform(*BOUNCING) * rng.choice([-1, 1])
            until = rng.uniform(*FIRST_WALL) * speed
            at = (1 - extent / 2 if speed > 0 else extent / 2) - until
            x, y = (at, y) if direction == "sideways" else (x, at)
        elif kind == "spin":
            speed, extent = rng.uniform(*SPINNING), rng.uniform(*SPINNING_EXTENT)
        elif kind == "resize":
            speed = rng.uniform(*GROWING)
            extent = rng.uniform(*(SMALL_EXTENT if direction == "larger" else LARGE_EXTENT))
        else:
            speed = rng.uniform(*FADING) if kind == "fade" else 0.0
            extent = rng.uniform(*WHOLE_EXTENT)
        center = (float(x), float(y))
        return Clip(thing, kind, direction, float(speed), center, float(extent), background)


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
    back = turned.rotate(-TURNED, Image.Resampling.BICUBIC).rotate(0)
    once, twice = (np.asarray(one, np.float32) for one in (turned, back))
    return bool(np.square(once - twice).sum() > CHANGE**2 * np.square(twice).sum())
