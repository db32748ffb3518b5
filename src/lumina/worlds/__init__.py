"""Generated data, and the rules that judge what models make of it."""

import importlib
import pkgutil
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from lumina.errors import UnknownNameError
from lumina.settings import from_table


@runtime_checkable
class World(Protocol):
    """What makes examples of one kind out of random numbers."""

    @property
    def modality(self) -> str:
        """What they are: a name of `lumina.modalities`."""
        ...

    @property
    def sizes(self) -> tuple[tuple[int, ...], ...]:
        """Usual sizes, as `Medium` has them."""
        ...

    def check(self) -> None:
        """Refuse if something is missing that they are made with.

        Raises:
            LuminaError: If a file or a library is not there.
        """
        ...

    def draw(self, rng: np.random.Generator) -> Any:
        """A brief: a frozen dataclass of a few numbers and names that an example follows from.

        If it has a `label`, that is the number of its class.
        """
        ...

    def make(self, brief: Any, size: tuple[int, ...]) -> np.ndarray:
        """The example of a brief at a size."""
        ...

    def captions(self, brief: Any) -> tuple[str, ...]:
        """All that may be said of it, each as likely as the others."""
        ...

    def names(self) -> Mapping[str, Sequence[str]]:
        """What captions tell of, in English: lists of names, by what they are called together."""
        ...

    def words(self) -> set[str]:
        """Words of all its captions, by `words_in`, or nearly all."""
        ...

    def digest(self) -> str:
        """What tells its examples from those that other versions of it would make."""
        ...


_ENDING = "_world"

WORLDS = tuple(
    module.name.removesuffix(_ENDING)
    for module in pkgutil.iter_modules(__path__)
    if module.name.endswith(_ENDING)
)
"""Names of worlds: each is in a module that ends in `_world`, as `WORLD`, a dataclass."""


def find_world(name: str, settings: Mapping[str, Any] | None = None) -> World:
    """The world of a name.

    Args:
        name: One of `WORLDS`.
        settings: Its own.

    Raises:
        UnknownNameError: If there is none.
        LuminaError: If a setting is unknown or out of its range.
    """
    if name not in WORLDS:
        raise UnknownNameError.among(WORLDS, name, kind="world")
    module = importlib.import_module(f"{__name__}.{name}{_ENDING}")
    return from_table(module.WORLD, settings or {})


def words_in(text: str) -> list[str]:
    """Words of a text in small letters, numbers and emoji.

    Where there are no spaces between words, they are each Chinese character, and what is written in
    one of the two Japanese scripts; fewer than three hiragana are endings and the like.
    """
    return _WORD.findall(unicodedata.normalize("NFC", text.lower()))


def drawn_words(world: World, draws: int = 800) -> set[str]:
    """Words of the captions of some examples of a world."""
    rng = np.random.default_rng(0)
    captions = (text for _ in range(draws) for text in world.captions(world.draw(rng)))
    return {word for text in captions for word in words_in(text)}


_HIRAGANA, _KATAKANA, _HAN = "ぁ-ゖ", "ァ-ヺー", "㐀-䶿一-鿿々"
_MARKS = "\u0300-\u036f\u064b-\u065f"  # accents and vowels that are written as signs of their own
_LETTERS = rf"(?:[^\W\d_{_HIRAGANA}{_KATAKANA}{_HAN}][{_MARKS}]*)+"
_JOINERS = "['’\u200c-]"
_EMOJI = "\U0001f000-\U0001faff\u2600-\u27bf"
_WORD = re.compile(
    # A sign of music belongs to the letter before it: no caption has one.
    rf"{_LETTERS}(?:{_JOINERS}{_LETTERS})*[#♯♭]?|\d+|[{_HAN}{_EMOJI}]"
    rf"|[{_KATAKANA}]+|[{_HIRAGANA}]{{3,}}"
)
