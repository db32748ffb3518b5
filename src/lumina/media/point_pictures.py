"""Pictures of point clouds: small balls in front of a camera that does not move."""

import numpy as np
from jaxtyping import Float
from PIL import Image

AZIMUTH, ELEVATION = np.radians(-55), np.radians(22)
"""Where the camera stands: it sees the front, which is toward -y, from the right and from above."""

DISTANCE = 2.2  # of the camera from the middle, as a multiple of the longest side of the cloud
MARGIN = 0.08  # of the picture, at each border
BALL = 0.6  # radius of a ball, as a share of the distance between neighbors of an even cloud
LARGEST_BALL = 0.016  # as a share of the picture
LIGHT = np.array([-0.45, 0.65, 0.62])  # toward the light, from a ball: left, up and near
AMBIENT = 0.55
FADE = 0.45  # how much of its color the farthest point loses to the paper
PAPER = np.array([255.0, 255.0, 255.0])
LOW, HIGH = np.array([52.0, 98.0, 196.0]), np.array([244.0, 132.0, 66.0])
"""Colors of the lowest point and of the highest."""

_FINE = 2  # pixels that are drawn for each side of one that is shown


def draw_points(points: Float[np.ndarray, "n 3"], *, side: int = 512) -> Image.Image:
    """Picture of a cloud with z up, as a square of so many pixels a side.

    Args:
        points: One or more, of any size and anywhere: the cloud fills the picture.
        side: In pixels.
    """
    seen = look_at(points)
    fine = _FINE * side
    low, high = seen[:, :2].min(0), seen[:, :2].max(0)
    scale = (1 - 2 * MARGIN) * fine / max(float((high - low).max()), 1e-6)
    across = fine / 2 + scale * (seen[:, 0] - (low + high)[0] / 2)
    down = fine / 2 - scale * (seen[:, 1] - (low + high)[1] / 2)
    near = _share(seen[:, 2])
    colors = _colors(points[:, 2], near)
    canvas = Image.new("RGB", (fine, fine), tuple(PAPER.astype(int)))
    radius = ball_radius(len(points)) * fine
    for index in np.argsort(near):
        _draw_ball(canvas, (across[index], down[index]), radius, colors[index])
    return canvas.resize((side, side), Image.Resampling.BOX)


def look_at(points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
    """Where points are seen: to the right and up in the picture, and toward the camera.

    Lengths are shares of the longest side of the cloud, and what is near is larger.
    """
    low, high = points.min(0), points.max(0)
    centered = (points - (low + high) / 2) / max(float((high - low).max()), 1e-6)
    cos, sin = np.cos(AZIMUTH), np.sin(AZIMUTH)
    right = centered @ np.array([-sin, cos, 0])
    forward = centered @ np.array([cos, sin, 0])  # on the ground, toward the camera
    up = np.cos(ELEVATION) * centered[:, 2] - np.sin(ELEVATION) * forward
    near = np.cos(ELEVATION) * forward + np.sin(ELEVATION) * centered[:, 2]
    larger = DISTANCE / (DISTANCE - near)
    return np.stack([right * larger, up * larger, near], 1)


def ball_radius(count: int) -> float:
    """Radius of each ball as a share of the picture, so that more points make smaller balls."""
    return min(LARGEST_BALL, BALL / count**0.5)


def _share(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    span = max(float(values.max() - values.min()), 1e-6)
    return (values - values.min()) / span


def _colors(
    heights: Float[np.ndarray, " n"], near: Float[np.ndarray, " n"]
) -> Float[np.ndarray, "n 3"]:
    color = LOW + _share(heights)[:, None] * (HIGH - LOW)
    return color + FADE * (1 - near)[:, None] * (PAPER - color)


def _draw_ball(
    canvas: Image.Image,
    center: tuple[float, float],
    radius: float,
    color: Float[np.ndarray, " 3"],
) -> None:
    left, top = (round(middle - radius) for middle in center)
    shade, inside = _ball(round(2 * radius) + 1)
    pixels = np.clip(shade[..., None] * color, 0, 255).astype(np.uint8)
    canvas.paste(Image.fromarray(pixels), (left, top), Image.fromarray(inside))


def _ball(pixels: int) -> tuple[np.ndarray, np.ndarray]:
    """Brightness of a lit ball, and a mask of it."""
    line = (np.arange(pixels) + 0.5) / pixels * 2 - 1
    x, y = np.meshgrid(line, -line)
    depth = np.sqrt(np.clip(1 - x**2 - y**2, 0, None))
    light = LIGHT / np.linalg.norm(LIGHT)
    lit = np.clip(np.stack([x, y, depth], -1) @ light, 0, None)
    return AMBIENT + (1 - AMBIENT) * lit * 1.2, ((x**2 + y**2 <= 1) * 255).astype(np.uint8)
