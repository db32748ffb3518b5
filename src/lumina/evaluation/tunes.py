"""Exam of models of music: instrument, pitch, tempo and key of short pieces.

Instruments and forms take turns, in combinations that were trained, in those that were not, at ten
seconds, which have more notes, and in other languages. What is heard is judged by `judge_tune`: the
nearest instrument by how it sounds, the share of notes within half a semitone of what was asked
for, the tempo within 8 %, and the key by its first pitch and its mode.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from jaxtyping import Float

from lumina.evaluation.exams import Outcome, Wish, by_language
from lumina.evaluation.lines import Line, mean, share
from lumina.modalities.sound.mel import frames_of
from lumina.worlds.music import FORMS, INSTRUMENTS, Tune, draw_tune
from lumina.worlds.music_captions import tell_tune
from lumina.worlds.music_judge import TuneVerdict, judge_tune
from lumina.worlds.music_world import HOP, SAMPLE_RATE, MusicWorld, Piece
from lumina.worlds.sound_judge import usual_judge
from lumina.worlds.vocabulary import LANGUAGES

ENGLISH, HELD_OUT = "English", "held out"
LONG, SPOKEN = "ten seconds", "languages"

QUICK, FULL = 64, 320
"""Pieces of each section; long ones are a quarter of that, and languages have an eighth each."""

LONG_SECONDS = 10.0

SEED = 9753
"""Nothing is trained with it."""


class TuneExam:
    """Scales, melodies and chords.

    Args:
        usual: "seconds" of the sounds of a model.
    """

    called = "pieces"
    world = MusicWorld(foreign=True)
    languages = LANGUAGES

    def __init__(self, usual: Mapping[str, Any]):
        self.frames = round(usual["seconds"] * SAMPLE_RATE / HOP)

    def plan(self, *, full: bool, names: int | None, languages: Sequence[str]) -> list[Wish]:
        """Pieces of each section."""
        count = names or (FULL if full else QUICK)
        sections = [(ENGLISH, "en", count), (HELD_OUT, "en", count)]
        sections.append((LONG, "en", max(1, count // 4)))
        sections += [(SPOKEN, language, max(1, count // 8)) for language in languages]
        return [
            Wish(section, tell_tune(tune, language), tune, number, _length(section), language)
            for section, language, few in sections
            for number, tune in enumerate(_draw_tunes(section, language, few))
        ]

    def example(self, wish: Wish) -> Float[np.ndarray, " samples"]:
        """A piece that answers the brief."""
        frames = frames_of(LONG_SECONDS) if wish.section == LONG else self.frames
        return self.world.make(Piece(wish.brief, SEED + wish.seed), (frames,))

    def judge(self, wish: Wish, medium: Float[np.ndarray, " samples"]) -> TuneVerdict:
        """What of the brief it keeps."""
        return judge_tune(medium, wish.brief, instruments=usual_judge("music"))

    def measure(self, outcomes: Sequence[Outcome]) -> list[Line]:
        """Shares that are right in each way, section by section."""
        lines = []
        for section in dict.fromkeys(outcome.wish.section for outcome in outcomes):
            same = [outcome for outcome in outcomes if outcome.wish.section == section]
            verdicts = [outcome.verdict for outcome in same]
            lines += [
                share(section, "instrument", [one.instrument for one in verdicts]),
                mean(section, "pitch", [one.pitch for one in verdicts], unit="share"),
                *_pitch_of_scales(section, same),
                share(section, "tempo", [one.tempo for one in verdicts]),
                share(section, "key", [one.key for one in verdicts]),
            ]
            if section == SPOKEN:
                lines += by_language(same, lambda one: one.verdict.instrument, "instrument")
        return lines

    def describe(self, outcome: Outcome) -> dict[str, Any]:
        """The brief, and which parts of it are kept."""
        verdict = outcome.verdict
        is_right = verdict.instrument and verdict.pitch == 1 and verdict.tempo and verdict.key
        return {"asked": asdict(outcome.wish.brief), "right": is_right, "kept": verdict._asdict()}


EXAM = TuneExam


def _length(section: str) -> dict[str, float]:
    return {"seconds": LONG_SECONDS} if section == LONG else {}


def _pitch_of_scales(section: str, outcomes: Sequence[Outcome]) -> list[Line]:
    """The share of right notes of scales, each of which has one right class of pitch.

    Notes of melodies and chords may be any of the key, so that seven of twelve are right by chance.
    """
    scales = [one for one in outcomes if one.wish.brief.form.endswith("scale")]
    pitches = [one.verdict.pitch for one in scales]
    return [mean(section, "pitch, scales alone", pitches, unit="share")] if pitches else []


def _turn(section: str, number: int) -> int:
    """Which turn of the forms it is; they take turns faster where there are few pieces."""
    return number // len(INSTRUMENTS) + (number if section in (LONG, SPOKEN) else 0)


def _draw_tunes(section: str, language: str, count: int) -> list[Tune]:
    """Pieces whose instruments and forms take turns, others for each section and language."""
    rng = np.random.default_rng([SEED, *f"{section} {language}".encode()])
    instruments = list(INSTRUMENTS)
    return [
        draw_tune(
            rng,
            is_held_out=section == HELD_OUT,
            instrument=instruments[number % len(instruments)],
            form=FORMS[_turn(section, number) % len(FORMS)],
        )
        for number in range(count)
    ]
