"""Kinds of solids: which numbers shape each, how it is built from them, and in which words.

Lengths are in any unit: `lumina.worlds.solids` brings all solids to one size. Front is toward -y.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from lumina.worlds.solid_parts import (
    Triangles,
    box,
    join,
    moved,
    post,
    ring,
    sideways,
    slab,
    turned,
    upright,
    wheel,
)

Shape = Mapping[str, float]
"""The numbers that shape one solid, by name."""


class Kind(NamedTuple):
    """A kind of solids.

    Args:
        build: Makes the surface out of a number for each name in `ranges`.
        ranges: The least and the greatest of each number. Where both are of type int, so are all
            numbers between.
        words: What a caption can say of a number: its range is cut into as many equal parts as
            there are phrases. Those that begin with "with" follow the name, others stand before
            it, and nothing is said of a part without words.
    """

    build: Callable[[Shape], Triangles]
    ranges: dict[str, tuple[float, float]]
    words: dict[str, tuple[str, ...]]


def _chair(s: Shape) -> Triangles:
    depth, seat, thick, leg = s["depth"], s["seat"], s["thickness"], s["legs"]
    parts = [
        box((0, 0, seat - thick / 2), (1, depth, thick)),
        box((0, depth / 2 - thick / 2, seat + s["back"] / 2), (1, thick, s["back"])),
        *_four_legs(1, depth, height=seat - thick, leg=leg),
    ]
    if s["arms"]:
        for side in (-1, 1):
            x, high = side * (0.5 - leg / 2), 0.4 * s["back"]
            front = -depth / 2 + leg / 2
            parts.append(box((x, front, seat + high / 2), (leg, leg, high)))
            parts.append(box((x, -thick / 2, seat + high), (leg, depth - thick, leg)))
    return join(*parts)


def _table(s: Shape) -> Triangles:
    length, width, thick = s["length"], s["width"], s["thickness"]
    legs = _four_legs(length, width, height=s["height"] - thick, leg=s["legs"])
    return join(box((0, 0, s["height"] - thick / 2), (length, width, thick)), *legs)


def _bed(s: Shape) -> Triangles:
    width, leg, low = s["width"], 0.1, s["legs"]
    head, foot = low + 0.35 + s["headboard"], low + 0.35 + s["footboard"]
    pillow = width / s["pillows"]
    parts = [
        box((0, 0, low + 0.175), (width, 2, 0.35)),
        box((0, 1.04, (low + head) / 2), (width, 0.08, head - low)),
        box((0, -1.04, (low + foot) / 2), (width, 0.08, foot - low)),
        *_four_legs(width, 2.16, height=low, leg=leg),
    ]
    for number in range(int(s["pillows"])):
        x = (number + 0.5) * pillow - width / 2
        parts.append(box((x, 0.7, low + 0.44), (0.8 * pillow, 0.45, 0.18)))
    return join(*parts)


def _lamp(s: Shape) -> Triangles:
    shade, base, tall = s["shade"], s["base"], s["height"]
    low = 0.08 + tall
    outline = [(shade, low), (shade * s["taper"], low + s["drop"])]
    return join(
        post((0, 0, 0), radius=base, height=0.08),
        post((0, 0, 0.08), radius=0.035, height=tall + 0.5 * s["drop"]),
        turned(outline),
    )


def _mug(s: Shape) -> Triangles:
    radius, wall = s["radius"], 0.06
    inner = radius - wall
    cup = [(0, 0), (radius, 0), (radius * s["lip"], 1), (inner * s["lip"], 1), (inner, wall)]
    # Half a ring around y, whose ends are in the wall.
    half = ring(radius=1, tube=0.16, angle=np.pi)[..., [1, 2, 0]]
    handle = half * np.array([s["handle"], 0.3, 0.32])
    at = radius * (1 + s["lip"]) / 2
    return join(turned([*cup, (0, wall)]), moved(handle, x=at - wall / 2, z=0.5))


def _bottle(s: Shape) -> Triangles:
    radius, neck = s["radius"], s["radius"] * s["neck_width"]
    shoulder, top = s["body"] + s["shoulder"], s["body"] + s["shoulder"] + s["neck"]
    turn = np.linspace(0, np.pi / 2, 7)
    curve = [
        (neck + (radius - neck) * float(np.cos(a)), s["body"] + s["shoulder"] * float(np.sin(a)))
        for a in turn
    ]
    rim = 1.15 * neck
    outline = [(0, 0), (radius, 0), *curve, (neck, shoulder), (neck, top - 0.08)]
    return turned([*outline, (rim, top - 0.08), (rim, top), (0, top)])


def _airplane(s: Shape) -> Triangles:
    body, half, swept, chord = s["body"], s["span"] / 2, s["sweep"], s["chord"]
    turn = np.linspace(-np.pi / 2, np.pi / 2, 13)
    hull = [(max(0.0, body * float(np.cos(a)) ** 0.5), -float(np.sin(a))) for a in turn]
    wing = _wing(half, chord, swept)
    tail = _wing(0.38 * half + body, 0.5 * chord, swept * 0.5)
    fin = [(0, 0), (0.3, 0), (0.42, s["fin"]), (0.25, s["fin"])]
    return join(
        sideways(turned(hull)),
        moved(slab(wing, thickness=0.04), x=s["wings_at"], z=-0.3 * body),
        moved(slab(tail, thickness=0.03), x=0.72, z=0.1 * body),
        moved(upright(slab(fin, thickness=0.03)), x=0.65, y=0.015, z=0.2 * body),
    )


def _car(s: Shape) -> Triangles:
    half, high, wheels, roof = s["length"] / 2, s["body"], s["wheels"], s["roof"]
    low, width = 0.9 * wheels, 0.9
    front, rear = -half + s["hood"], half - s["trunk"]
    cabin = [(front, 0), (rear, 0), (rear - 0.15, roof), (front + 0.35, roof)]
    parts = [
        box((0, 0, low + high / 2), (2 * half, width, high)),
        moved(upright(slab(cabin, thickness=width - 0.2)), y=width / 2 - 0.1, z=low + high),
    ]
    for x in (-0.62 * half, 0.62 * half):
        parts += [
            wheel((x, side * (width / 2 - 0.08), wheels), radius=wheels, width=0.2)
            for side in (-1, 1)
        ]
    return join(*parts)


def _ring(s: Shape) -> Triangles:
    return ring(radius=1, tube=s["tube"]) * np.array([s["oval"], 1, s["flat"]])


def _cone(s: Shape) -> Triangles:
    return turned([(0, 0), (s["radius"], 0), (s["radius"] * s["top"], 1), (0, 1)])


def _star(s: Shape) -> Triangles:
    count = int(s["points"])
    turn = np.arange(2 * count) * np.pi / count + np.pi / 2
    radius = np.where(np.arange(2 * count) % 2, s["inner"], 1)
    corners = np.stack([radius * np.cos(turn), radius * np.sin(turn)], 1)
    flat = slab([(float(x), float(y)) for x, y in corners], thickness=s["thickness"])
    return upright(flat)


def _stairs(s: Shape) -> Triangles:
    count, width, thick = int(s["steps"]), s["width"], 0.06
    rise, tread = s["rise"] / count, 1 / count
    parts = []
    for number in range(count):
        front, top = number * tread, (number + 1) * rise
        parts.append(box((0, front + tread / 2, top - thick / 2), (width, tread, thick)))
        riser = (width, thick, rise - thick)
        parts.append(box((0, front + thick / 2, top - thick - riser[2] / 2), riser))
    return join(*parts)


def _four_legs(length: float, width: float, *, height: float, leg: float) -> list[Triangles]:
    x, y = length / 2 - leg / 2, width / 2 - leg / 2
    corners = [(-x, -y), (x, -y), (-x, y), (x, y)]
    return [box((left, front, height / 2), (leg, leg, height)) for left, front in corners]


def _wing(half: float, chord: float, sweep: float) -> list[tuple[float, float]]:
    """Both wings from above, with the front edge of their middle at x = -chord / 2."""
    front, rear = -chord / 2, chord / 2
    tip_front, tip_rear = front + sweep, front + sweep + 0.5 * chord
    right = [(front, 0.0), (tip_front, half), (tip_rear, half), (rear, 0.0)]
    return [*right, (tip_rear, -half), (tip_front, -half)]


KINDS: dict[str, Kind] = {
    "chair": Kind(
        _chair,
        {
            "depth": (0.8, 1.1),
            "seat": (0.5, 1.1),
            "back": (0.5, 1.5),
            "thickness": (0.08, 0.18),
            "legs": (0.07, 0.16),
            "arms": (0, 1),
        },
        {
            "back": ("with a low back", "", "with a tall back"),
            "seat": ("low", "", ""),
            "arms": ("", "with arms"),
        },
    ),
    "table": Kind(
        _table,
        {
            "length": (1.0, 2.4),
            "width": (0.8, 1.2),
            "height": (0.4, 1.2),
            "thickness": (0.06, 0.16),
            "legs": (0.07, 0.2),
        },
        {
            "length": ("short", "", "long"),
            "height": ("low", "", "tall"),
            "legs": ("with thin legs", "", "with thick legs"),
        },
    ),
    "bed": Kind(
        _bed,
        {
            "width": (0.9, 2.0),
            "legs": (0.05, 0.35),
            "headboard": (0.25, 1.1),
            "footboard": (0.0, 0.35),
            "pillows": (1, 2),
        },
        {
            "width": ("narrow", "", "wide"),
            "headboard": ("with a low headboard", "", "with a tall headboard"),
            "pillows": ("with one pillow", "with two pillows"),
        },
    ),
    "lamp": Kind(
        _lamp,
        {
            "height": (0.6, 2.0),
            "base": (0.2, 0.45),
            "shade": (0.3, 0.75),
            "taper": (0.3, 0.95),
            "drop": (0.3, 0.7),
        },
        {
            "height": ("short", "", "tall"),
            "taper": ("with a pointed shade", "", "with a straight shade"),
        },
    ),
    "mug": Kind(
        _mug,
        {"radius": (0.32, 0.65), "lip": (0.85, 1.2), "handle": (0.22, 0.42)},
        {
            "radius": ("narrow", "", "wide"),
            "handle": ("with a small handle", "", "with a large handle"),
        },
    ),
    "bottle": Kind(
        _bottle,
        {
            "radius": (0.22, 0.5),
            "neck_width": (0.25, 0.5),
            "body": (0.7, 1.2),
            "shoulder": (0.1, 0.4),
            "neck": (0.15, 0.6),
        },
        {
            "radius": ("thin", "", "wide"),
            "neck": ("with a short neck", "", "with a long neck"),
        },
    ),
    "airplane": Kind(
        _airplane,
        {
            "body": (0.1, 0.2),
            "span": (1.2, 2.6),
            "sweep": (0.0, 0.7),
            "chord": (0.3, 0.55),
            "fin": (0.25, 0.5),
            "wings_at": (-0.3, 0.1),
        },
        {
            "span": ("narrow", "", "wide"),
            "sweep": ("with straight wings", "", "with swept wings"),
            "fin": ("with a low tail", "", "with a tall tail"),
        },
    ),
    "car": Kind(
        _car,
        {
            "length": (2.0, 3.0),
            "body": (0.2, 0.35),
            "wheels": (0.18, 0.32),
            "roof": (0.3, 0.55),
            "hood": (0.2, 0.8),
            "trunk": (0.05, 0.5),
        },
        {
            "length": ("short", "", "long"),
            "hood": ("with a short hood", "", "with a long hood"),
            "wheels": ("with small wheels", "", "with large wheels"),
        },
    ),
    "ring": Kind(
        _ring,
        {"tube": (0.1, 0.45), "oval": (1.0, 1.8), "flat": (0.6, 1.4)},
        {"tube": ("thin", "", "thick"), "oval": ("round", "", "oval")},
    ),
    "cone": Kind(
        _cone,
        {"radius": (0.25, 0.9), "top": (0.0, 0.6)},
        {
            "radius": ("thin", "", "wide"),
            "top": ("with a sharp tip", "", "with a flat top"),
        },
    ),
    "star": Kind(
        _star,
        {"points": (5, 8), "inner": (0.3, 0.55), "thickness": (0.1, 0.6)},
        {
            "points": tuple(f"with {count} points" for count in ("five", "six", "seven", "eight")),
            "thickness": ("flat", "", "thick"),
        },
    ),
    "stairs": Kind(
        _stairs,
        {"steps": (3, 7), "rise": (0.5, 1.4), "width": (0.4, 1.3)},
        {
            "steps": tuple(
                f"with {count} steps" for count in ("three", "four", "five", "six", "seven")
            ),
            "rise": ("low", "", "steep"),
            "width": ("narrow", "", "wide"),
        },
    ),
}
