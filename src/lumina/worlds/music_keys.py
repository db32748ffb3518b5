"""Keys of music as people write them, in the names that captions have for them."""

import functools
import re
import unicodedata
from collections.abc import Mapping

from lumina.worlds.music import MODES, PITCHES
from lumina.worlds.music_captions import SAID, TOGETHER

SHARP_SIGNS, FLAT_SIGNS = "#♯＃", "b♭"


def spell_keys(text: str) -> str:
    """A prompt with each key of another spelling under the name that captions have.

    "Eb major", "D# major" and "D sharp major" become "E flat major", and "Des-Dur" becomes
    "Cis Dur". Where all names are known, nothing changes.
    """
    for language in ("en", *SAID):
        text = _pattern(language).sub(functools.partial(_spell, language), text)
    return text


def _spell(language: str, match: re.Match[str]) -> str:
    pitch, mode = match.groups()
    name = _names(language)[0][_spellings(language)[_plain(pitch)]]
    known = f"{name}{'' if language in TOGETHER else ' '}{mode}"
    return match[0] if known.lower() == match[0].lower() else known


def _names(language: str) -> tuple[list[str], list[str]]:
    """The twelve pitches from C, and the modes."""
    if language == "en":
        return list(PITCHES), list(MODES)
    _, _, pitches, modes = (part.split(",") for part in SAID[language])
    return pitches, modes


@functools.cache
def _pattern(language: str) -> re.Pattern[str]:
    """Finds a pitch and a mode."""
    spellings = sorted(_spellings(language), key=len, reverse=True)
    # Spaces and hyphens within a name are one as good as the other.
    pitches = "|".join(r"[\s-]+".join(map(re.escape, one.split())) for one in spellings)
    key = rf"({pitches})[\s-]*({'|'.join(_names(language)[1])})"
    is_spaced = language not in TOGETHER
    return re.compile(rf"(?<!\w){key}(?!\w)" if is_spaced else key, re.IGNORECASE)


@functools.cache
def _spellings(language: str) -> Mapping[str, int]:
    """All names of pitches in a language, and how far each is above C in semitones."""
    names, _ = _names(language)
    found = {_plain(name): pitch for pitch, name in enumerate(names)}
    of_scale = {pitch: names[pitch] for pitch in (0, 2, 4, 5, 7, 9, 11)}
    sharp = names[1].replace(names[0], "{}", 1)
    flat = "{}es" if language == "de" else names[3].replace(names[4], "{}", 1)
    for pitch, name in of_scale.items():
        raised = [sharp.format(name), *(name + gap + s for s in SHARP_SIGNS for gap in ("", " "))]
        lowered = [flat.format(name), *(name + sign for sign in FLAT_SIGNS), f"{name} ♭"]
        for one in raised:
            found.setdefault(_plain(one), (pitch + 1) % 12)
        for one in lowered:
            found.setdefault(_plain(one), (pitch - 1) % 12)
    if names[0] == "C":  # in letters, where B flat is B and B is H in German alone
        found |= {"bb": 10, "b♭": 10, "b ♭": 10, "h": 11}
    return found


def _plain(name: str) -> str:
    return re.sub(r"[\s-]+", " ", unicodedata.normalize("NFC", name).lower())
