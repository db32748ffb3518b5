"""Exam of models of sounds: which instrument or effect is heard, and what guidance does.

Each kind of sound is asked for as often as the others; and kinds with a number or a register that
training leaves out, where the kind alone is judged too; each kind is asked for by its name in other
languages. A judge that was made of other renderings says which kind a sound is nearest to. Without
guidance: one sound of each kind is asked for again, with the same seed and guidance 1, so that what
guidance adds is the difference to the line above.

Ten seconds: each kind is asked for at a length that is beyond those of the other sections. What
sounds all the time is to be heard in each half second, and what sounds a few times is to be at rest
in the last two, `REST` decibels below its loudest.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from lumina.evaluation.exams import Outcome, Wish, by_language
from lumina.evaluation.lines import Line, share
from lumina.modalities.sound.mel import frames_of
from lumina.worlds.hearing import loudness
from lumina.worlds.sound_judge import Verdict, usual_judge
from lumina.worlds.sound_names import NAMES, name_sound
from lumina.worlds.sounds import KINDS, Brief, draw_brief, write
from lumina.worlds.sounds_world import HOP, SAMPLE_RATE, Played, SoundWorld

ENGLISH, HELD_OUT, GUIDANCE, KIND = "English", "held out", "guidance", "kinds"
LONG, SPOKEN = "ten seconds", "languages"

EACH_KIND = {False: 3, True: 20}
"""Sounds of each kind, quick and full; and as many of held-out combinations as all together."""

EACH_LONG = {False: 2, True: 10}
"""Long sounds of each kind."""

LONG_SECONDS = 10.0

REST = 40.0
"""Decibels below the loudest moment of a sound, at which nothing is heard."""

NOTHING = Verdict("nothing", 1.0)
"""What silence is taken for."""

SEED = 8642
"""Nothing is trained with it."""


class SoundVerdict(NamedTuple):
    """What is known of a sound.

    Args:
        kind: The nearest one, or `NOTHING`.
        lasts: Whether it is heard in every half second.
        ends: Whether it is heard, and at rest in the last two seconds.
    """

    kind: Verdict
    lasts: bool
    ends: bool


class SoundExam:
    """Sounds of instruments, and effects.

    Args:
        usual: "seconds" of the sounds of a model.
    """

    called = "sounds"
    world = SoundWorld(foreign=True)
    languages = ("en", *NAMES)

    def __init__(self, usual: Mapping[str, Any]):
        self.frames = round(usual["seconds"] * SAMPLE_RATE / HOP)

    def plan(self, *, full: bool, names: int | None, languages: Sequence[str]) -> list[Wish]:
        """Sounds of all kinds in turn, what is held out, the first without guidance, languages."""
        kinds = list(KINDS)
        count = len(kinds) * EACH_KIND[full] if names is None else names
        rng = np.random.default_rng(SEED)
        briefs = [draw_brief(rng, kind=kinds[number % len(kinds)]) for number in range(count)]
        wishes = [_wish(ENGLISH, brief, number) for number, brief in enumerate(briefs)]
        wishes += [_wish(HELD_OUT, _draw_unknown(rng), number) for number in range(count)]
        plain = {"guidance_scale": 1.0}
        for wish in wishes[: min(count, len(kinds))]:
            wishes.append(wish._replace(section=GUIDANCE, arguments=plain))
        long = {"seconds": LONG_SECONDS}
        wishes += [
            _wish(LONG, draw_brief(rng, kind=kind), number)._replace(arguments=long)
            for number, kind in enumerate(kinds[:count] * EACH_LONG[full])
        ]
        for language in languages:
            wishes += [
                Wish(SPOKEN, name_sound(kind, language), Brief(kind), number, {}, language)
                for number, kind in enumerate(kinds[: min(count, len(kinds))])
            ]
        return wishes

    def example(self, wish: Wish) -> Float[np.ndarray, " samples"] | None:
        """A sound that answers the brief; none twice, as other sections ask for the same ones."""
        if wish.section in (GUIDANCE, SPOKEN):
            return None
        frames = frames_of(LONG_SECONDS) if wish.section == LONG else self.frames
        return self.world.make(Played(wish.brief, SEED + wish.seed), (frames,))

    def judge(self, wish: Wish, medium: Float[np.ndarray, " samples"]) -> SoundVerdict:
        """The nearest kind, and when it is heard."""
        level = loudness(medium).max(1)
        parts = np.array_split(level > -REST, max(1, round(2 * len(medium) / SAMPLE_RATE)))
        heard = [bool(part.any()) for part in parts]
        ends = any(heard) and not any(heard[-4:])
        kind = usual_judge("sounds").judge(medium) if any(heard) else NOTHING
        return SoundVerdict(kind, all(heard), ends)

    def measure(self, outcomes: Sequence[Outcome]) -> list[Line]:
        """How many are right: of all, of instruments and effects, with guidance and without."""
        parts: dict[str, list[Outcome]] = {}
        for outcome in outcomes:
            parts.setdefault(outcome.wish.section, []).append(outcome)
        lines = [line for name in (ENGLISH, HELD_OUT) for line in _measure(name, parts[name])]
        if plain := parts.get(GUIDANCE):
            guided = [_is_right(outcome) for outcome in parts[ENGLISH][: len(plain)]]
            lines.append(share(GUIDANCE, "top-1, as asked", guided))
            lines.append(share(GUIDANCE, "top-1, without", [_is_right(one) for one in plain]))
        if long := parts.get(LONG):
            lines += _measure_long(long)
        if spoken := parts.get(SPOKEN):
            lines += by_language(spoken, _is_right, "top-1")
        for kind in dict.fromkeys(outcome.wish.brief.kind for outcome in parts[ENGLISH]):
            same = [one for one in parts[ENGLISH] if one.wish.brief.kind == kind]
            lines.append(share(KIND, kind, [_is_right(outcome) for outcome in same]))
        return lines

    def describe(self, outcome: Outcome) -> dict[str, Any]:
        """The brief, and the kind that was heard."""
        return {
            "asked": asdict(outcome.wish.brief),
            "right": _is_right(outcome) and (outcome.wish.section != LONG or _is_timed(outcome)),
            "found": outcome.verdict.kind.name,
            "margin": round(outcome.verdict.kind.margin, 3),
            "lasts": outcome.verdict.lasts,
            "ends": outcome.verdict.ends,
        }


EXAM = SoundExam


def _draw_unknown(rng: np.random.Generator) -> Brief:
    """A held-out brief that is told in words which no other one is told in.

    An effect that sounds once is told as one of which nothing is said.
    """
    while True:
        brief = draw_brief(rng, is_held_out=True)
        if KINDS[brief.kind].is_played or brief.count != 1:
            return brief


def _wish(section: str, brief: Brief, number: int) -> Wish:
    return Wish(section, write(brief), brief, number, {})


def _measure(section: str, outcomes: Sequence[Outcome]) -> list[Line]:
    lines = [share(section, "top-1", [_is_right(outcome) for outcome in outcomes])]
    for what, is_played in (("instruments", True), ("effects", False)):
        same = [one for one in outcomes if KINDS[one.wish.brief.kind].is_played == is_played]
        if same:
            lines.append(share(section, f"top-1, {what}", [_is_right(one) for one in same]))
    return lines


def _measure_long(outcomes: Sequence[Outcome]) -> list[Line]:
    lines = [share(LONG, "top-1", [_is_right(outcome) for outcome in outcomes])]
    for what, is_steady in (("notes and hits end", False), ("what is steady lasts", True)):
        same = [one for one in outcomes if KINDS[one.wish.brief.kind].is_steady == is_steady]
        if same:
            lines.append(share(LONG, what, [_is_timed(outcome) for outcome in same]))
    return lines


def _is_timed(outcome: Outcome) -> bool:
    """Whether a long sound is heard when it should be."""
    is_steady = KINDS[outcome.wish.brief.kind].is_steady
    return outcome.verdict.lasts if is_steady else outcome.verdict.ends


def _is_right(outcome: Outcome) -> bool:
    return outcome.verdict.kind.name == outcome.wish.brief.kind
