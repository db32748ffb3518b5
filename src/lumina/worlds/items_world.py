"""Items seen from around, as a world to train models of views on."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import UInt8

from lumina.errors import LuminaError, refuse_missing_library
from lumina.settings import setting
from lumina.worlds import drawn_words
from lumina.worlds.item_captions import write_item
from lumina.worlds.item_kinds import KINDS
from lumina.worlds.items import COLORS, Item, azimuths_around, draw_item, render_views
from lumina.worlds.vocabulary import LANGUAGES

VERSION = 1
"""Changes when the same item has other pictures."""

ENGLISH = 3
"""How many times as likely as one in another language each English caption is."""


@dataclass(frozen=True, kw_only=True)
class ItemsWorld:
    """Chairs, mugs, cars and other items of one color each, from evenly spaced directions."""

    foreign: bool = setting(False, "captions in fourteen languages, instead of English alone")
    held_out: bool = setting(False, "only kinds in colors that are otherwise left out")

    modality = "multiview"
    sizes = ((64, 64, 4),)

    def check(self) -> None:
        """Refuse if a library that sees items is missing."""
        for name in ("trimesh", "embreex"):
            refuse_missing_library(name, extra="objects")

    def draw(self, rng: np.random.Generator) -> Item:
        """An item that is not held out, or one that is."""
        return draw_item(rng, is_held_out=self.held_out)

    def make(self, brief: Item, size: tuple[int, ...]) -> UInt8[np.ndarray, "views side side 3"]:
        """The views of an item: width, height, which is the same, and how many.

        Raises:
            LuminaError: If width and height differ.
        """
        if size[0] != size[1]:
            raise LuminaError(
                f"views of items are squares, not {size[0]}x{size[1]}",
                hint=f"ask for {size[0]}x{size[0]}x{size[2]}",
            )
        return render_views(brief, size[0], azimuths_around(size[2]))

    def captions(self, brief: Item) -> tuple[str, ...]:
        """What English says of it, and other languages if they are wanted."""
        english = tuple(write_item(brief, with_article=is_whole) for is_whole in (True, False))
        if not self.foreign:
            return english
        others = [write_item(brief, language) for language in LANGUAGES if language != "en"]
        return (*english * ENGLISH, *others)

    def names(self) -> dict[str, Sequence[str]]:
        """Kinds of items, and their colors."""
        return {"items": list(KINDS), "colors": list(COLORS)}

    def words(self) -> set[str]:
        """Those of many captions in all languages."""
        return drawn_words(replace(self, foreign=True))

    def digest(self) -> str:
        """The version."""
        return f"items {VERSION}"


WORLD = ItemsWorld
