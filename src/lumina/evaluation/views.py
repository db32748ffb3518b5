"""Exam of models of views: which item is seen, in which color, and whether all views agree.

Items are asked for in English, in other languages, in colors that training leaves out, with fewer
and more views than usual, and with the first view given, which is not judged. By
`Showroom`: in what share of its views is an item of the kind and the color that were asked for, how
much do outlines overlap with those of the nearest known item of that kind in the true poses, and
can all views be of one solid?
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from lumina.evaluation.exams import Outcome, Wish, by_language
from lumina.evaluation.lines import Line, mean, share
from lumina.requests import read_size
from lumina.worlds.item_captions import write_item
from lumina.worlds.item_judge import ItemVerdict, Showroom
from lumina.worlds.items import Item, azimuths_around, draw_item
from lumina.worlds.items_world import ItemsWorld
from lumina.worlds.vocabulary import LANGUAGES

ENGLISH, HELD_OUT, KNOWN, SPOKEN = "English", "held out", "first view given", "languages"

OTHER_COUNTS = (2, 8)
"""Numbers of views that are asked for besides the usual one."""

QUICK = {ENGLISH: 60, HELD_OUT: 60, KNOWN: 24}
FULL = {ENGLISH: 300, HELD_OUT: 300, KNOWN: 120}
"""Items of each section; with other numbers of views, as many as with a first view."""

EACH_LANGUAGE = {False: 6, True: 24}
"""Items in each language, quick and full."""

SEED = 7531
"""Nothing is trained with it."""


class ViewsExam:
    """Items seen from all around.

    Args:
        usual: "size" and "views" that a model was trained with.
    """

    called = "items"
    world = ItemsWorld(foreign=True)
    languages = LANGUAGES

    def __init__(self, usual: Mapping[str, Any]):
        self.side = read_size(usual["size"])[0]
        self.views = int(usual["views"])

    def plan(self, *, full: bool, names: int | None, languages: Sequence[str]) -> list[Wish]:
        """Items of each section."""
        counts = FULL if full else QUICK
        part = 1.0 if names is None else names / counts[ENGLISH]
        sections = [(section, most, self.views) for section, most in counts.items()]
        sections += [(f"{views} views", counts[KNOWN], views) for views in OTHER_COUNTS]
        wishes = []
        for section, most, views in sections:
            items = _draw_items(section, max(1, round(part * most)))
            wishes += [self._wish(section, item, n, views) for n, item in enumerate(items)]
        for language in languages:
            items = _draw_items(language, max(1, round(part * EACH_LANGUAGE[full])))
            wishes += [
                self._wish(SPOKEN, item, number, self.views, language)
                for number, item in enumerate(items)
            ]
        return wishes

    def example(self, wish: Wish) -> UInt8[np.ndarray, "views side side 3"]:
        """The views of the item that was asked for."""
        return self.world.make(wish.brief, (self.side, self.side, wish.arguments["views"]))

    def judge(self, wish: Wish, medium: UInt8[np.ndarray, "views side side 3"]) -> ItemVerdict:
        """Kind, color, outlines and agreement of the views that were made."""
        given = int(wish.section == KNOWN)
        return _showroom(len(medium), given).judge(wish.brief, medium[given:])

    def measure(self, outcomes: Sequence[Outcome]) -> list[Line]:
        """Shares of views and means over items, section by section."""
        lines = []
        for section in dict.fromkeys(outcome.wish.section for outcome in outcomes):
            same = [outcome for outcome in outcomes if outcome.wish.section == section]
            lines += _measure(section, [outcome.verdict for outcome in same])
            if section == SPOKEN:
                lines += by_language(same, _is_right, "kind and color")
        return lines

    def describe(self, outcome: Outcome) -> dict[str, Any]:
        """The item that was asked for, and what was seen."""
        verdict = outcome.verdict
        return {
            "asked": asdict(outcome.wish.brief),
            "right": _is_right(outcome),
            "kinds": verdict.kinds,
            "colors": verdict.colors,
            "overlap": round(verdict.overlap, 3),
            "agreement": round(verdict.agreement, 3),
        }

    def _wish(
        self, section: str, item: Item, number: int, views: int, language: str = "en"
    ) -> Wish:
        arguments: dict[str, Any] = {"width": self.side, "height": self.side, "views": views}
        if section == KNOWN:
            first = self.world.make(item, (self.side, self.side, views))[0]
            arguments["image"] = Image.fromarray(first)
        return Wish(section, write_item(item, language), item, number, arguments, language)


EXAM = ViewsExam


@functools.cache
def _showroom(views: int, given: int) -> Showroom:
    """Known items in all views but the first ones."""
    return Showroom(azimuths_around(views)[given:])


def _draw_items(purpose: str, count: int) -> list[Item]:
    """Items that are the same each time, and others for each purpose."""
    rng = np.random.default_rng([SEED, *purpose.encode()])
    return [draw_item(rng, is_held_out=purpose == HELD_OUT) for _ in range(count)]


def _measure(section: str, verdicts: Sequence[ItemVerdict]) -> list[Line]:
    return [
        mean(section, "kind, by view", [one.kind_share for one in verdicts], unit="share"),
        mean(section, "color, by view", [one.color_share for one in verdicts], unit="share"),
        mean(section, "overlap of outlines", [one.overlap for one in verdicts]),
        mean(section, "agreement of outlines", [one.agreement for one in verdicts]),
        share(section, "one color in all views", [one.is_of_one_color for one in verdicts]),
    ]


def _is_right(outcome: Outcome) -> bool:
    """Whether most of the views show the kind, and most the color."""
    return outcome.verdict.kind_share > 0.5 and outcome.verdict.color_share > 0.5
