"""Clips of one emoji drawing that moves, spins, changes size, fades or bounces, and their painting.

A clip is a few numbers and what it shows is a function of time, so that a longer clip of the same
numbers goes on where the shorter one stops.
"""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from lumina.types import Size
from lumina.worlds.drawings import PALETTE, sprite

DIRECTIONS: dict[str, tuple[str, ...]] = {
    "move": ("left", "right", "up", "down"),
    "spin": ("clockwise", "counterclockwise"),
    "resize": ("larger", "smaller"),
    "fade": ("in", "out"),
    "bounce": ("sideways", "up and down"),
    "still": (),
}
"""Kinds of motion, and the directions of each."""

MOTIONS = [(kind, way) for kind, ways in DIRECTIONS.items() for way in ways or (None,)]

FRAME_RATE = 8
FRAMES = 8
LONGEST = 16  # frames for which drawn clips stay in view

# Samples along each side of a pixel, by which parts of a pixel's width are seen as motion.
_FINE = 2


@dataclass(frozen=True)
class Clip:
    """A thing, what it does, and where it begins.

    Args:
        thing: The emoji that is drawn.
        kind: One of `DIRECTIONS`.
        direction: One of the kind's directions; None for what is still.
        speed: How much changes in a second: canvases for "move" and "bounce" (below 0 where a
            bounce first goes left or up), turns for "spin", extent for "resize", opacity for
            "fade".
        center: Where its middle is at first, as fractions of the canvas width and height.
        extent: Its longer side at first, as a fraction of the canvas's shorter side.
        background: A palette color.
    """

    thing: str
    kind: str = "still"
    direction: str | None = None
    speed: float = 0.0
    center: tuple[float, float] = (0.5, 0.5)
    extent: float = 0.5
    background: str = "white"

    @property
    def is_held_out(self) -> bool:
        """Whether this thing in this motion is never trained on: a fixed tenth; still, never."""
        if self.kind == "still":
            return False
        key = "|".join([self.thing, self.kind, self.direction or ""])
        return hashlib.blake2b(key.encode(), digest_size=4).digest()[0] % 10 == 0


@dataclass(frozen=True)
class Pose:
    """How a thing is drawn at one time.

    Args:
        center: Its middle, as fractions of the canvas width and height.
        extent: Its longer side as a fraction of the canvas's shorter side.
        turned: Angle clockwise from upright, in radians.
        opacity: From 0, where it is not seen, to 1.
    """

    center: tuple[float, float]
    extent: float
    turned: float = 0.0
    opacity: float = 1.0


def pose_at(clip: Clip, seconds: float, size: Size) -> Pose:
    """Pose of the thing of a clip at a time.

    Args:
        clip: What happens.
        seconds: Since the start of the clip.
        size: Of the canvas, on whose borders bounces turn back.
    """
    change = clip.speed * seconds
    center, extent = clip.center, clip.extent
    if clip.kind == "move":
        return Pose(_shifted(center, clip.direction, change), extent)
    if clip.kind == "spin":
        sign = 1 if clip.direction == "clockwise" else -1
        return Pose(center, extent, turned=sign * math.tau * change)
    if clip.kind == "resize":
        return Pose(center, extent + (change if clip.direction == "larger" else -change))
    if clip.kind == "fade":
        opacity = change if clip.direction == "in" else 1 - change
        return Pose(center, extent, opacity=min(max(opacity, 0.0), 1.0))
    if clip.kind == "bounce":
        return Pose(_reflected(clip, change, size), extent)
    return Pose(center, extent)


def paint_clip(
    clip: Clip,
    size: Size,
    frames: int = FRAMES,
    *,
    frame_rate: float = FRAME_RATE,
    drawing_of: Callable[[str], Image.Image] = sprite,
) -> UInt8[np.ndarray, "frames rows cols 3"]:
    """Frames of a clip.

    Args:
        clip: What to paint.
        size: Of each frame, in pixels.
        frames: How many; twice as many last twice as long.
        frame_rate: Frames in a second.
        drawing_of: What each emoji looks like, as RGBA.
    """
    drawing = drawing_of(clip.thing).convert("RGBa")
    poses = [pose_at(clip, frame / frame_rate, size) for frame in range(frames)]
    return np.stack([_paint_pose(pose, drawing, clip.background, size) for pose in poses])


def _shifted(center: tuple[float, float], direction: str | None, by: float) -> tuple[float, float]:
    x, y = center
    ways = {"left": (x - by, y), "right": (x + by, y), "up": (x, y - by), "down": (x, y + by)}
    return ways[direction or ""]


def _reflected(clip: Clip, change: float, size: Size) -> tuple[float, float]:
    """Center that goes back and forth between borders."""
    axis = 0 if clip.direction == "sideways" else 1
    margin = clip.extent * min(size) / size[axis] / 2
    room = 1 - 2 * margin
    gone = (clip.center[axis] - margin + change) % (2 * room)
    place = margin + min(gone, 2 * room - gone)
    return (place, clip.center[1]) if axis == 0 else (clip.center[0], place)


def _paint_pose(
    pose: Pose, drawing: Image.Image, background: str, size: Size
) -> UInt8[np.ndarray, "rows cols 3"]:
    layer = np.asarray(_place(pose, drawing, size), np.float32) * pose.opacity
    canvas = np.array(PALETTE[background], np.float32)
    seen = layer[..., :3] + canvas * (1 - layer[..., 3:] / 255)
    return seen.round().clip(0, 255).astype(np.uint8)


def _place(pose: Pose, drawing: Image.Image, size: Size) -> Image.Image:
    """Transparent picture of a size with the drawing in a pose; colors are times opacity."""
    fine = Size(size.width * _FINE, size.height * _FINE)
    # Below one pixel a thing is gone, and its size may not reach 0.
    factor = max(pose.extent * min(fine), 0.01) / max(drawing.size)
    # Averages first, since what follows looks at neighbors only and would miss thin lines.
    if shrink := int(0.7 / factor):
        drawing = drawing.reduce(max(1, min(shrink, *drawing.size)))
        factor = max(pose.extent * min(fine), 0.01) / max(drawing.size)
    cos, sin = math.cos(pose.turned) / factor, math.sin(pose.turned) / factor
    x, y = pose.center[0] * fine.width, pose.center[1] * fine.height
    left = drawing.width / 2 - cos * x - sin * y
    top = drawing.height / 2 + sin * x - cos * y
    placed = drawing.transform(
        fine,
        Image.Transform.AFFINE,
        (cos, sin, left, -sin, cos, top),
        Image.Resampling.BICUBIC,
    )
    return placed.reduce(_FINE)
