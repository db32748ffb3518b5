"""Short sounds of instruments and effects: what is in one, what it is called, and how it sounds."""

import hashlib
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from lumina.worlds.soundfont import DRUMS, Note, play

SECONDS = (2.0, 5.0)
"""How long sounds for training are."""

REGISTERS = ("low", "high")
"""Thirds of the keys of an instrument; the middle has no name."""

NUMBERS = ("one", "two", "three", "four")
TIMES = ("once", "twice", "three times", "four times")


@dataclass(frozen=True)
class Kind:
    """Something that sounds.

    Args:
        program: Instrument of General MIDI, 0 to 127, or `DRUMS`.
        keys: Lowest and highest key that sounds well.
        phrases: How its sounds are told. `{n}` stands for a number of them; those without are for
            one. `{r}` stands for "low", "high" or nothing.
        beat: Seconds that each key is down: the least and the most.
        is_played: Whether it plays notes whose number and height are worth telling.
        is_steady: Whether it sounds all the time instead of a number of times.
    """

    program: int
    keys: tuple[int, int]
    phrases: tuple[str, ...]
    beat: tuple[float, float] = (0.25, 0.6)
    is_played: bool = False
    is_steady: bool = False


@dataclass(frozen=True)
class Brief:
    """What a caption asks for.

    Args:
        kind: A key of `KINDS`.
        count: How often it sounds, 1 to 4, or None where the caption does not tell.
        register: "low", "high", or None where the caption does not tell.
    """

    kind: str
    count: int | None = None
    register: str | None = None

    @property
    def is_held_out(self) -> bool:
        """Whether this combination is never trained on: a fixed tenth; a name alone never is."""
        if self.count is None and self.register is None:
            return False
        key = f"{self.kind}|{self.count}|{self.register}"
        return hashlib.blake2b(key.encode(), digest_size=4).digest()[0] % 10 == 0


def draw_brief(
    rng: np.random.Generator, *, kind: str | None = None, is_held_out: bool = False
) -> Brief:
    """Random brief.

    Args:
        rng: Source of chance.
        kind: What sounds. None is any.
        is_held_out: Whether to draw one that is never trained on, or one that may be. Of a kind
            that has none of the one or the other, there is no end.
    """
    while True:
        brief = _any_brief(rng, kind or str(rng.choice(list(KINDS))))
        if brief.is_held_out == is_held_out:
            return brief


def write(brief: Brief, rng: np.random.Generator | None = None) -> str:
    """Caption of a brief in English: the first way of telling it, or with `rng` any way."""
    kind = KINDS[brief.kind]
    if kind.is_played:
        ways = _played(brief)
    else:
        several = (brief.count or 1) > 1 and not kind.is_steady
        ways = [phrase for phrase in kind.phrases if ("{" in phrase) == several]
    phrase = ways[0 if rng is None else int(rng.integers(len(ways)))]
    number = (brief.count or 1) - 1
    return phrase.format(n=NUMBERS[number], times=TIMES[number])


def render(
    brief: Brief, rng: np.random.Generator, *, seconds: float
) -> Float[np.ndarray, " samples"]:
    """Waveform of a sound that answers a brief, in [-1, 1] at 16 kHz.

    What the brief leaves open (how many, how high, how fast, how loud) is random.

    Raises:
        LuminaError: If fluidsynth or the soundfont is not installed.
    """
    kind = KINDS[brief.kind]
    notes = _steady(kind, rng, seconds) if kind.is_steady else _some(brief, kind, rng, seconds)
    waveform = play(notes, seconds)
    peak = float(np.abs(waveform).max())
    return waveform * (float(rng.uniform(0.4, 0.95)) / max(peak, 1e-4))


def _any_brief(rng: np.random.Generator, name: str) -> Brief:
    kind = KINDS[name]
    if kind.is_steady or rng.random() < 0.25:
        return Brief(name)
    register = None
    if kind.is_played and rng.random() < 0.4:
        register = str(rng.choice(REGISTERS))
    return Brief(name, int(rng.integers(1, len(NUMBERS) + 1)), register)


def _some(brief: Brief, kind: Kind, rng: np.random.Generator, seconds: float) -> list[Note]:
    """As many notes as asked for, one after the other, all begun well before the end."""
    count = brief.count or int(rng.integers(1, len(NUMBERS) + 1))
    start = float(rng.uniform(0.02, 0.15))
    step = float(rng.uniform(0.7, 1.0)) * (seconds - 0.4 - start) / count
    step = min(step, float(rng.uniform(0.5, 1.1)))
    low, high = _keys(kind, brief.register)
    shares = rng.uniform(*kind.beat, count) / kind.beat[1]
    return [
        Note(
            start=start + number * step,
            seconds=float(min(shares[number] * step, kind.beat[1] * 2)),
            pitch=int(rng.integers(low, high + 1)),
            program=kind.program,
            velocity=int(rng.integers(75, 120)),
        )
        for number in range(count)
    ]


