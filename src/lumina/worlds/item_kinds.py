"""Kinds of items: which numbers shape each, and of which parts it is built.

Lengths are in any unit: `lumina.worlds.items` brings all items to one size. Front is toward -y.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from lumina.worlds.solid_parts import (
    Triangles,
    box,
    moved,
    post,
    ring,
    sideways,
    slab,
    turned,
    wheel,
)
from lumina.worlds.solid_parts import upright as stand

Shape = Mapping[str, float]
"""The numbers that shape one item, by name."""

Part = tuple[Triangles, str]
"""A surface, and "main" for the item's own color or one of `TONES`."""

# Colors of the parts that are the same whatever color the item has. They have little color, by
# which they are told from it.
TONES = {"dark": (62, 62, 66), "light": (186, 186, 190), "wood": (104, 84, 66)}


class Kind(NamedTuple):
    """A kind of items.

    Args:
        build: Makes the parts out of a number for each name in `ranges`.
        ranges: The least and the greatest of each number.
    """

    build: Callable[[Shape], list[Part]]
    ranges: dict[str, tuple[float, float]]


def _chair(s: Shape) -> list[Part]:
    seat, back = s["seat"], s["back"]
    return [
        (box((0, 0, seat), (1, 1, 0.16)), "main"),
        (box((0, 0.44, seat + back / 2), (1, 0.12, back)), "main"),
        *_legs(0.86, 0.86, height=seat, thickness=0.14),
    ]


def _table(s: Shape) -> list[Part]:
    length, high = s["length"], s["height"]
    return [
        (box((0, 0, high), (length, 1.1, 0.16)), "main"),
        *_legs(length - 0.2, 0.9, height=high, thickness=0.14),
    ]


def _mug(s: Shape) -> list[Part]:
    radius, wall, high = s["radius"], 0.07, 1.0
    inner = radius - wall
    # The part of a ring that is outside of the wall, its hole along y.
    handle = ring(radius=1, tube=0.2, angle=np.pi)[..., [1, 2, 0]]
    outside = [(0, 0), (radius, 0), (radius, high), (inner, high), (inner, 0.8)]
    return [
        (turned([(float(r), float(z)) for r, z in outside]), "main"),
        (turned([(0, 0.8), (inner, 0.8)]), "dark"),
        (moved(handle * [s["handle"], 0.5, 0.34], x=radius - wall / 2, z=0.5), "main"),
    ]


def _car(s: Shape) -> list[Part]:
    half, high, roof, width = s["length"] / 2, s["body"], s["roof"], 0.95
    low, cabin = 0.2, [(-0.5 * half, 0), (0.8 * half, 0), (0.6 * half, roof), (-0.2 * half, roof)]
    window = [
        (-0.4 * half, 0),
        (0.7 * half, 0),
        (0.57 * half, 0.8 * roof),
        (-0.19 * half, 0.8 * roof),
    ]
    wheels = [
        (wheel((x, y, 0.24), radius=0.24, width=0.2), "dark")
        for x in (-0.6 * half, 0.6 * half)
        for y in (-width / 2, width / 2)
    ]
    parts = [
        (box((0, 0, low + high / 2), (2 * half, width, high)), "main"),
        (_across(cabin, 0.8 * width, low + high), "main"),
        (_across(window, 0.82 * width, low + high), "dark"),
        *wheels,
    ]
    return _facing_front(parts)


def _house(s: Shape) -> list[Part]:
    width, wall, roof = s["width"], s["wall"], s["roof"]
    edge = width / 2 + 0.12
    gable = [(-edge, 0), (edge, 0), (0, roof)]
    return [
        (box((0, 0, wall / 2), (width, 1.2, wall)), "main"),
        (_across(gable, 1.44, wall), "dark"),
        (box((0, -0.6, 0.25), (0.28, 0.06, 0.5)), "light"),
        (box((0.36 * width, -0.6, 0.62 * wall), (0.2, 0.06, 0.22)), "light"),
        (box((-0.36 * width, -0.6, 0.62 * wall), (0.2, 0.06, 0.22)), "light"),
    ]


def _tree(s: Shape) -> list[Part]:
    radius, high, trunk = s["radius"], s["height"], s["trunk"]
    outline = [
        (0, trunk),
        (radius, trunk),
        (0.5 * radius, trunk + 0.5 * high),
        (0.8 * radius, trunk + 0.5 * high),
        (0, trunk + high),
    ]
    crown = turned([(float(r), float(z)) for r, z in outline])
    return [(crown, "main"), (post((0, 0, 0), radius=0.12, height=trunk + 0.05), "wood")]


def _dog(s: Shape) -> list[Part]:
    length, legs, tall = s["length"], s["legs"], 0.42
    back, front = legs + tall, -length / 2
    head = (0.0, front - 0.08, back + 0.2)
    ears = [
        (box((x, head[1] + 0.1, head[2] + 0.25), (0.1, 0.12, 0.22)), "dark") for x in (-0.17, 0.17)
    ]
    return [
        (box((0, 0, legs + tall / 2), (0.46, length, tall)), "main"),
        (box(head, (0.46, 0.44, 0.42)), "main"),
        (box((0, head[1] - 0.3, head[2] - 0.08), (0.26, 0.26, 0.2)), "main"),
        (box((0, head[1] - 0.43, head[2] - 0.02), (0.12, 0.06, 0.1)), "dark"),
        (box((0, length / 2 + 0.06, back + 0.15), (0.1, 0.14, 0.44)), "main"),
        *ears,
        *_legs(0.32, length - 0.16, height=legs + 0.05, thickness=0.15, tone="main"),
    ]


