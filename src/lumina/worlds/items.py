"""Items of one color each, seen from around: what shapes them, and pictures of them on white.

Rays are cast by Embree, through trimesh: both install from wheels of a few megabytes and need
neither a display nor a graphics card. Shading is ours.
"""

import hashlib
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from lumina.errors import refuse_missing_library
from lumina.worlds.item_kinds import KINDS, TONES

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (225, 40, 40),
    "orange": (245, 140, 25),
    "yellow": (240, 205, 40),
    "green": (50, 165, 65),
    "cyan": (45, 190, 205),
    "blue": (45, 80, 220),
    "purple": (140, 60, 200),
    "pink": (245, 130, 185),
}
"""Colors of items."""

VIEWS = 8
ELEVATION = np.radians(25)
FIRST = np.radians(30)
"""Azimuth of the first view: off the front, where no item is seen edge-on."""

RADIUS = 0.47  # of the ball around an item, as a fraction of the picture
# Light comes from a fixed place beside the item, and some from everywhere.
LIGHT = np.array([0.42, -0.52, 0.74])
DIMMEST = 0.5

_FINE = 2  # samples along each side of a pixel


@dataclass(frozen=True)
class Item:
    """One item.

    Args:
        kind: A name in `KINDS`.
        color: A name in `COLORS`.
        units: A number in [0, 1] for each range of its kind, in their order.
    """

    kind: str
    color: str
    units: tuple[float, ...]

    @property
    def shape(self) -> dict[str, float]:
        """The numbers that shape it, by name."""
        ranges = KINDS[self.kind].ranges
        return {
            name: low + unit * (high - low)
            for unit, (name, (low, high)) in zip(self.units, ranges.items(), strict=True)
        }

    @property
    def is_held_out(self) -> bool:
        """Whether its kind in its color is never trained on: a fixed tenth or so."""
        key = f"{self.kind}|{self.color}"
        return hashlib.blake2b(key.encode(), digest_size=4).digest()[0] % 10 == 0


class Surface(NamedTuple):
    """Triangles in a ball of radius 0.5 around the middle, and the color of each as bytes."""

    triangles: Float[np.ndarray, "faces 3 3"]
    colors: Float[np.ndarray, "faces 3"]


def draw_item(rng: np.random.Generator, *, is_held_out: bool = False) -> Item:
    """Random item, of a kind and color that are held out from training or of others."""
    while True:
        kind = list(KINDS)[rng.integers(len(KINDS))]
        color = list(COLORS)[rng.integers(len(COLORS))]
        item = Item(kind, color, tuple(rng.random(len(KINDS[kind].ranges)).tolist()))
        if item.is_held_out == is_held_out:
            return item


def azimuths_around(views: int = VIEWS, *, first: float = FIRST) -> Float[np.ndarray, " views"]:
    """Azimuths of views all around, in radians from the front, counterclockwise from above."""
    return first + np.arange(views) * (2 * np.pi / views)


def relative_poses(azimuths: Float[np.ndarray, " views"]) -> Float[np.ndarray, "views 2"]:
    """Pose of each camera seen from the first, at the same height: sine and cosine of azimuth."""
    turned = azimuths - azimuths[0]
    return np.stack([np.sin(turned), np.cos(turned)], 1)


def camera_axes(azimuth: float, elevation: float = ELEVATION) -> Float[np.ndarray, "3 3"]:
    """Directions in space of right and up in the picture and of the way to the camera."""
    sin, cos = np.sin(azimuth), np.cos(azimuth)
    high, flat = np.sin(elevation), np.cos(elevation)
    return np.array(
        [[cos, sin, 0], [-sin * high, cos * high, flat], [sin * flat, -cos * flat, high]]
    )


