"""What a source of data is made of: examples, each a medium with what it is trained under."""

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from lumina.training.data.report import Report


@runtime_checkable
class Medium(Protocol):
    """A picture, a clip, a sound or another thing that is read or made when it is needed."""

    @property
    def size(self) -> tuple[int, ...]:
        """How large it is, known without decoding it; a picture's is its `Size`."""
        ...

    def open(self) -> Any:
        """What there is to see or to hear.

        Raises:
            BrokenPictureError: If it cannot be read.
        """
        ...

    def digest(self) -> str:
        """Hash of what it is made from: the bytes of a file, or a description.

        Raises:
            BrokenPictureError: If it cannot be read.
        """
        ...


@runtime_checkable
class Captions(Protocol):
    """What may be said of an example."""

    def every(self) -> tuple[str, ...]:
        """All captions that can be drawn, each once."""
        ...

    def draw(self, rng: np.random.Generator) -> str:
        """One of them."""
        ...


@dataclass(frozen=True)
class Written:
    """Captions that are each as likely as the others; there may be none, where there is a class."""

    texts: tuple[str, ...]

    def every(self) -> tuple[str, ...]:
        """All of them."""
        return tuple(dict.fromkeys(self.texts))

    def draw(self, rng: np.random.Generator) -> str:
        """Any one of them, or "" where there are none."""
        if not self.texts:
            return ""
        return self.texts[int(rng.integers(len(self.texts)))]


@dataclass(frozen=True)
class Example:
    """A medium and what it is trained under.

    Args:
        key: Name within its source, which stays the same from run to run.
        medium: The picture, clip, sound ...
        captions: What may be said of it.
        label: Number of its class, where it has one.
        loss_weight: How much its loss counts, relative to 1.
        origin: What it shares with examples that show the same at other sizes. "" is its key.
    """

    key: str
    medium: Medium
    captions: Captions
    label: int | None = None
    loss_weight: float = 1.0
    origin: str = ""


class Found(NamedTuple):
    """The examples of a source, in an order that stays the same, and an account of the others."""

    examples: list[Example]
    report: Report