def _lamp(s: Shape) -> list[Part]:
    shade, high, drop = s["shade"], s["height"], 0.55
    outline = [(shade, high), (0.55 * shade, high + drop), (0, high + drop)]
    return [
        (turned([(float(r), float(z)) for r, z in outline]), "main"),
        (post((0, 0, 0), radius=0.34, height=0.1), "dark"),
        (post((0, 0, 0), radius=0.06, height=high + 0.1), "dark"),
    ]


def _airplane(s: Shape) -> list[Part]:
    body, half, sweep = s["body"], s["span"] / 2, s["sweep"]
    turn = np.linspace(-np.pi / 2, np.pi / 2, 13)
    hull = [(max(0.0, body * float(np.cos(a)) ** 0.5), float(np.sin(a))) for a in turn]
    wings = [(-0.25, 0.0), (sweep - 0.15, half), (sweep + 0.15, half), (0.25, 0.0)]
    tail = [(0.6, 0.0), (0.8, 0.42), (1.0, 0.42), (0.95, 0.0)]
    fin = [(0.55, 0), (0.95, 0), (1.05, 0.5), (0.85, 0.5)]
    parts = [
        (sideways(turned(hull)), "main"),
        (moved(slab([*wings, *_mirrored(wings)], thickness=0.07), z=-0.05), "light"),
        (moved(slab([*tail, *_mirrored(tail)], thickness=0.06), z=0.02), "light"),
        (_across(fin, 0.07, 0.0), "main"),
    ]
    return _facing_front(parts)


def _boat(s: Shape) -> list[Part]:
    half, mast, deep = s["length"] / 2, s["mast"], 0.32
    deck = [(-half, 0.0), (-0.4 * half, 0.36), (half, 0.3)]
    sides = slab([*deck, *_mirrored(deck)], thickness=deep)
    hull = sides * np.where(sides[..., 2:] < deep / 2, [0.75, 0.6, 1.0], 1.0)
    sail = [(-0.05, 0.0), (0.85 * half, 0.0), (-0.05, 0.85 * mast)]
    jib = [(-0.85 * half, 0.0), (-0.15, 0.0), (-0.15, 0.7 * mast)]
    parts = [
        (hull, "main"),
        (post((-0.1, 0, 0), radius=0.05, height=deep + mast), "dark"),
        (_across(sail, 0.05, deep + 0.12), "light"),
        (_across(jib, 0.05, deep + 0.12), "main"),
    ]
    return _facing_front(parts)


def _legs(
    width: float, depth: float, *, height: float, thickness: float, tone: str = "dark"
) -> list[Part]:
    corners = [(x * width / 2, y * depth / 2) for x in (-1, 1) for y in (-1, 1)]
    size = (thickness, thickness, height)
    return [(box((x, y, height / 2), size), tone) for x, y in corners]


def _across(outline: list[tuple[float, float]], thickness: float, z: float) -> Triangles:
    """An outline over x and z, as thick along y, around the middle of y."""
    return moved(stand(slab(outline, thickness=thickness)), y=thickness / 2, z=z)


def _facing_front(parts: list[Part]) -> list[Part]:
    """The same with its end where x is least toward the front."""
    return [(surface[..., [1, 0, 2]], tone) for surface, tone in parts]


def _mirrored(outline: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Corners across the x axis, in the other order, by which an outline is closed."""
    return [(x, -y) for x, y in reversed(outline) if y]


KINDS: dict[str, Kind] = {
    "chair": Kind(_chair, {"seat": (0.5, 0.9), "back": (0.6, 1.2)}),
    "table": Kind(_table, {"length": (1.3, 2.1), "height": (0.6, 1.0)}),
    "mug": Kind(_mug, {"radius": (0.38, 0.6), "handle": (0.28, 0.42)}),
    "car": Kind(_car, {"length": (2.1, 2.8), "body": (0.28, 0.4), "roof": (0.34, 0.52)}),
    "house": Kind(_house, {"width": (1.0, 1.6), "wall": (0.7, 1.1), "roof": (0.4, 0.8)}),
    "tree": Kind(_tree, {"radius": (0.45, 0.75), "height": (1.2, 1.6), "trunk": (0.3, 0.6)}),
    "dog": Kind(_dog, {"length": (1.0, 1.5), "legs": (0.3, 0.6)}),
    "lamp": Kind(_lamp, {"shade": (0.45, 0.75), "height": (0.8, 1.4)}),
    "airplane": Kind(_airplane, {"body": (0.14, 0.22), "span": (1.5, 2.3), "sweep": (0.1, 0.5)}),
    "boat": Kind(_boat, {"length": (1.5, 2.1), "mast": (1.0, 1.5)}),
}
