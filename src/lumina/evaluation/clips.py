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
what is judged, but that by the rules above there is no jump where it ends. Continuation: the same
with the first half of the frames of a true clip, for motions that the other half shows as well.

Transition: one thing that is still turns into another. The first and the last quarter of the frames
are to show them, and there is no cut where no change of pixels is `JUMP` times as large as the mean
of the others. True examples fade from one into the other.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
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
GOING_ON, TURNING, SIZES, SPOKEN = "continuation", "transition", "other sizes", "languages"

QUICK = {ENGLISH: 60, HELD_OUT: 60} | dict.fromkeys((LONGER, FIRST, GOING_ON, TURNING, SIZES), 24)
FULL = {ENGLISH: 300, HELD_OUT: 300} | dict.fromkeys((LONGER, FIRST, GOING_ON, TURNING, SIZES), 120)
"""Clips of each section."""

EACH_LANGUAGE = {False: 6, True: 24}
"""Clips in each language, quick and full."""

OTHER_SIZES = ((1.25, 0.75), (0.75, 1.25), (1.25, 1.25), (1.5, 1.25))
"""Widths and heights that are asked for in turn, in those of the usual size."""

TOLD_LATE = ("move", "spin", "resize", "still")
"""Kinds of motion that are seen in the second half of a clip: what bounces has turned by then."""

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


class Turn(NamedTuple):
    """A thing, and what it turns into."""

    first: Clip
    last: Clip


class Turned(NamedTuple):
    """What is known of a transition.

    Args:
        first: Verdict of the first quarter of its frames.
        last: Verdict of the last quarter.
        cut: The largest change of pixels, as a multiple of the mean of the others.
    """

    first: ClipVerdict
    last: ClipVerdict
    cut: float

    @property
    def is_smooth(self) -> bool:
        """Whether one becomes the other little by little."""
        return self.cut < JUMP


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
            count = max(1, round(part * most))
            if section == TURNING:
                turns = enumerate(_draw_turns(count))
                wishes += [self._wish_of_turn(turn, number) for number, turn in turns]
                continue
            clips = _draw_clips(section, count)
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
        if not isinstance(wish.brief, Turn):
            return self.world.make(wish.brief, size)
        first, last = (self.world.make(clip, size).astype(float) for clip in wish.brief)
        share = ((np.linspace(0, 1, len(first)) - 0.25) * 2).clip(0, 1)[:, None, None, None]
        return (first * (1 - share) + last * share).round().astype(np.uint8)

    def judge(self, wish: Wish, medium: UInt8[np.ndarray, "frames rows cols 3"]) -> Seen | Turned:
        """The thing and its motion in frames that were made, and the step where two parts meet."""
        if isinstance(wish.brief, Turn):
            quarter = max(1, len(medium) // 4)
            first = judge_clip(usual_lineup(), wish.brief.first, medium[:quarter])
            last = judge_clip(usual_lineup(), wish.brief.last, medium[-quarter:])
            changes = _changes(medium)
            others = (changes.sum() - changes.max()) / max(1, len(changes) - 1)
            return Turned(first, last, float((changes.max() + STILL) / (others + STILL)))
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
        if isinstance(outcome.verdict, Turned):
            first, last, cut = outcome.verdict
            return {
                "asked": [asdict(clip) for clip in outcome.wish.brief],
                "right": first.is_found and last.is_found and outcome.verdict.is_smooth,
                "found": [first.found, last.found],
                "cut": round(cut, 3),
            }
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
        if section in (FIRST, GOING_ON):
            # What has no steps but those about the end of a part cannot jump there.
            count = 1 if section == FIRST else max(1, min(self.frames // 2, self.frames - 4))
            first = self.world.make(clip, (self.width, self.height, count))
            arguments["first_frames"] = tuple(map(Image.fromarray, first))
        return Wish(section, write_clip(clip, language), clip, number, arguments, language)

    def _wish_of_turn(self, turn: Turn, number: int) -> Wish:
        prompt, to_prompt = (write_clip(clip, "en") for clip in turn)
        arguments = {"width": self.width, "height": self.height, "frames": self.frames}
        arguments |= {"to_prompt": to_prompt}
        return Wish(TURNING, prompt, turn, number, arguments, at_once=1)


EXAM = ClipExam


def steps_at(frames: UInt8[np.ndarray, "frames rows cols 3"], end: int) -> tuple[float, float]:
    """Largest steps about the end of a first part, as multiples of the mean of all others.

    Args:
        frames: Five at least.
        end: How many of them are the first part.

    Returns:
        The one of the thing, and the one of pixels.
    """
    changes = _changes(frames)
    is_near = np.abs(np.arange(len(changes)) - (end - 1)) <= 1

    def largest(steps: np.ndarray, quiet: float) -> float:
        return float((steps[is_near].max() + quiet) / (steps[~is_near].mean() + quiet))

    return largest(find_steps(track_thing(frames)), QUIET), largest(changes, STILL)


def _changes(frames: UInt8[np.ndarray, "frames rows cols 3"]) -> Float[np.ndarray, " between"]:
    """Root mean square change of pixels, which are from 0 to 1, in each step."""
    pixels = frames.astype(np.float32) / 255
    return np.sqrt(np.square(np.diff(pixels, axis=0)).mean((1, 2, 3)))


@functools.cache
def usual_lineup() -> Lineup:
    """The drawings of the world of motion."""
    return Lineup(*usual_references())


def _draw_clips(purpose: str, count: int) -> list[Clip]:
    """Clips whose kinds take turns, the same each time, and others for each purpose."""
    rng = np.random.default_rng([SEED, *purpose.encode()])
    is_held_out = purpose == HELD_OUT
    kinds = [kind for kind in DIRECTIONS if kind != "still" or not is_held_out]
    if purpose == GOING_ON:
        kinds = list(TOLD_LATE)
    worlds = [MotionWorld(kinds=(kind,), held_out=is_held_out) for kind in kinds]
    return [worlds[number % len(worlds)].draw(rng) for number in range(count)]


def _draw_turns(count: int) -> list[Turn]:
    """Pairs of things that are still, on grounds of one color."""
    rng = np.random.default_rng([SEED, *TURNING.encode()])
    world, turns = MotionWorld(kinds=("still",)), []
    while len(turns) < count:
        turn = Turn(world.draw(rng), world.draw(rng))
        if turn.first.thing != turn.last.thing and turn.first.background == turn.last.background:
            turns.append(turn)
    return turns


def _measure(section: str, outcomes: Sequence[Outcome]) -> list[Line]:
    if section == TURNING:
        turned = [outcome.verdict for outcome in outcomes]
        return [
            share(section, "thing at first", [one.first.is_found for one in turned]),
            share(section, "thing at last", [one.last.is_found for one in turned]),
            share(section, "no cut", [one.is_smooth for one in turned]),
        ]
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
    if section in (LONGER, FIRST, GOING_ON):
        whole = [one.verdict.found is not None and not one.has_jump for one in seen]
        lines.append(share(section, "no jump", whole))
    return lines
