"""Exam of models of speech: which words a speech recognizer hears, beside the voices learned from.

Held-out sentences are said by each voice. Their word error rate is to be read beside that of the
voice itself, in the column of true examples.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from lumina.evaluation.exams import Outcome, Wish
from lumina.evaluation.lines import Line, mean, share
from lumina.spelling import VOICES
from lumina.worlds.speaking import speak
from lumina.worlds.speech_judge import Listener, count_mistakes, judge_sentences
from lumina.worlds.speech_world import SpeechWorld

EACH_VOICE = {False: 24, True: 100}
"""Sentences that each voice says, quick and full."""


class SpeechExam:
    """Sentences that training leaves out, said by all voices.

    Args:
        usual: Has no effect: how long speech is follows from the sentence.
    """

    called = "sentences"
    world = SpeechWorld()
    languages = ("en",)

    def __init__(self, usual: Mapping[str, Any]):
        """There is nothing to set up."""

    def plan(self, *, full: bool, names: int | None, languages: Sequence[str]) -> list[Wish]:
        """The same sentences for each voice."""
        sentences = judge_sentences(names or EACH_VOICE[full])
        return [
            Wish(voice, sentence, sentence, number, {"voice": voice})
            for voice in VOICES
            for number, sentence in enumerate(sentences)
        ]

    def example(self, wish: Wish) -> Float[np.ndarray, " samples"]:
        """What the voice that is learned from says."""
        return speak(wish.brief, wish.section)

    def judge(self, wish: Wish, medium: Float[np.ndarray, " samples"]) -> list[str]:
        """The words that are heard."""
        return _listener().hear(medium)

    def measure(self, outcomes: Sequence[Outcome]) -> list[Line]:
        """Word error rate and whole sentences of each voice, and of all."""
        voices = dict.fromkeys(outcome.wish.section for outcome in outcomes)
        lines = []
        for voice in voices:
            same = [outcome for outcome in outcomes if outcome.wish.section == voice]
            lines += _measure(voice, same)
        return lines + (_measure("all voices", outcomes) if len(voices) > 1 else [])

    def describe(self, outcome: Outcome) -> dict[str, Any]:
        """What was to be said, and what was heard."""
        return {
            "voice": outcome.wish.section,
            "right": not _mistakes(outcome),
            "heard": " ".join(outcome.verdict),
        }


EXAM = SpeechExam


@functools.cache
def _listener() -> Listener:
    return Listener()


def _mistakes(outcome: Outcome) -> int:
    return count_mistakes(outcome.wish.brief.split(), outcome.verdict)


def _measure(section: str, outcomes: Sequence[Outcome]) -> list[Line]:
    mistakes = np.array([_mistakes(outcome) for outcome in outcomes])
    words = np.array([len(outcome.wish.brief.split()) for outcome in outcomes])
    rate = mistakes.sum() / words.sum()
    # Their mean is the rate, and they spread as it does: that of a ratio, to first order.
    spread = rate + (mistakes - rate * words) / words.mean()
    return [
        mean(section, "word error rate", spread.tolist(), unit="share"),
        share(section, "whole sentence", [count == 0 for count in mistakes.tolist()]),
    ]
