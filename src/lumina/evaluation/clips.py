"""Exam of models of clips: the thing, its motion, and what a longer clip or a known frame does.

Clips of the world of motion are asked for in English, in other languages, and in pairs of a thing
and a motion that training leaves out. What a clip shows is judged by `judge_clip`: the thing that
is recognised in its frames, the kind of its motion, the direction where the kind is right, and
whether all steps between frames are about as large (smooth).

Twice as long: a model is asked for twice as many frames as it was trained with. Such a clip has no
jump if neither of two changes is far larger where the trained length ends (in the step out of the
last trained frame and in the ones before and after it) than it is in all other steps on average:
that of the place, size and clearness of the thing (less than `JUMP` times, as for smooth clips),
and the root mean square change of pixels (less than `CUT` times). The mean and not the median,
since half of the steps of a true clip may be none at all: what has faded in stays.

Other sizes: a model is asked for clips of other widths, heights and aspect ratios than usual.

First frame: a true first frame is given, and comes back whatever a model does. So it is left out of
what is judged, but that by the rules above there is no jump where it ends.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from lumina.errors import LuminaError
from lumina.evaluation.exams import Outcome, Wish, by_language
from lumina.evaluation.lines import Line, share
from lumina.pipelines.video import MOST_FRAMES
from lumina.requests.sizes import SIZE_MULTIPLE, read_size
from lumina.worlds.judge import Lineup
from lumina.worlds.motion import DIRECTIONS, Clip
from lumina.worlds.motion_captions import write_clip
from lumina.worlds.motion_judge import (
    JUMP,
    QUIET,
    ClipVerdict,
    find_steps,
    judge_clip,
    track_thing,
)
from lumina.worlds.motion_world import MotionWorld, usual_references
from lumina.worlds.vocabulary import LANGUAGES

ENGLISH, HELD_OUT, LONGER, FIRST = "English", "held out", "twice as long", "first frame"
SIZES, SPOKEN = "other sizes", "languages"

QUICK = {ENGLISH: 60, HELD_OUT: 60, LONGER: 24, FIRST: 24, SIZES: 24}
FULL = {ENGLISH: 300, HELD_OUT: 300, LONGER: 120, FIRST: 120, SIZES: 120}
"""Clips of each section."""

EACH_LANGUAGE = {False: 6, True: 24}
"""Clips in each language, quick and full."""

OTHER_SIZES = ((1.25, 0.75), (0.75, 1.25), (1.25, 1.25), (1.5, 1.25))
"""Widths and heights that are asked for in turn, in those of the usual size."""

CUT, STILL = 2.0, 0.02  # STILL is added to changes of pixels, which are noise below it

SEED = 4321
"""Nothing is trained with it."""


class Seen(NamedTuple):
    """What is known of a clip.

    Args:
        verdict: Of the thing and its motion.
        steps: The largest change of the thing and that of pixels about the end of the trained
            length, or of the frame that was given, as multiples of the means of other steps; 1 for
            other clips.
    """

    verdict: ClipVerdict
    steps: tuple[float, float] = (1.0, 1.0)

    @property
    def has_jump(self) -> bool:
        """Whether a clip shows that two parts of it were made apart."""
        return self.steps[0] >= JUMP or self.steps[1] >= CUT


class ClipExam:
    """Clips of things that move.

    Args:
        usual: "size" and "frames" that a model was trained with.
    """

    called = "clips"
    world = MotionWorld(foreign=True)
    languages = LANGUAGES

    def __init__(self, usual: Mapping[str, Any]):
        self.width, self.height = read_size(usual["size"])
        self.frames = int(usual["frames"])
        if 2 * self.frames > MOST_FRAMES:
            raise LuminaError(
                f"the model makes {self.frames} frames, and the exam asks for twice as many",
                hint=f"clips have {MOST_FRAMES} frames at most",
            )

    def plan(self, *, full: bool, names: int | None, languages: Sequence[str]) -> list[Wish]:
        """Clips of each section; their kinds of motion take turns."""
        counts = FULL if full else QUICK
        part = 1.0 if names is None else names / counts[ENGLISH]
        wishes = []
        for section, most in counts.items():
            clips = _draw_clips(section, max(1, round(part * most)))
            wishes += [self._wish(section, clip, number) for number, clip in enumerate(clips)]
        for language in languages:
            clips = _draw_clips(language, max(1, round(part * EACH_LANGUAGE[full])))
            wishes += [
                self._wish(SPOKEN, clip, number, language) for number, clip in enumerate(clips)
            ]
        return wishes

    def example(self, wish: Wish) -> UInt8[np.ndarray, "frames rows cols 3"]:
        """The clip that was asked for."""
        size = tuple(wish.arguments[name] for name in ("width", "height", "frames"))
        return self.world.make(wish.brief, size)

    def judge(self, wish: Wish, medium: UInt8[np.ndarray, "frames rows cols 3"]) -> Seen:
        """The thing and its motion in frames that were made, and the step where two parts meet."""
        given = len(wish.arguments.get("first_frames", ()))
        verdict = judge_clip(usual_lineup(), wish.brief, medium[given:])
        if given or len(medium) > self.frames:
            return Seen(verdict, steps_at(medium, given or self.frames))
        return Seen(verdict)

    def measure(self, outcomes: Sequence[Outcome]) -> list[Line]:
        """Shares of clips that are right in each way, section by section."""
        lines = []
        for section in dict.fromkeys(outcome.wish.section for outcome in outcomes):
            same = [outcome for outcome in outcomes if outcome.wish.section == section]
            lines += _measure(section, same)
            if section == SPOKEN:
                lines += by_language(same, lambda one: one.verdict.verdict.is_found, "thing")
        return lines

    def describe(self, outcome: Outcome) -> dict[str, Any]:
        """The clip that was asked for, and what was found."""
        verdict, steps = outcome.verdict
        return {
            "asked": asdict(outcome.wish.brief),
            "right": verdict.is_found and verdict.is_direction_right,
            "found": verdict.found,
            "kind": verdict.kind,
            "direction": verdict.direction,
            "background": verdict.background,
            "jump": round(verdict.jump, 3),
            "steps": [round(step, 3) for step in steps],
        }

    def _wish(self, section: str, clip: Clip, number: int, language: str = "en") -> Wish:
        # Sizes take turns at another pace than kinds of motion, so that each kind has them all.
        turn = (number // len(DIRECTIONS) + number) % len(OTHER_SIZES)
        across, down = (1, 1) if section != SIZES else OTHER_SIZES[turn]
        arguments: dict[str, Any] = {
            "width": round(across * self.width / SIZE_MULTIPLE) * SIZE_MULTIPLE,
            "height": round(down * self.height / SIZE_MULTIPLE) * SIZE_MULTIPLE,
            "frames": self.frames * (2 if section == LONGER else 1),
        }
        if section == FIRST:
            first = self.world.make(clip, (self.width, self.height, 1))[0]
            arguments["first_frames"] = (Image.fromarray(first),)
        return Wish(section, write_clip(clip, language), clip, number, arguments, language)


EXAM = ClipExam


def steps_at(frames: UInt8[np.ndarray, "frames rows cols 3"], end: int) -> tuple[float, float]:
    """Largest steps about the end of a first part, as multiples of the mean of all others.

    Args:
        frames: Five at least.
        end: How many of them are the first part.

    Returns:
        The one of the thing, and the one of pixels.
    """
    pixels = frames.astype(np.float32) / 255
    changes = np.sqrt(np.square(np.diff(pixels, axis=0)).mean((1, 2, 3)))
    is_near = np.abs(np.arange(len(changes)) - (end - 1)) <= 1

    def largest(steps: np.ndarray, quiet: float) -> float:
        return float((steps[is_near].max() + quiet) / (steps[~is_near].mean() + quiet))

    return largest(find_steps(track_thing(frames)), QUIET), largest(changes, STILL)


@functools.cache
def usual_lineup() -> Lineup:
    """The drawings of the world of motion."""
    return Lineup(*usual_references())


def _draw_clips(purpose: str, count: int) -> list[Clip]:
    """Clips whose kinds take turns, the same each time, and others for each purpose."""
    rng = np.random.default_rng([SEED, *purpose.encode()])
    is_held_out = purpose == HELD_OUT
    kinds = [kind for kind in DIRECTIONS if kind != "still" or not is_held_out]
    worlds = [MotionWorld(kinds=(kind,), held_out=is_held_out) for kind in kinds]
    return [worlds[number % len(worlds)].draw(rng) for number in range(count)]


def _measure(section: str, outcomes: Sequence[Outcome]) -> list[Line]:
    seen = [outcome.verdict for outcome in outcomes]
    verdicts = [one.verdict for one in seen]
    parts: dict[str, Callable[[ClipVerdict], bool]] = {
        "thing": lambda verdict: verdict.is_found,
        "kind of motion": lambda verdict: verdict.is_kind_right,
        "background": lambda verdict: verdict.is_color_right,
        "smooth": lambda verdict: verdict.is_smooth,
    }
    lines = [
        share(section, what, [is_so(one) for one in verdicts]) for what, is_so in parts.items()
    ]
    if moving := [one for one in verdicts if one.is_kind_right and one.clip.direction]:
        directions = [one.is_direction_right for one in moving]
        lines.insert(2, share(section, "direction, of right kinds", directions))
    if section in (LONGER, FIRST):
        whole = [one.verdict.found is not None and not one.has_jump for one in seen]
        lines.append(share(section, "no jump", whole))
    return lines
