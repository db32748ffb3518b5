"""Lumina-T2X and Lumina-Next: text to images and more."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lumina.backbones.flag_dit import FlagDiT
    from lumina.backbones.next_dit import NextDiT
    from lumina.catalog import load
    from lumina.checkpoints.backbone import load_backbone
    from lumina.errors import LuminaError
    from lumina.pipelines.text_to_image import LuminaPipeline

__version__ = "0.1.0"

__all__ = [
    "FlagDiT",
    "LuminaError",
    "LuminaPipeline",
    "NextDiT",
    "__version__",
    "load",
    "load_backbone",
]

_HOMES = {
    "FlagDiT": "lumina.backbones.flag_dit",
    "LuminaError": "lumina.errors",
    "LuminaPipeline": "lumina.pipelines.text_to_image",
    "NextDiT": "lumina.backbones.next_dit",
    "load": "lumina.catalog",
    "load_backbone": "lumina.checkpoints.backbone",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module 'lumina' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
