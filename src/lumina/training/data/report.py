"""An account of the data: what was found, what is used, and what is not, with the reason."""

from dataclasses import dataclass, field, replace
from typing import NamedTuple

from lumina.errors import LuminaError

SHOWN = 5
"""How many names of a kind a message lists."""


class Broken(NamedTuple):
    """A picture that cannot be read, and why."""

    name: str
    reason: str


@dataclass
class Report:
    """What became of everything in a source.

    Args:
        source: What the source is called.
        found: How many pictures there are, of any state.
        broken: Those that cannot be read.
        too_small: Those that are left out since their crop is larger than they are.
        without_caption: Those of which nothing is said.
        upscaled: How many of the used ones are smaller than their crop.
    """

    source: str
    found: int = 0
    broken: list[Broken] = field(default_factory=list)
    too_small: list[str] = field(default_factory=list)
    without_caption: list[str] = field(default_factory=list)
    upscaled: int = 0

    @property
    def used(self) -> int:
        """How many pictures are trained on."""
        return self.found - len(self.broken) - len(self.too_small) - len(self.without_caption)

    def copy(self) -> "Report":
        """The same account, to be added to."""
        return replace(
            self,
            broken=[*self.broken],
            too_small=[*self.too_small],
            without_caption=[*self.without_caption],
        )

    def refuse_unusable(self, left: int | None = None) -> None:
        """Raise a `LuminaError` if no picture is left.

        Args:
            left: How many are, where some of those that are used only validate.
        """
        if self.used if left is None else left:
            return
        if not self.found:
            raise LuminaError(
                f"{self.source} has no examples", hint="check its path and the names of its files"
            )
        raise LuminaError(f"{self.source} has no example to train on", hint="; ".join(self.reasons))

    @property
    def reasons(self) -> list[str]:
        """Why pictures are left out, a line for each reason, with the first names."""
        broken = [f"{name} ({reason})" for name, reason in self.broken]
        lists = {
            "broken": broken,
            "smaller than their crop": self.too_small,
            "without a caption": self.without_caption,
        }
        return [f"{len(names)} {why}: {_shown(names)}" for why, names in lists.items() if names]

    def lines(self) -> list[str]:
        """The account as lines of text."""
        upscaled = f", {self.upscaled} of them upscaled" if self.upscaled else ""
        head = f"{self.source}: {self.found} found, {self.used} used{upscaled}"
        return [head, *(f"  {reason}" for reason in self.reasons)]


def _shown(names: list[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
