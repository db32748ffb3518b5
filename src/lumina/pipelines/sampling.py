"""How pictures are sampled: settings that all tasks share."""

import difflib
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback

from lumina.flow.guidance import Guidance
from lumina.pipelines import checks

GUIDED_CHANNELS = 3
"""The original sampler guides three of its four latent channels (`forward_with_cfg` in
lumina_next_t2i/models/model.py), so parity with its pictures needs this."""

USUAL: dict[str | None, dict[str, Any]] = {
    None: {},
    "original": {"clean_caption": False, "scaling_watershed": 0.3},
    # Prompts of as many tokens as LLaMA 2 takes: the release cut them in training alone.
    "original-flag": {"clean_caption": False, "max_sequence_length": 4096, "extrapolation": "ntk"},
}
"""Settings of each preset that are others than those below."""


def with_usual_settings(call: Callable[..., Any]) -> Callable[..., Any]:
    """Have a call take the usual settings of its pipeline's preset where it is given no others.

    Args:
        call: A method of a pipeline of text, with settings of sampling among its arguments.
    """
    signature = inspect.signature(call)

    @functools.wraps(call)
    def with_usual(self: Any, *args: Any, **kwargs: Any) -> Any:
        given = signature.bind_partial(self, *args, **kwargs).arguments
        usual = USUAL[self.config["preset"]]
        others = {name: value for name, value in usual.items() if name not in given}
        return call(self, *args, **kwargs, **others)

    return with_usual


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Settings of a sample.

    Args:
        num_inference_steps: Steps from noise to picture, 1 or more.
        guidance_scale: How closely to follow the prompt: one number, or one for each picture in a
            list, an array or a tensor. 1 or less does not guide, in half the time.
        negative_prompt: What to keep away from: one text for all prompts, or one for each.
        sigmas: Shares of noise to stop at, decreasing from 1, instead of a number of steps.
        clean_caption: Lower-case prompts and take out what web captions carry besides words.
        max_sequence_length: Where prompts are cut, in tokens, with a warning.
        guidance_interval: Times between which to guide, from noise at 0 to data at 1.
        guidance_rescale: From 0 to 1, how far to bring the spread of guided velocities back to
            that of those with the prompt alone, which keeps colors from burning out.
        guidance_normalization: Shorten guided velocities that are longer than those.
        guided_channels: How many of the leading latent channels are guided. None: all.
        extrapolation: How positions are read at other sizes than the trained one: a method of
            `lumina.nn.extrapolation`.
        scale_by: Whether other sizes are told by their "area", or by each "axis" alone.
        scaling_watershed: The time from which "watershed" changes from linear interpolation to
            NTK scaling. None never changes.
        proportional_attn: Scale attention with the number of tokens, which keeps it as sharp at
            other sizes as at the trained one.
        context_drop: "none", or in which blocks attention sees averages over 2 x 2 tokens: "all",
            or "time-aware", in fewer and fewer blocks. Faster for very large pictures.
        callback_on_step_end: As in `LuminaPipeline`.
        callback_on_step_end_tensor_inputs: As in `LuminaPipeline`.
    """

    num_inference_steps: int = 30
    guidance_scale: float | Sequence[float] = 4.0
    negative_prompt: str | list[str] | None = None
    sigmas: list[float] | None = None
    clean_caption: bool = True
    max_sequence_length: int = 256
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    guidance_rescale: float = 0.0
    guidance_normalization: bool = False
    guided_channels: int | None = GUIDED_CHANNELS
    extrapolation: str = "watershed"
    scale_by: str = "area"
    scaling_watershed: float | None = 1.0
    proportional_attn: bool = True
    context_drop: str = "none"
    callback_on_step_end: Callable | PipelineCallback | MultiPipelineCallbacks | None = None
    callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",)

    def __post_init__(self) -> None:
        """Refuse what could not be called after a step."""
        checks.callback(self.callback_on_step_end)

    @property
    def guidance(self) -> Guidance:
        """The guidance, but for its scale, which callbacks may change."""
        return Guidance(
            channels=self.guided_channels,
            interval=self.guidance_interval,
            rescale=self.guidance_rescale,
            normalize=self.guidance_normalization,
        )

    @property
    def callback_tensors(self) -> list[str]:
        """Names of the tensors that the callback gets."""
        callback = self.callback_on_step_end
        if isinstance(callback, PipelineCallback | MultiPipelineCallbacks):
            return list(callback.tensor_inputs)
        return list(self.callback_on_step_end_tensor_inputs)


def sampling_of(pipeline: object, given: Mapping[str, Any]) -> Sampling:
    """All settings of a call, of which a pipeline was given some besides its own arguments.

    Raises:
        TypeError: If there is no such argument.
    """
    known = [field.name for field in fields(Sampling)]
    for name in given:
        if name not in known:
            own = inspect.signature(type(pipeline).__call__).parameters
            close = difflib.get_close_matches(name, [*own, *known], 1)
            suggestion = f"; did you mean {close[0]!r}?" if close else ""
            raise TypeError(f"{type(pipeline).__name__} has no argument {name!r}{suggestion}")
    return Sampling(**given)
