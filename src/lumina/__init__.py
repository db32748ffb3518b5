"""Lumina-T2X and Lumina-Next: text to images and more."""

import gc
import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lumina.backbones.flag_dit import FlagDiT as FlagDiT
    from lumina.backbones.named import build_backbone as build_backbone
    from lumina.backbones.next_dit import NextDiT as NextDiT
    from lumina.backbones.recognizer import NextDiTClassifier as NextDiTClassifier
    from lumina.catalog import load as load
    from lumina.checkpoints.backbone import load_backbone as load_backbone
    from lumina.errors import LuminaError as LuminaError
    from lumina.flow.scheduler import FlowSolverScheduler as FlowSolverScheduler
    from lumina.pipelines.anagram import LuminaAnagramPipeline as LuminaAnagramPipeline
    from lumina.pipelines.audio import LuminaAudioPipeline as LuminaAudioPipeline
    from lumina.pipelines.class_to_image import LuminaClassPipeline as LuminaClassPipeline
    from lumina.pipelines.compose import LuminaComposePipeline as LuminaComposePipeline
    from lumina.pipelines.image_to_image import LuminaImg2ImgPipeline as LuminaImg2ImgPipeline
    from lumina.pipelines.inpaint import LuminaInpaintPipeline as LuminaInpaintPipeline
    from lumina.pipelines.inpaint import extend_canvas as extend_canvas
    from lumina.pipelines.interpolate import (
        LuminaInterpolationPipeline as LuminaInterpolationPipeline,
    )
    from lumina.pipelines.multi_view import LuminaMultiViewPipeline as LuminaMultiViewPipeline
    from lumina.pipelines.original import LuminaFlagPipeline as LuminaFlagPipeline
    from lumina.pipelines.original import OriginalLuminaPipeline as OriginalLuminaPipeline
    from lumina.pipelines.original_audio import OriginalAudioPipeline as OriginalAudioPipeline
    from lumina.pipelines.panorama import LuminaPanoramaPipeline as LuminaPanoramaPipeline
    from lumina.pipelines.point_cloud import LuminaPointCloudPipeline as LuminaPointCloudPipeline
    from lumina.pipelines.recognition import LuminaRecognitionPipeline as LuminaRecognitionPipeline
    from lumina.pipelines.regions import Region as Region
    from lumina.pipelines.regions import grid_regions as grid_regions
    from lumina.pipelines.rewrite import LuminaRewritePipeline as LuminaRewritePipeline
    from lumina.pipelines.speech import LuminaSpeechPipeline as LuminaSpeechPipeline
    from lumina.pipelines.style import LuminaStylePipeline as LuminaStylePipeline
    from lumina.pipelines.text_to_image import LuminaPipeline as LuminaPipeline
    from lumina.pipelines.upscale import LuminaUpscalePipeline as LuminaUpscalePipeline
    from lumina.pipelines.video import LuminaVideoPipeline as LuminaVideoPipeline

__version__ = "0.1.0"

_HOMES = {
    "FlagDiT": "lumina.backbones.flag_dit",
    "FlowSolverScheduler": "lumina.flow.scheduler",
    "LuminaAnagramPipeline": "lumina.pipelines.anagram",
    "LuminaAudioPipeline": "lumina.pipelines.audio",
    "LuminaClassPipeline": "lumina.pipelines.class_to_image",
    "LuminaComposePipeline": "lumina.pipelines.compose",
    "LuminaError": "lumina.errors",
    "LuminaFlagPipeline": "lumina.pipelines.original",
    "LuminaImg2ImgPipeline": "lumina.pipelines.image_to_image",
    "LuminaInpaintPipeline": "lumina.pipelines.inpaint",
    "LuminaInterpolationPipeline": "lumina.pipelines.interpolate",
    "LuminaMultiViewPipeline": "lumina.pipelines.multi_view",
    "LuminaPanoramaPipeline": "lumina.pipelines.panorama",
    "LuminaPipeline": "lumina.pipelines.text_to_image",
    "LuminaPointCloudPipeline": "lumina.pipelines.point_cloud",
    "LuminaRecognitionPipeline": "lumina.pipelines.recognition",
    "LuminaRewritePipeline": "lumina.pipelines.rewrite",
    "LuminaSpeechPipeline": "lumina.pipelines.speech",
    "LuminaStylePipeline": "lumina.pipelines.style",
    "LuminaUpscalePipeline": "lumina.pipelines.upscale",
    "LuminaVideoPipeline": "lumina.pipelines.video",
    "NextDiT": "lumina.backbones.next_dit",
    "NextDiTClassifier": "lumina.backbones.recognizer",
    "OriginalAudioPipeline": "lumina.pipelines.original_audio",
    "OriginalLuminaPipeline": "lumina.pipelines.original",
    "Region": "lumina.pipelines.regions",
    "build_backbone": "lumina.backbones.named",
    "extend_canvas": "lumina.pipelines.inpaint",
    "grid_regions": "lumina.pipelines.regions",
    "load": "lumina.catalog",
    "load_backbone": "lumina.checkpoints.backbone",
}

__all__ = [*_HOMES, "__version__"]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module 'lumina' has no attribute {name!r}")
    return getattr(_import(_HOMES[name]), name)


def _import(name: str) -> ModuleType:
    """Import a module, and look for no garbage meanwhile, since nearly all that is made stays."""
    collects = gc.isenabled()
    gc.disable()
    try:
        return importlib.import_module(name)
    finally:
        if collects:
            gc.enable()


def __dir__() -> list[str]:
    return sorted(__all__)
