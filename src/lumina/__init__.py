"""Lumina-T2X and Lumina-Next: text to images and more."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lumina.backbones.flag_dit import FlagDiT
    from lumina.backbones.named import build_backbone
    from lumina.backbones.next_dit import NextDiT
    from lumina.catalog import load
    from lumina.checkpoints.backbone import load_backbone
    from lumina.errors import LuminaError
    from lumina.flow.scheduler import FlowSolverScheduler
    from lumina.pipelines.class_to_image import LuminaClassPipeline
    from lumina.pipelines.original import LuminaFlagPipeline, OriginalLuminaPipeline
    from lumina.pipelines.text_to_image import LuminaPipeline

__version__ = "0.1.0"

_HOMES = {
    "FlagDiT": "lumina.backbones.flag_dit",
    "FlowSolverScheduler": "lumina.flow.scheduler",
    "LuminaClassPipeline": "lumina.pipelines.class_to_image",
    "LuminaError": "lumina.errors",
    "LuminaFlagPipeline": "lumina.pipelines.original",
    "LuminaPipeline": "lumina.pipelines.text_to_image",
    "NextDiT": "lumina.backbones.next_dit",
    "OriginalLuminaPipeline": "lumina.pipelines.original",
    "build_backbone": "lumina.backbones.named",
    "load": "lumina.catalog",
    "load_backbone": "lumina.checkpoints.backbone",
}

__all__ = [
    "FlagDiT",
    "FlowSolverScheduler",
    "LuminaClassPipeline",
    "LuminaError",
    "LuminaFlagPipeline",
    "LuminaPipeline",
    "NextDiT",
    "OriginalLuminaPipeline",
    "__version__",
    "build_backbone",
    "load",
    "load_backbone",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module 'lumina' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