def _steady(kind: Kind, rng: np.random.Generator, seconds: float) -> list[Note]:
    """A key that is held, pressed again where its sound would end."""
    low, high = _keys(kind, None)
    pitch, velocity = int(rng.integers(low, high + 1)), int(rng.integers(85, 120))
    length = float(rng.uniform(*kind.beat))
    starts = np.arange(0.0, seconds, length)
    # A key that is let go after it was pressed again would silence what that began.
    return [Note(float(start), 0.99 * length, pitch, kind.program, velocity) for start in starts]


def _keys(kind: Kind, register: str | None) -> tuple[int, int]:
    low, high = kind.keys
    third = (high - low) // 3
    if register is None:
        return low, high
    return (low, low + third) if register == "low" else (high - third, high)


def _played(brief: Brief) -> list[str]:
    """Ways to tell of notes of an instrument."""
    name = KINDS[brief.kind].phrases[0]
    height = f"{brief.register} " if brief.register else ""
    if brief.count is None:
        notes = f"plays {height}notes" if height else "plays"
        return [f"{name} {notes}", f"the sound of {name}", name]
    if brief.count == 1:
        one = f"a {height}note"
        return [f"{name} plays {one}", f"{one} on {name}", f"one {height}note of {name}"]
    return [
        f"{name} plays {{n}} {height}notes",
        f"{{n}} {height}notes on {name}",
        f"{name}, {{n}} {height}notes",
    ]


def _instrument(
    name: str, program: int, low: int, high: int, beat: tuple[float, float] = (0.25, 0.6)
) -> Kind:
    article = "an" if name[0] in "aeiou" else "a"
    return Kind(program, (low, high), (f"{article} {name}",), beat, is_played=True)


def _struck(name: str, *keys: int) -> Kind:
    return Kind(
        DRUMS,
        (keys[0], keys[-1]),
        (
            f"a {name}",
            f"a hit on a {name}",
            f"a {name} is struck",
            f"{{n}} hits on a {name}",
            f"a {name} is struck {{times}}",
        ),
    )


_INSTRUMENTS = {
    "piano": (0, 40, 84),
    "harpsichord": (6, 40, 76),
    "music box": (10, 72, 96),
    "marimba": (12, 48, 79),
    "church bell": (14, 48, 72),
    "pipe organ": (19, 40, 76),
    "accordion": (21, 52, 84),
    "harmonica": (22, 60, 84),
    "guitar": (25, 40, 72),
    "electric guitar": (30, 40, 67),
    "bass guitar": (33, 28, 48),
    "violin": (40, 57, 88),
    "choir": (52, 48, 74),
    "timpani": (47, 36, 52),
    "trumpet": (56, 55, 79),
    "tuba": (58, 28, 50),
    "saxophone": (65, 50, 76),
    "clarinet": (71, 50, 82),
    "flute": (73, 62, 91),
    "sitar": (104, 50, 74),
    "banjo": (105, 48, 74),
    "bagpipe": (109, 52, 74),
    "steel drum": (114, 52, 79),
}

KINDS: dict[str, Kind] = {
    **{name: _instrument(name, *facts) for name, facts in _INSTRUMENTS.items()},
    "bass drum": _struck("bass drum", 35, 36),
    "snare drum": _struck("snare drum", 38),
    "cymbal": _struck("cymbal", 49),
    "tambourine": _struck("tambourine", 54),
    "cowbell": _struck("cowbell", 56),
    "wood block": _struck("wood block", 76, 77),
    "triangle": _struck("triangle", 81),
    "hand clap": Kind(
        DRUMS,
        (39, 39),
        ("a hand clap", "someone claps", "{n} hand claps", "someone claps {times}"),
    ),
    "referee whistle": Kind(
        DRUMS,
        (71, 71),
        ("a referee whistle", "someone blows a whistle", "someone blows a whistle {times}"),
    ),
    "gunshot": Kind(
        127,
        (48, 62),
        ("a gunshot", "someone fires a gun", "{n} gunshots", "someone fires a gun {times}"),
    ),
    "telephone": Kind(
        124,
        (46, 62),
        ("a telephone rings", "a ringing telephone", "a telephone rings {times}"),
        (0.45, 0.6),
    ),
    "birds": Kind(
        123,
        (34, 44),
        ("birds tweeting", "a bird sings", "the song of a bird", "birdsong"),
        (0.8, 1.4),
        is_steady=True,
    ),
    "helicopter": Kind(
        125,
        (52, 66),
        ("a helicopter", "a helicopter flies by", "the sound of a helicopter"),
        (4.0, 6.0),
        is_steady=True,
    ),
    "applause": Kind(
        126,
        (55, 65),
        ("applause", "people applaud", "an audience claps"),
        (4.0, 6.0),
        is_steady=True,
    ),
    "waves": Kind(
        122,
        (50, 70),
        ("ocean waves", "waves on a beach", "the sound of the sea"),
        (4.0, 6.0),
        is_steady=True,
    ),
}
"""All that is trained on, by its name. Each differs from the others by ear and by `SoundJudge`."""
