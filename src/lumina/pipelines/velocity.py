"""The velocity toward pictures of prompts, at any time and at one size."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.distributed as dist
from diffusers.utils.torch_utils import is_compiled_module
from jaxtyping import Float, Shaped
from torch import Tensor

from lumina.backbones.blocks import Attends, StepCache
from lumina.backbones.flag_dit import FlagDiT
from lumina.errors import LuminaError
from lumina.flow.guidance import guide
from lumina.nn.context_drop import drop_in_blocks, pooled_attend
from lumina.nn.extrapolation import UNSCALED, PerAxis, RopeScaling, extrapolate
from lumina.pipelines.sampling import Sampling
from lumina.requests import SIZE_MULTIPLE
from lumina.types import Size, Velocity

if TYPE_CHECKING:
    from lumina.pipelines.text import TextPipeline


@dataclass
class Condition:
    """Features of the prompts, followed by those of the negative prompts if there is guidance."""

    features: Float[Tensor, "b m d"]
    mask: Shaped[Tensor, "b m"]
    cache: StepCache = field(default_factory=StepCache)
    halves: "dict[int, Condition]" = field(default_factory=dict)
    """Prompts and negative prompts alone, once a step has needed them."""

    def replace(self, features: Float[Tensor, "rows m d"]) -> "Condition":
        """The same mask with other features, of which nothing is cached yet."""
        return Condition(features, self.mask[: len(features)])

    def part(self, pictures: int, *, guided: bool) -> "Condition":
        """The rows that a step needs: all of them, or those of the prompts where none guide.

        Raises:
            ValueError: If there are no negative prompts, and they are needed.
        """
        if guided == (len(self.features) > pictures):
            return self
        if guided:
            raise ValueError(
                "Guidance was turned on after sampling began without it, when no negative prompt"
                " was encoded. Please start with `guidance_scale` above 1."
            )
        return self.half(0)

    def half(self, index: int) -> "Condition":
        """The rows of the prompts alone (0), or of the negative prompts (1)."""
        if index not in self.halves:
            features, mask = self.features.chunk(2)[index], self.mask.chunk(2)[index]
            self.halves[index] = Condition(features, mask)
        return self.halves[index]


def cache_for(pipeline: "TextPipeline", condition: Condition) -> StepCache | None:
    """What a network may keep from one step to the next.

    CUDA graphs, which `mode="max-autotune"` makes, write over what earlier calls returned: where
    there may be such graphs, nothing is kept.
    """
    has_graphs = is_compiled_module(pipeline.transformer) and pipeline.device.type == "cuda"
    return None if has_graphs else condition.cache


@dataclass
class TextVelocity:
    """What a sampler follows: at each time a velocity, guided where that is asked for.

    Args:
        pipeline: Has the network, and the scale of the guidance, which callbacks may change.
        condition: The prompts.
        pictures: How many there are.
        size: In pixels, which decides how positions are read.
        sampling: All other settings.
        attend: Attention to tokens. None: the kernel of the network.
        attend_text: Attention to the text.
        views: How many rows of a batch are of one picture.
    """

    pipeline: "TextPipeline"
    condition: Condition
    pictures: int
    size: Size
    sampling: Sampling
    attend: Attends = None
    attend_text: Attends = None
    views: int = 1

    def at(self, time: float) -> Velocity:
        """The velocity to follow at a time."""
        guidance = self.pipeline.guidance
        guided = guidance.is_on_at(time)
        part = self.condition.part(self.pictures, guided=guided)
        group = self.pipeline._guidance_group
        if guided and group is not None:
            part = part.half(dist.get_rank(group))
        plain = partial(self._compute, part, guided, self._rope(time), self._attends(time))
        return guide(plain, guidance, group=group) if guided else plain

    def _compute(
        self,
        condition: Condition,
        guided: bool,
        rope: RopeScaling,
        attend: Attends,
        x: Float[Tensor, "b c rows cols"],
        t: Float[Tensor, ""],
    ) -> Float[Tensor, "b c rows cols"]:
        base = self.pipeline.trained_tokens
        self.pipeline._count(guided=guided, times=self.views)
        output = self.pipeline.transformer(
            hidden_states=x,
            timestep=t.expand(len(x)),
            encoder_hidden_states=condition.features,
            encoder_mask=condition.mask,
            cross_attention_kwargs=(
                {"base_sequence_length": base} if self.sampling.proportional_attn else {}
            ),
            cache=cache_for(self.pipeline, condition),
            return_dict=False,
            rope=rope,
            attend=attend,
            attend_text=self.attend_text,
        )[0]
        # Channels past those of the data are a variance that the flow does not use.
        return output[:, : x.shape[1]]

    def _attends(self, time: float) -> Attends:
        mode = self.sampling.context_drop
        if mode == "none":
            return self.attend
        if self.attend is not None:
            raise LuminaError(
                "context drop and attention of its own cannot both decide what this task sees",
                hint='leave out context_drop, or set it to "none"',
            )
        if self._is_sequence:
            raise LuminaError(
                "context drop averages over a grid, and a Flag-DiT sees one sequence",
                hint="leave it out, or use a Next-DiT",
            )
        if getattr(self.pipeline.network, "_parallel_config", None) is not None:
            raise LuminaError(
                "context drop averages over all tokens, and processes share them",
                hint="leave out one of both",
            )
        grid = (self.size.height // SIZE_MULTIPLE, self.size.width // SIZE_MULTIPLE)
        kernels = [block.attn1.processor for block in self.pipeline.transformer.layers]
        attends = [pooled_attend(grid, attend=kernel) for kernel in kernels]
        return drop_in_blocks(mode, attends, time=time)

    @property
    def _is_sequence(self) -> bool:
        return isinstance(self.pipeline.network, FlagDiT)

    def _rope(self, time: float) -> RopeScaling:
        """How to read positions at a time, for a size other than the trained one."""
        method, watershed = self.sampling.extrapolation, self.sampling.scaling_watershed
        is_larger = math.prod(self.size) > self.pipeline.default_image_size**2
        if not is_larger and self.pipeline.config["preset"] is not None:
            return UNSCALED
        return extrapolate(
            method,
            scale=self._scale(),
            length=self._length(),
            head_width=self.pipeline.transformer.head_dim,
            theta=self.pipeline.transformer.config["rope_theta"],
            time=time,
            watershed=math.inf if watershed is None else watershed,
        )

    def _scale(self) -> PerAxis:
        side = self.pipeline.default_image_size
        by = self.sampling.scale_by
        if by not in ("area", "axis"):
            raise LuminaError(f"scale_by is {by!r}", hint="allowed: area, axis")
        area = math.prod(self.size) / side**2
        if by == "area":
            return area if self._is_sequence else math.sqrt(area)
        if self._is_sequence:
            raise LuminaError(
                "positions of a Flag-DiT have one axis, which cannot be scaled by each side",
                hint='use scale_by="area"',
            )
        return (1.0, self.size.height / side, self.size.width / side)

    def _length(self) -> float:
        side = self.pipeline.default_image_size // SIZE_MULTIPLE
        # Each row of a sequence has one token more, which ends it.
        return float(side * (side + 1) if self._is_sequence else side)


def repeat_rows(rows: Tensor, *, times: int, device: torch.device) -> Tensor:
    """Each row as many times as there are pictures of it."""
    return rows.to(device).repeat_interleave(times, dim=0)


def as_guidance_scale(scale: Any, pictures: int) -> float | Tensor:
    """One number, or a tensor with one for each picture. Arguments as of `read_guidance_scale`.

    Raises:
        LuminaError: As there.
    """
    found = read_guidance_scale(scale, pictures)
    return torch.tensor(found) if isinstance(found, list) else found


def read_guidance_scale(scale: Any, pictures: int) -> float | list[float]:
    """One number, or a list with one for each picture.

    Args:
        scale: Any real number, or several of them in a sequence, an array or a tensor.
        pictures: How many there are.

    Raises:
        LuminaError: If there are not as many numbers as pictures, or one is none, or not finite.
    """
    values = scale.tolist() if isinstance(scale, _ARRAYS) else scale
    if isinstance(values, str) or not isinstance(values, Sequence):
        return _as_number(values)
    if len(values) != pictures:
        raise LuminaError(
            f"there are {len(values)} guidance scales for {pictures} pictures",
            hint="give one number, or one for each picture",
        )
    return [_as_number(one.tolist() if isinstance(one, _ARRAYS) else one) for one in values]


_ARRAYS = np.ndarray | np.generic | Tensor


def _as_number(scale: Any) -> float:
    is_number = isinstance(scale, Real) and not isinstance(scale, bool)
    if is_number and -math.inf < float(scale) < math.inf:
        return scale if isinstance(scale, int) else float(scale)
    raise LuminaError(
        f"guidance_scale is {scale!r}, which is {'not finite' if is_number else 'no number'}",
        hint="give a number, such as 4.0, or one for each picture; 1 does not guide",
    )
