"""Text to image as the original release samples it, with Next-DiT and with the older Flag-DiT."""

import copy
import inspect
from pathlib import Path
from typing import Any

from diffusers import AutoencoderKL
from diffusers.schedulers import SchedulerMixin
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lumina.backbones.flag_dit import FlagDiT
from lumina.backbones.next_dit import NextDiT
from lumina.checkpoints.folder import OPENED_BY_US
from lumina.encoders.text import FEATURE_LAYER, PLACE
from lumina.flow.scheduler import FlowSolverScheduler
from lumina.pipelines.text_to_image import LuminaPipeline

SHIFT = 4.0

_HUB = {"cache_dir", "force_download", "local_files_only", "proxies", "revision", "token"}


def make_scheduler() -> FlowSolverScheduler:
    """Midpoint steps on shifted times, the default of the original demos."""
    return FlowSolverScheduler(solver="midpoint", shift=SHIFT)


class OriginalLuminaPipeline(LuminaPipeline):
    """Make pictures from text as the original release does with a Next-DiT.

    Texts are padded on the right and not cleaned; positions are scaled above the trained size
    alone, linearly until the time 0.3 and by NTK from there. It takes midpoint steps on times
    shifted by 4, unless another scheduler is passed in. The arguments are those of
    `LuminaPipeline`.

    Source:
        `lumina_next_t2i/demo.py` and `sample.py` of the original code, whose `num_sampling_steps`
        count both ends: one more than the steps here.
    """

    _makes_scheduler = True

    def __init__(
        self,
        transformer: NextDiT | FlagDiT | None,
        scheduler: SchedulerMixin | None,
        vae: AutoencoderKL | None,
        text_encoder: PreTrainedModel | None,
        tokenizer: PreTrainedTokenizerBase | None,
        text_layer: int = FEATURE_LAYER,
        prompt_template: str = PLACE,
        preset: str | None = "original",
    ):
        if tokenizer is not None and tokenizer.padding_side != "right":
            tokenizer = copy.copy(tokenizer)  # another pipeline may have it too
            tokenizer.padding_side = "right"
        super().__init__(
            transformer,
            scheduler or make_scheduler(),
            vae,
            text_encoder,
            tokenizer,
            text_layer,
            prompt_template,
            preset,
        )

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **kwargs: Any) -> Any:
        """Load as every pipeline of diffusers loads.

        The scheduler of a folder that was saved by another pipeline is not used, unless it is
        passed in.
        """
        from lumina.pipelines.shared_parts import locate  # which needs pipelines itself

        source = locate(pretrained_model_name_or_path)
        names = inspect.signature(cls.load_config).parameters.keys() | _HUB
        options = {name: value for name, value in kwargs.items() if name in names}
        index: Any = cls.load_config(source, **options)
        saved_by = index["_class_name"].removesuffix(OPENED_BY_US)
        if saved_by not in (OriginalLuminaPipeline.__name__, LuminaFlagPipeline.__name__):
            kwargs.setdefault("scheduler", make_scheduler())
        return super().from_pretrained(source, **kwargs)


class LuminaFlagPipeline(OriginalLuminaPipeline):
    """Make pictures from text with a Flag-DiT, such as the model of 5 billion weights.

    The arguments are those of `LuminaPipeline`. By default the last hidden states of the text
    encoder (LLaMA 2) are read. Positions are scaled by NTK with the ratio of the areas, at all
    times, and above the trained size alone; `scaling_watershed` has no effect.

    Source:
        `lumina_t2i/demo.py` of the original code.
    """

    _network = FlagDiT

    def __init__(
        self,
        transformer: FlagDiT | None,
        scheduler: SchedulerMixin | None,
        vae: AutoencoderKL | None,
        text_encoder: PreTrainedModel | None,
        tokenizer: PreTrainedTokenizerBase | None,
        text_layer: int = -1,
        prompt_template: str = PLACE,
        preset: str | None = "original-flag",
    ):
        super().__init__(
            transformer,
            scheduler,
            vae,
            text_encoder,
            tokenizer,
            text_layer,
            prompt_template,
            preset,
        )
