"""What a model that was trained on generated data knows by name."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from lumina.catalog import find
from lumina.checkpoints.folder import read_index, worlds_of
from lumina.errors import LuminaError
from lumina.worlds import find_world, words_in
from lumina.worlds.music_keys import spell_keys
from lumina.worlds.references import VOCABULARY, load_references
from lumina.worlds.vocabulary import names, shipped_names

_ARTICLES = (
    "a an the ein eine der die das un une le la les el los las uno una il lo bir um uma o os as"
    " یک 一 个 只 辆 张"
)
ARTICLES = frozenset(words_in(_ARTICLES))
"""Words that say nothing of what is shown."""


def known_names(model: str | Path) -> Mapping[str, Sequence[str]]:
    """Lists of names, by what they are called together.

    Args:
        model: A name from `lumina models`, or a folder.

    Raises:
        UnknownNameError: If there is no such model.
        LuminaError: If nothing is known of what it was trained on.
    """
    checkpoint = find(model)
    if checkpoint.is_recognizer:
        labels = read_index(checkpoint.folder).get("id2label") or {}
        return {"labels": [labels[number] for number in sorted(labels, key=int)]}
    if (checkpoint.folder / VOCABULARY).is_file():
        things, _ = load_references(checkpoint.folder)
        known = shipped_names("en")
        if not known.keys() >= set(things):
            known = names("en")
        return {"things": [known[one] for one in things]}
    found: dict[str, Sequence[str]] = {}
    for world in worlds_of(checkpoint.folder):
        found |= find_world(world).names()
    if not found:
        raise LuminaError(
            f"nothing is known of what {model} was trained on",
            hint="models of generated data have such lists: lumina-mini, lumina-mini-sound ...",
        )
    return found


def unknown_words(model: str | Path, prompt: str) -> list[str]:
    """Words of a prompt that no caption has which the model was trained on.

    None are found where that is not known. A prompt of marks alone is returned as it is.

    Raises:
        LuminaError: If a world is not known, or what its captions are made with not installed.
    """
    worlds = worlds_of(find(model).folder)
    if not worlds:
        return []
    if "music" in worlds:
        prompt = spell_keys(prompt)
    captions = ARTICLES.union(*(find_world(world).words() for world in worlds))
    known = {_PARTICLE.sub("", word) for word in captions}
    words = list(dict.fromkeys(words_in(prompt))) or [prompt]
    return [word for word in words if _PARTICLE.sub("", word) not in known]


# Korean and Japanese put them behind a word, without a space.
_PARTICLE = re.compile(
    "(?<=.)(?:에서|으로|[은는이가을를의에로와과도]|(?<=[ぁ-ゖ])[がはをにへでとのも])$"
)