def render_views(
    item: Item,
    side: int,
    azimuths: Float[np.ndarray, " views"],
    *,
    elevation: float = ELEVATION,
) -> UInt8[np.ndarray, "views side side 3"]:
    """Pictures of an item on white, as squares of so many pixels a side, without perspective.

    Raises:
        LuminaError: If the packages that cast rays are not installed.
    """
    surface = build_surface(item)
    cameras = [camera_axes(azimuth, elevation) for azimuth in azimuths]
    faces = _faces_seen(surface.triangles, cameras, side * _FINE)
    pictures = np.full((*faces.shape, 3), 255, np.float32)
    for view, camera in enumerate(cameras):
        seen = faces[view] >= 0
        pictures[view, seen] = _shade(surface, camera[2])[faces[view][seen]]
    fine = pictures.reshape(len(cameras), side, _FINE, side, _FINE, 3)
    return fine.mean((2, 4)).round().astype(np.uint8)


def render_outlines(
    item: Item,
    side: int,
    azimuths: Float[np.ndarray, " views"],
    *,
    elevation: float = ELEVATION,
) -> Bool[np.ndarray, "views side side"]:
    """Which pixels of the pictures of an item show it."""
    cameras = [camera_axes(azimuth, elevation) for azimuth in azimuths]
    return _faces_seen(build_surface(item).triangles, cameras, side) >= 0


def build_surface(item: Item) -> Surface:
    """Surface of an item, its box in the middle and its farthest corner at 0.5."""
    parts = KINDS[item.kind].build(item.shape)
    triangles = np.concatenate([part for part, _ in parts])
    tones = TONES | {"main": COLORS[item.color]}
    colors = np.concatenate([np.tile(tones[tone], (len(part), 1)) for part, tone in parts])
    triangles = triangles - (triangles.min((0, 1)) + triangles.max((0, 1))) / 2
    farthest = np.linalg.norm(triangles, axis=-1).max()
    return Surface(triangles / (2 * farthest), colors.astype(float))


def _shade(surface: Surface, toward: Float[np.ndarray, "3"]) -> Float[np.ndarray, "faces 3"]:
    """Color of each face under the light, on its side toward the camera."""
    normals = _normals(surface.triangles)
    normals = normals * np.sign(normals @ toward)[:, None]
    lit = (normals @ LIGHT / np.linalg.norm(LIGHT) + 1) / 2
    return surface.colors * (DIMMEST + (1 - DIMMEST) * lit)[:, None]


def _faces_seen(
    triangles: Float[np.ndarray, "faces 3 3"], cameras: list[Float[np.ndarray, "3 3"]], side: int
) -> Int[np.ndarray, "views side side"]:
    """Number of the face in the middle of each pixel, or -1."""
    line = ((np.arange(side) + 0.5) / side - 0.5) * (0.5 / RADIUS)
    up, right = np.meshgrid(-line, line, indexing="ij")
    origins = [
        right.reshape(-1, 1) * camera[0] + up.reshape(-1, 1) * camera[1] + camera[2]
        for camera in cameras
    ]
    ways = np.repeat([-camera[2] for camera in cameras], side * side, axis=0)
    faces = _caster(triangles).intersects_first(np.concatenate(origins), ways)
    return faces.reshape(len(cameras), side, side)


def _caster(triangles: Float[np.ndarray, "faces 3 3"]) -> Any:
    for name in ("trimesh", "embreex"):
        refuse_missing_library(name, extra="objects")
    import trimesh
    from trimesh.ray.ray_pyembree import RayMeshIntersector

    corners = triangles.reshape(-1, 3)
    numbers = np.arange(len(corners)).reshape(-1, 3)
    # Corners stay apart, so that a face has the number of its triangle.
    return RayMeshIntersector(trimesh.Trimesh(corners, numbers, process=False))


def _normals(triangles: Float[np.ndarray, "faces 3 3"]) -> Float[np.ndarray, "faces 3"]:
    first, second, third = np.moveaxis(triangles, 1, 0)
    normals = np.cross(second - first, third - first)
    return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
