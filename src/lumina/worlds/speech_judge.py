"""The judge of generated speech: which words a speech recognizer hears, by pocketsphinx.

It knows the sentences that speech is trained on (`lumina.worlds.sentences`), so that its own
mistakes are few. What a voice is worth is told by its word error rate beside that of the voice it
learned from.
"""

import os
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from lumina.errors import refuse_missing_library
from lumina.worlds.sentences import FORMS, SLOTS, draw_sentence, is_held_out

JUDGE_SEED = 77
"""Nothing that is trained has this seed."""

SILENCE = 3200
"""Samples of silence before and after what is listened to, without which first words are lost."""


class Listener:
    """A speech recognizer of the sentences of the world.

    Raises:
        LuminaError: If pocketsphinx is not installed.
    """

    def __init__(self) -> None:
        refuse_missing_library("pocketsphinx", extra="speech")
        import pocketsphinx

        config = pocketsphinx.Config(
            hmm=pocketsphinx.get_model_path("en-us/en-us"),
            dict=pocketsphinx.get_model_path("en-us/cmudict-en-us.dict"),
            lm=None,
            samprate=16_000,
            logfn=os.devnull,
        )
        self._decoder: Any = pocketsphinx.Decoder(config)
        self._decoder.add_jsgf_string("sentences", write_grammar())
        self._decoder.activate_search("sentences")

    def hear(self, waveform: Float[np.ndarray, " samples"]) -> list[str]:
        """The words of a sound at 16 kHz; none where nothing is understood."""
        padded = np.pad(np.clip(waveform, -1, 1), SILENCE)
        self._decoder.start_utt()
        self._decoder.process_raw((padded * 32767).astype("<i2").tobytes(), full_utt=True)
        self._decoder.end_utt()
        found = self._decoder.hyp()
        # Other ways to say a word are numbered: "the(2)".
        return [] if found is None else re.sub(r"\(\d+\)", "", found.hypstr).split()


def count_mistakes(said: Sequence[str], heard: Sequence[str]) -> int:
    """Fewest words to change, add or leave out to make one sentence of the other."""
    row = list(range(len(heard) + 1))
    for count, word in enumerate(said, start=1):
        above, row[0] = row[0], count
        for place, other in enumerate(heard, start=1):
            change = above + (word != other)
            above, row[place] = row[place], min(change, row[place] + 1, row[place - 1] + 1)
    return row[-1]


def judge_sentences(count: int) -> list[str]:
    """Different sentences that are held out: always the same ones."""
    rng = np.random.default_rng((JUDGE_SEED, 10))
    chosen: dict[str, None] = {}
    while len(chosen) < count:
        sentence = draw_sentence(rng)
        if is_held_out(sentence):
            chosen[sentence] = None
    return list(chosen)


def write_grammar() -> str:
    """The sentences of the world in the Java Speech Grammar Format."""
    rules = [f"<{name}> = {' | '.join(phrases)};" for name, phrases in SLOTS.items()]
    forms = " | ".join(re.sub(r"{(\w+)}", r"<\1>", form) for form in FORMS)
    header = ["#JSGF V1.0;", "grammar sentences;", f"public <sentence> = {forms};"]
    return "\n".join([*header, *rules])
