"""What a clip shows, by rules that need no model: the thing, its motion, and its jumps."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image

from lumina.worlds.judge import (
    Lineup,
    average_neighbors,
    border_color,
    cut_out,
    drop_specks,
    nearest_color,
)
from lumina.worlds.motion import Clip

# A frame whose farthest color is nearer to the background than this shows nothing. Noise of 12
# levels, averaged over nine neighbors, reaches 15 in the farthest of ten thousand pixels.
FAINTEST = 18.0
# So does one whose farthest color is this much nearer than in the clearest frame: what is faint is
# where an autoencoder leaves it.
FAINT = 0.15
# A pixel belongs to the thing if it differs from the background by this share of the largest
# difference in its frame, so that a thing keeps its outline as it fades.
SHARE = 0.3
# The thing is looked for in frames that show it this much as clearly as the clearest.
CLEAR = 0.85

# Change over a clip that is as much motion as each of the others; less of all of them is still.
TRAVEL = 0.06  # of the middle, in canvases
GROWTH = 0.12  # natural logarithm of the size
TURN = np.radians(20)
FADING = 0.2  # of opacity
TURNING_BACK = 0.04  # canvases that a bounce goes in each of two ways

# A step between frames that is this many times the mean of the others is a jump.
JUMP = 3.0
# Steps as small as this, in the units above, are noise and never a jump beside smaller ones.
QUIET = 0.12

# A turn must match frames better than none by this much, as a correlation.
TURN_GAIN = 0.02

_PHASE = np.radians(15)  # between the angles that what spins is tried to begin with
_ANGLES = 120
_RINGS = 10
_REACH = 2.0  # radius of the outermost ring, in root mean square radii of the thing
_LAGS = 3  # frames apart up to which turns are compared
_FASTEST = np.radians(24)  # turn between frames that is looked for


class Track(NamedTuple):
    """What changes over a clip, for the frames in which something is seen.

    Args:
        times: Numbers of those frames.
        centers: Middle of the thing, as fractions of the width and height.
        sizes: Root mean square radius, as a fraction of the frame's shorter side.
        opacities: Difference from the background, 1 where it is largest.
        turn: Angle clockwise between frames, in radians.
        clarity: For all frames, opacity; what is too faint to be followed has one as well.
    """

    times: Float[np.ndarray, " seen"]
    centers: Float[np.ndarray, "seen 2"]
    sizes: Float[np.ndarray, " seen"]
    opacities: Float[np.ndarray, " seen"]
    turn: float
    clarity: Float[np.ndarray, " frames"]


@dataclass(frozen=True)
class ClipVerdict:
    """What frames show of a clip.

    Args:
        clip: What was asked for.
        rank: How many other things are nearer to most frames than the one asked for.
        found: The nearest thing; None where nothing is seen.
        kind: Kind of motion that is seen.
        direction: Its direction; None for what is still.
        background: Nearest palette color.
        jump: Largest step between frames, as a multiple of the mean of the others.
    """

    clip: Clip
    rank: int
    found: str | None
    kind: str
    direction: str | None
    background: str
    jump: float

    @property
    def is_found(self) -> bool:
        """Whether the thing asked for is the nearest."""
        return self.rank == 0

    @property
    def is_kind_right(self) -> bool:
        """Whether something is seen, and moves in the way asked for."""
        return self.found is not None and self.kind == self.clip.kind

    @property
    def is_direction_right(self) -> bool:
        """Whether it moves in the way and the direction asked for."""
        return self.is_kind_right and self.direction == self.clip.direction

    @property
    def is_color_right(self) -> bool:
        """Whether the background is the one asked for."""
        return self.background == self.clip.background

    @property
    def is_smooth(self) -> bool:
        """Whether something is seen, and no step of it is far larger than the others."""
        return self.found is not None and self.jump < JUMP


def judge_clip(
    lineup: Lineup, clip: Clip, frames: UInt8[np.ndarray, "frames rows cols 3"]
) -> ClipVerdict:
    """Say what frames show of a clip that was asked for."""
    track = track_thing(frames)
    kind, direction = tell_motion(track)
    rank, found = _find_thing(lineup, clip.thing, frames, track, spins=kind == "spin")
    color = np.median([border_color(frame) for frame in frames], axis=0)
    return ClipVerdict(clip, rank, found, kind, direction, nearest_color(color), find_jump(track))


def track_thing(frames: UInt8[np.ndarray, "frames rows cols 3"]) -> Track:
    """Follow what is not background through frames."""
    shorter = min(frames.shape[1:3])
    differences = [average_neighbors(frame) - border_color(frame) for frame in frames]
    distances = [np.linalg.norm(difference, axis=-1) for difference in differences]
    faintest = max(FAINTEST, FAINT * max(distance.max() for distance in distances))
    times, centers, sizes, contrasts, rings = [], [], [], [], []
    for time, (difference, distance) in enumerate(zip(differences, distances, strict=True)):
        contrast = float(distance.max())
        if contrast < faintest:
            continue
        mask = drop_specks(distance > SHARE * contrast)
        center, radius = _middle(mask)
        times.append(float(time))
        centers.append(center / mask.shape[::-1])
        sizes.append(radius / shorter)
        contrasts.append(float(np.quantile(distance[mask], 0.75)))
        rings.append(_polar(difference / contrast, center, radius))
    opacities = np.array(contrasts) / max(contrasts, default=1.0)
    centers = np.array(centers).reshape(-1, 2)
    clarity = np.array([distance.max() for distance in distances])
    clarity /= max(clarity.max(), FAINTEST)
    clarity[np.array(times, int)] = opacities
    turn = _find_turn(times, rings)
    return Track(np.array(times), centers, np.array(sizes), opacities, turn, clarity)


def tell_motion(track: Track) -> tuple[str, str | None]:
    """Kind and direction of the motion that is most of what changes."""
    if len(track.times) < 2:
        return "still", None
    axis = int(np.ptp(track.centers, axis=0).argmax())
    places = track.centers[:, axis]
    span = float(np.ptp(track.times))
    growth = _slope(track.times, np.log(track.sizes), track.opacities) * span
    fading = _slope(track.times, track.opacities) * span
    middle = np.average(places, weights=track.opacities)
    amounts = {
        "move": float(np.ptp(track.opacities * (places - middle))) / TRAVEL,
        "resize": abs(growth) / GROWTH,
        "fade": abs(fading) / FADING,
        "spin": abs(track.turn) * span / TURN,
    }
    kind = max(amounts, key=lambda kind: amounts[kind])
    if amounts[kind] < 1:
        return "still", None
    if kind == "resize":
        return kind, "larger" if growth > 0 else "smaller"
    if kind == "fade":
        return kind, "in" if fading > 0 else "out"
    if kind == "spin":
        return kind, "clockwise" if track.turn > 0 else "counterclockwise"
    if min(_rise(places), _rise(-places)) > TURNING_BACK:
        return "bounce", ("sideways", "up and down")[axis]
    ways = (("left", "right"), ("up", "down"))[axis]
    return kind, ways[int(_slope(track.times, places) > 0)]


def find_jump(track: Track) -> float:
    """Largest step between frames, as a multiple of the mean of the other steps.

    The mean, since half of the steps of a clip may be none at all: what has faded in stays.
    """
    steps = find_steps(track)
    if len(steps) < 2:
        return 1.0
    largest = steps.max()
    others = (steps.sum() - largest) / (len(steps) - 1)
    return float((largest + QUIET) / (others + QUIET))


def find_steps(track: Track) -> Float[np.ndarray, " between"]:
    """How much the place, the size and the clearness of a thing change between frames."""
    steps = np.abs(np.diff(track.clarity)) / FADING
    if len(track.times) < 2:
        return steps
    changes = np.column_stack(
        [np.diff(track.centers, axis=0) / TRAVEL, np.diff(np.log(track.sizes)) / GROWTH]
    )
    # The outline of what is faint is uncertain.
    weights = np.minimum(track.opacities[1:], track.opacities[:-1])
    moved = weights * np.linalg.norm(changes, axis=1) / np.diff(track.times)
    before = track.times[:-1].astype(int)
    steps[before] = np.hypot(steps[before], moved)
    return steps


def _find_thing(
    lineup: Lineup,
    thing: str,
    frames: UInt8[np.ndarray, "frames rows cols 3"],
    track: Track,
    *,
    spins: bool,
) -> tuple[int, str | None]:
    """Rank of a thing by its median distance to all clear frames, and the thing that is nearest.

    What spins is turned back by as much, from whatever angle it begins with.
    """
    clear = track.times[track.opacities >= CLEAR].astype(int)
    firsts, turn = (np.arange(0, 2 * np.pi, _PHASE), track.turn) if spins else (np.zeros(1), 0.0)
    nearest = np.full(len(lineup.things), np.inf)
    for first in firsts:
        shown = [_turn_back(frames[time], first + turn * time) for time in clear]
        cuts = [cut for frame in shown if not (cut := cut_out(frame)).is_empty]
        if cuts:
            distances = np.median([lineup.distances(cut) for cut in cuts], axis=0)
            nearest = np.minimum(nearest, distances)
    if np.isinf(nearest).all():
        return len(lineup.things), None
    rank = int((nearest < nearest[lineup.things.index(thing)]).sum())
    return rank, lineup.things[int(nearest.argmin())]


def _turn_back(
    frame: UInt8[np.ndarray, "rows cols 3"], angle: float
) -> UInt8[np.ndarray, "rows cols 3"]:
    """A frame turned to the left by an angle in radians."""
    if angle == 0:
        return frame
    ground = border_color(frame)
    center, _ = _middle(np.linalg.norm(frame - ground, axis=-1) > FAINTEST)
    picture = Image.fromarray(frame).rotate(
        float(np.degrees(angle)),
        Image.Resampling.BICUBIC,
        center=(float(center[0]), float(center[1])),
        fillcolor=tuple(map(int, ground.round())),
    )
    return np.asarray(picture)


def _middle(mask: Bool[np.ndarray, "rows cols"]) -> tuple[Float[np.ndarray, "2"], float]:
    """Centroid across and down, and root mean square distance from it, in pixels."""
    rows, cols = np.nonzero(mask)
    points = np.column_stack([cols, rows]) + 0.5
    center = points.mean(0)
    return center, float(np.sqrt(np.square(points - center).sum(1).mean())) + 0.1


def _polar(
    difference: Float[np.ndarray, "rows cols 3"], center: Float[np.ndarray, "2"], radius: float
) -> Float[np.ndarray, "angles features"]:
    """Colors on rings around a center, each weighted by the root of its circumference."""
    angles = np.arange(_ANGLES) * (2 * np.pi / _ANGLES)
    rings = (np.arange(_RINGS) + 0.5) / _RINGS * _REACH
    across = center[0] + radius * np.outer(np.cos(angles), rings)
    down = center[1] + radius * np.outer(np.sin(angles), rings)
    height, width, _ = difference.shape
    is_inside = (across >= 0) & (across < width) & (down >= 0) & (down < height)
    cols, rows = across.astype(int).clip(0, width - 1), down.astype(int).clip(0, height - 1)
    colors = np.where(is_inside[..., None], difference[rows, cols], 0) * np.sqrt(rings)[:, None]
    return colors.reshape(_ANGLES, -1)


def _find_turn(times: list[float], rings: list[Float[np.ndarray, "angles features"]]) -> float:
    """Steady angle between frames under which they match best; 0 unless that matches far better.

    What is round, or too much alike at all angles, thus does not turn.
    """
    rates = np.linspace(-_FASTEST, _FASTEST, 97)
    scores = np.zeros(len(rates))
    spectra = [np.fft.rfft(ring, axis=0) for ring in rings]
    most = 0.0
    for lag in range(1, _LAGS + 1):
        for first in range(len(times) - lag):
            second = first + lag
            matches = np.fft.irfft((spectra[second] * spectra[first].conj()).sum(1), _ANGLES)
            norms = np.linalg.norm(rings[first]) * np.linalg.norm(rings[second])
            places = rates * (times[second] - times[first]) * _ANGLES / (2 * np.pi)
            scores += np.interp(places, np.arange(_ANGLES), matches / norms, period=_ANGLES)
            most += 1
    best = int(scores.argmax())
    if not most or scores[best] - scores[len(rates) // 2] < TURN_GAIN * most:
        return 0.0
    return float(rates[best])


def _slope(
    times: Float[np.ndarray, " seen"],
    values: Float[np.ndarray, " seen"],
    weights: Float[np.ndarray, " seen"] | None = None,
) -> float:
    """Change of values in a unit of time, by the line through them with the least squares."""
    return float(np.polyfit(times, values, 1, w=weights)[0])


def _rise(places: Float[np.ndarray, " seen"]) -> float:
    """Most that a value ever is above an earlier one."""
    return float((places - np.minimum.accumulate(places)).max())
