"""How sources of stored pictures collect their examples and account for the others."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from lumina.encoders.cleaning import clean_caption
from lumina.training.data.decoding import BrokenPictureError, Place, StoredPicture
from lumina.training.data.examples import Example, Found, Medium, Written
from lumina.training.data.report import Broken, Report

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif")
"""Names of files that are taken for pictures, in lower case."""

CAPTION_NAMES = ("caption", "captions", "text", "prompt")
"""Fields of JSON that hold a caption or a list of them; the first that is there counts."""


class Notes(NamedTuple):
    """What stands beside a picture."""

    captions: tuple[str, ...] = ()
    label: int | None = None
    loss_weight: float = 1.0


class Gathering:
    """Examples of a source while they are being found.

    Args:
        source: What it is called.
        clean: Clean captions as pipelines clean prompts, so that one is read as the other.
    """

    def __init__(self, source: str, *, clean: bool = True):
        self._clean = clean
        self._report = Report(source)
        self._examples: list[Example] = []
        self._keys: Counter[str] = Counter()

    @contextmanager
    def finding(self, name: str) -> Iterator[None]:
        """Count a picture, and note that it is broken if what is done here finds it so."""
        self._report.found += 1
        try:
            yield
        except BrokenPictureError as error:
            self._report.broken.append(Broken(name, str(error)))

    def add(self, name: str, place: Place, notes: Notes) -> None:
        """Take a picture, if it has a caption or a class.

        Args:
            name: What it is called; one that occurs again gets a number.
            place: Where its bytes are.
            notes: What stands beside it.

        Raises:
            BrokenPictureError: If it is no picture.
        """
        self.add_medium(name, StoredPicture.at(place), notes)

    def add_medium(self, name: str, medium: Medium, notes: Notes, *, origin: str = "") -> None:
        """Take any medium, in the same way.

        Args:
            name: As in `add`.
            medium: What is trained on.
            notes: As in `add`.
            origin: As that of an `Example`.
        """
        self._keys[name] += 1
        key = name if self._keys[name] == 1 else f"{name}#{self._keys[name]}"
        captions = notes.captions
        if self._clean:
            captions = strip(tuple(map(clean_caption, captions)))
        if not captions and notes.label is None:
            self._report.without_caption.append(key)
            return
        written = Written(captions)
        self._examples.append(
            Example(key, medium, written, notes.label, notes.loss_weight, origin=origin)
        )

    def found(self) -> Found:
        """What there is."""
        return Found(self._examples, self._report)


def read_notes(record: Mapping[str, Any], caption: str = "", label: str = "label") -> Notes:
    """What a record of JSON says about a picture.

    Args:
        record: It may have a caption or captions, a label and a `loss_weight`.
        caption: Field of the captions. "" stands for the first of `CAPTION_NAMES`.
        label: Field of the label. "" reads none.

    Raises:
        BrokenPictureError: If a value is not of its type.
    """
    names = [caption] if caption else CAPTION_NAMES
    said = next((record[name] for name in names if record.get(name) is not None), ())
    texts = [said] if isinstance(said, str) else said
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        raise BrokenPictureError(f"its caption is {said!r}, not text or a list of texts")
    weight, number = record.get("loss_weight", 1.0), record.get(label) if label else None
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not weight >= 0:
        raise BrokenPictureError(f"its loss_weight is {weight!r}, not a number from 0")
    if number is not None and (isinstance(number, bool) or not isinstance(number, int)):
        raise BrokenPictureError(f"its {label} is {number!r}, not a whole number")
    return Notes(strip(texts), number, float(weight))


def split_lines(text: str) -> list[str]:
    r"""Lines of a text, which end with \n or \r\n.

    `str.splitlines` would also cut at U+2028, form feeds and others, which are parts of a line.
    """
    return [line.removesuffix("\r") for line in text.split("\n")]


def strip(texts: list[str] | tuple[str, ...]) -> tuple[str, ...]:
    """Texts without space around them, and without those that are nothing else."""
    return tuple(text.strip() for text in texts if text.strip())


def parse(text: str | bytes, what: str) -> dict[str, Any]:
    """An object of JSON.

    Args:
        text: The JSON.
        what: What it is called if it is none.

    Raises:
        BrokenPictureError: If it is none.
    """
    try:
        record = json.loads(text)
    except ValueError as error:
        raise BrokenPictureError(f"{what} is not JSON") from error
    if not isinstance(record, dict):
        raise BrokenPictureError(f"{what} is not an object of JSON")
    return record
