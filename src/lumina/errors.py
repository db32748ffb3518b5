"""Errors that a user can act on: what went wrong, and what to do next."""

import difflib
import importlib.util
from collections.abc import Iterable


class LuminaError(Exception):
    """A problem on the user's side, told in one line."""

    def __init__(self, message: str, hint: str | None = None):
        super().__init__(message)
        self.hint = hint

    def __str__(self) -> str:
        """The message, with the hint in a second line where there is one."""
        message = super().__str__()
        return message if self.hint is None else f"{message}\nhint: {self.hint}"


class UnknownNameError(LuminaError):
    """A name that is in no list of known names."""

    @classmethod
    def among(cls, known: Iterable[str], name: str, *, kind: str) -> "UnknownNameError":
        """An error that suggests the nearest known name and lists all of them.

        Args:
            known: All names that would have been right.
            name: What was given instead.
            kind: What is named, as one word or two ("model", "setting").
        """
        names = list(known)
        close = difflib.get_close_matches(str(name), names, 1)
        suggestion = f"did you mean {close[0]!r}? " if close else ""
        return cls(f"unknown {kind} {name!r}", hint=f"{suggestion}known: {', '.join(names)}")


def refuse_missing_library(name: str, *, extra: str) -> None:
    """Raise a `LuminaError` that names the extra of a library that is not installed."""
    if importlib.util.find_spec(name) is None:
        raise LuminaError(
            f"this needs the package {name!r}, which is not installed",
            hint=f"pip install 'lumina-t2x[{extra}]'",
        )
