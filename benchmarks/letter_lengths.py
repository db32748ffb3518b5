"""How long letters and sentences are in the voices of speech, as `lumina.spelling` has it.

Run `python benchmarks/letter_lengths.py`, with flite and espeak-ng installed. It lets each voice
say 300 sentences, in a minute or two, and prints tables that are near those of `lumina.spelling`,
which were found with other sentences. Weights belong to the table that they were trained with.
"""

import numpy as np

from lumina.modalities.sound.mel import HOP
from lumina.worlds.sentence_lengths import fit_shares
from lumina.worlds.sentences import draw_sentence, is_held_out
from lumina.worlds.speaking import SPEAKERS, speak

SENTENCES, SEED = 300, 0


def main() -> None:
    """Print how long letters are relative to each other, and the tempo of each voice."""
    rng = np.random.default_rng(SEED)
    drawn: list[str] = []
    while len(drawn) < SENTENCES:
        sentence = draw_sentence(rng)
        if not is_held_out(sentence):
            drawn.append(sentence)
    frames = {
        voice: [len(speak(sentence, voice)) / HOP for sentence in drawn] for voice in SPEAKERS
    }
    shares, tempos = fit_shares(drawn, frames)
    print("\n".join(f"{letter!r}: {share:.2f}" for letter, share in shares.items()))
    for voice, tempo in tempos.items():
        print(f"{voice}: {tempo.edges:.1f} frames, and {tempo.letter:.2f} for each letter")


if __name__ == "__main__":
    main()
