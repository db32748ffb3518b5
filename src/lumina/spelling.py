"""What can be said: letters, the voices that say them, and about how long each takes.

Speech is made from spelling alone, so that nothing but the model is needed to make it.
"""

from lumina.errors import LuminaError

LETTERS = " 'abcdefghijklmnopqrstuvwxyz"
"""All that is read. A space is the end of a word."""

PAUSES = ',.;:!?-–—…()[]"“”„‘‚«»'
"""Marks that are read as spaces."""

LONGEST = 300
"""Letters that can be said at once."""

EDGES = (2.0, 5.0)
"""Frames of 16 ms before the first letter and after the last."""

SPEEDS = (0.8, 1.25)
"""Slowest and fastest that speech can be asked for, relative to what is usual."""

VOICES = ("woman", "man", "robot")
"""Voices, in the order of their numbers."""


def read_letters(text: str) -> str:
    """The letters of a text, with one space between words.

    Raises:
        LuminaError: If it has no letters, too many, or characters that are not read.
    """
    letters = text.lower().replace("’", "'")
    for mark in PAUSES:
        letters = letters.replace(mark, " ")
    letters = " ".join(letters.split())
    strange = sorted(set(letters) - set(LETTERS))
    if any(mark.isdigit() for mark in strange):
        raise LuminaError(
            f"numbers in figures are not read: {text!r}", hint="write them as words: seven"
        )
    if strange:
        raise LuminaError(
            f"{' '.join(strange)} cannot be said: {text!r}",
            hint="write the letters a to z, apostrophes, and marks such as , . ; : ! ? -",
        )
    if not letters.strip(" '"):
        raise LuminaError(
            f"there is nothing to say in {text!r}", hint='write words: "the red cat sits"'
        )
    if len(letters) > LONGEST:
        raise LuminaError(
            f"{len(letters)} letters are too many to say at once: {text[:40] + '…'!r}",
            hint=f"say at most {LONGEST}, in several files",
        )
    return letters


def letter_shares(letters: str) -> tuple[float, ...]:
    """How long each letter takes relative to an average one, by any voice.

    Args:
        letters: What `read_letters` gave.
    """
    return tuple(_SHARES[letter] for letter in letters)


def count_frames(letters: str, voice: str, *, speed: float = 1.0) -> int:
    """About how many frames of 16 ms a voice takes for letters, with the edges.

    Args:
        letters: What `read_letters` gave.
        voice: A name in `VOICES`.
        speed: How much faster than usual they are said.
    """
    whole, letter = _TEMPOS[voice]
    spoken = whole - sum(EDGES) + letter * sum(letter_shares(letters))
    return round(sum(EDGES) + spoken / speed)


_SHARES = {
    " ": 0.46,
    "'": 0.1,
    "a": 0.94,
    "b": 0.96,
    "c": 1.07,
    "d": 1.22,
    "e": 0.57,
    "f": 1.41,
    "g": 0.62,
    "h": 0.46,
    "i": 0.65,
    "j": 1.39,
    "k": 0.5,
    "l": 0.79,
    "m": 0.8,
    "n": 0.96,
    "o": 0.89,
    "p": 1.04,
    "q": 2.12,
    "r": 0.61,
    "s": 1.45,
    "t": 0.64,
    "u": 0.63,
    "v": 1.13,
    "w": 1.06,
    "x": 2.72,
    "y": 1.05,
    "z": 0.94,
}
"""Of each letter, about as `benchmarks/letter_lengths.py` finds them in other sentences."""

_TEMPOS = {
    "woman": (18.6, 4.18),
    "man": (24.3, 4.64),
    "robot": (24.5, 4.82),
}
"""Frames of the shortest sentence, and those of an average letter."""
