"""Adapters that a request names, each with its strength."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from lumina.errors import LuminaError

_SCALED = re.compile(r"(.*):([-+]?(?:\d+\.?\d*|\.\d+))")


class Adapter(NamedTuple):
    """A LoRA, and how much of it is used."""

    path: str
    """A file, or a folder that holds one."""
    scale: float = 1.0
    """1 is as it was trained, 0 is nothing of it, below 0 is its opposite."""


def read_adapter(text: str) -> Adapter:
    """The path and strength of a text such as `runs/lora/last:0.8`.

    Raises:
        LuminaError: If it names nothing.
    """
    match = _SCALED.fullmatch(text)
    path, scale = (match[1], float(match[2])) if match else (text, 1.0)
    if not path.strip():
        raise LuminaError(
            "an adapter has no name", hint="write --lora runs/lora/last, or runs/lora/last:0.8"
        )
    return Adapter(path, scale)


def check_adapters(texts: Sequence[str]) -> None:
    """Refuse a text that names no adapter.

    Raises:
        LuminaError: If there is one.
    """
    for text in texts:
        read_adapter(text)
