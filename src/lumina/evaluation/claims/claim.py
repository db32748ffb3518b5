"""What a claim is: a statement, how it is measured, and what it has to reach, before any run."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

Tell = Callable[[str], None]
"""Takes a line of progress."""

Train = Callable[[str, list[str]], object]
"""Runs a recipe of the library by its name, with changes such as "out=folder".

It goes on where it was stopped.
"""


@dataclass(frozen=True)
class Threshold:
    """A number that decides a claim, and the bound it is held to.

    Args:
        value: Name of the number among the findings.
        text: What the number is.
        least: It has to be this or more.
        most: It has to be this or less.
        is_aim: Wished for, beyond what the claim needs.
    """

    value: str
    text: str
    least: float | None = None
    most: float | None = None
    is_aim: bool = False

    @property
    def bound(self) -> str:
        """The bound in words."""
        parts = [f"at least {self.least:g}"] if self.least is not None else []
        parts += [f"at most {self.most:g}"] if self.most is not None else []
        return " and ".join(parts)

    def is_reached(self, values: dict[str, float]) -> bool:
        """Whether the findings reach it."""
        value = values[self.value]
        return (self.least is None or value >= self.least) and (
            self.most is None or value <= self.most
        )


@dataclass(frozen=True)
class Table:
    """Numbers in rows, under a title."""

    title: str
    header: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class Picture:
    """A picture of the page, by the name of its file."""

    file: str
    caption: str


@dataclass
class Findings:
    """What a run found: what JSON can hold.

    Args:
        values: Numbers by name, those of the thresholds among them.
        words: The verdict, in sentences that follow from the numbers.
        tables: Numbers for the page.
        pictures: Plots and samples for the page.
        settings: Seeds, sizes and whatever else is needed to do it again.
        seconds: What the run took, pieces of interrupted runs included.
    """

    values: dict[str, float]
    words: list[str]
    tables: list[Table] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Findings":
        """Findings that were stored."""
        tables = [Table(**table) for table in values["tables"]]
        pictures = [Picture(**picture) for picture in values["pictures"]]
        return cls(**values | {"tables": tables, "pictures": pictures})

    def to_json(self) -> dict[str, Any]:
        """Findings as they are stored."""
        return asdict(self)


@dataclass(frozen=True)
class Lab:
    """Where a claim is measured: what was measured before is taken from there.

    Args:
        folder: For pieces of the work, so that a run can go on where it was stopped.
        images: For the pictures of the page.
        name: Of the claim, with which the names of its pictures begin.
        tell: Takes lines of progress.
        train: Trains networks, for claims that need one of their own. None: nobody does.
    """

    folder: Path
    images: Path
    name: str
    tell: Tell
    train: Train | None = None

    def piece(self, key: str, compute: Callable[[], Any]) -> Any:
        """Result of a part of the work, which JSON can hold, computed once."""
        path = self.folder / f"{key}.json"
        if path.exists():
            return json.loads(path.read_text(encoding="utf-8"))
        self.tell(key)
        result = compute()
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(result), encoding="utf-8")
        partial.replace(path)
        return result

    def picture(self, name: str, image: Image.Image, caption: str) -> Picture:
        """Write a picture for the page."""
        file = f"{self.name}-{name}.png"
        self.images.mkdir(parents=True, exist_ok=True)
        # Samples in all their colors would take a megabyte and more.
        image.quantize(COLORS, dither=Image.Dither.NONE).save(self.images / file, optimize=True)
        return Picture(file, caption)


COLORS = 128
"""Of pictures on the page."""


@dataclass(frozen=True)
class Claim:
    """Something the papers say, and how a small machine can tell whether it is so.

    Args:
        name: For the command.
        title: For the page.
        statement: What is claimed.
        source: Where.
        metric: What is measured here, and how.
        thresholds: What decides.
        run: Measures it.
        minutes: What that takes on two cores, about.
        changes: What was changed once something had been measured, if anything was.
        model: What it measures of those that ship, if it does.
    """

    name: str
    title: str
    statement: str
    source: str
    metric: str
    thresholds: tuple[Threshold, ...]
    run: Callable[[Lab], Findings]
    minutes: float
    changes: str = ""
    model: str = ""

    def verdict(self, values: dict[str, float]) -> str:
        """What the thresholds say."""
        floors = [t.is_reached(values) for t in self.thresholds if not t.is_aim]
        aims = [t.is_reached(values) for t in self.thresholds if t.is_aim]
        if not all(floors):
            return "partly holds" if any(floors) else "does not hold"
        if aims and all(aims):
            return "holds, and reaches what was aimed for"
        return "holds"
