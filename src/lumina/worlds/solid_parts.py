"""Surfaces that solids are put together from, as triangles; z points up."""

import functools
from collections.abc import Sequence
from types import ModuleType

import numpy as np
from jaxtyping import Float

from lumina.errors import refuse_missing_library

Triangles = Float[np.ndarray, "_ 3 3"]
"""Corners of each face, and x, y and z of each corner."""

AROUND = 32
"""Flat sides that stand for something round."""

Place = tuple[float, float, float]


def box(center: Place, size: Place) -> Triangles:
    """A box along the axes."""
    return _unit_box() * np.array(size) + np.array(center)


def post(foot: Place, *, radius: float, height: float) -> Triangles:
    """An upright cylinder that stands on a place."""
    scale = np.array([radius, radius, height])
    return _unit_cylinder() * scale + np.array(foot) + [0, 0, height / 2]


def wheel(center: Place, *, radius: float, width: float) -> Triangles:
    """A cylinder that lies along y."""
    upright = _unit_cylinder() * np.array([radius, radius, width])
    return upright[..., [0, 2, 1]] + np.array(center)


def turned(profile: Sequence[tuple[float, float]], *, angle: float = 2 * np.pi) -> Triangles:
    """What a line around the z axis sweeps.

    Args:
        profile: Distances from the axis, 0 or more, and heights along the line.
        angle: How far it goes around, from the x axis toward the y axis.
    """
    whole = angle >= 2 * np.pi
    sections = AROUND if whole else max(4, round(AROUND * angle / (2 * np.pi)))
    line = np.array(profile, dtype=float)
    mesh = _trimesh().creation.revolve(line, angle=None if whole else angle, sections=sections)
    return np.array(mesh.triangles)


def ring(*, radius: float, tube: float, angle: float = 2 * np.pi) -> Triangles:
    """A tube that goes around the z axis.

    Args:
        radius: From the axis to the middle of the tube.
        tube: Radius of the tube.
        angle: How far it goes around.
    """
    turn = np.linspace(0, 2 * np.pi, AROUND // 2 + 1)
    profile = np.stack([radius + tube * np.cos(turn), tube * np.sin(turn)], 1)
    return turned([(float(x), float(z)) for x, z in profile], angle=angle)


def slab(outline: Sequence[tuple[float, float]], *, thickness: float) -> Triangles:
    """A flat piece in the plane of x and y, from z = 0 upward.

    Args:
        outline: Its corners in order, all of which the middle of the corners can see.
        thickness: Along z.
    """
    low = np.c_[np.array(outline, dtype=float), np.zeros(len(outline))]
    high = low + [0, 0, thickness]
    after_low, after_high = np.roll(low, -1, 0), np.roll(high, -1, 0)
    middle = np.broadcast_to(low.mean(0), low.shape)
    return np.concatenate(
        [
            np.stack([middle, after_low, low], 1),
            np.stack([middle + [0, 0, thickness], high, after_high], 1),
            np.stack([low, after_low, after_high], 1),
            np.stack([low, after_high, high], 1),
        ]
    )


def upright(triangles: Triangles) -> Triangles:
    """Turn around the x axis, so that what points along y points up and what pointed up to -y."""
    x, y, z = np.moveaxis(triangles, -1, 0)
    return np.stack([x, -z, y], -1)


def sideways(triangles: Triangles) -> Triangles:
    """Turn around the y axis, so that what points up points along x."""
    x, y, z = np.moveaxis(triangles, -1, 0)
    return np.stack([z, y, -x], -1)


def moved(triangles: Triangles, x: float = 0, y: float = 0, z: float = 0) -> Triangles:
    """The same further along."""
    return triangles + np.array([x, y, z])


def join(*parts: Triangles) -> Triangles:
    """All parts as one."""
    return np.concatenate(parts)


def _trimesh() -> ModuleType:
    refuse_missing_library("trimesh", extra="points")
    import trimesh

    return trimesh


@functools.cache
def _unit_box() -> Triangles:
    return np.array(_trimesh().creation.box().triangles)


@functools.cache
def _unit_cylinder() -> Triangles:
    return np.array(_trimesh().creation.cylinder(radius=1, height=1, sections=AROUND).triangles)
