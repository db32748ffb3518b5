"""Composition: one picture of several regions, each with a prompt of its own."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from diffusers import ImagePipelineOutput
from jaxtyping import Float, Shaped
from PIL import Image, ImageColor
from torch import Tensor

from lumina.backbones.next_dit import NextDiT
from lumina.errors import LuminaError
from lumina.nn.regional import (
    UNNOTICED,
    attend_regions,
    coarsen,
    keep_outside,
    part_picture,
)
from lumina.pipelines import checks
from lumina.pipelines.pictures import (
    Picture,
    as_pixels,
    encode_pixels,
    in_float32,
    refuse_noise,
    refuse_step_cache,
    size_of,
)
from lumina.pipelines.regions import Region, cover_all
from lumina.pipelines.sampling import Sampling
from lumina.pipelines.text import TextPipeline
from lumina.pipelines.velocity import Condition, TextVelocity
from lumina.requests import SIZE_MULTIPLE
from lumina.types import Size, Velocity, VelocityAt

BLANK = "white"
"""What lies outside of all regions where nothing says what to draw there."""


_ALL = slice(None)


class Window(NamedTuple):
    """A part of the latents that is followed as a picture of its own."""

    rows: slice
    cols: slice
    share: Float[Tensor, "rows cols"]
    """How much of each latent follows it."""
    velocity_at: VelocityAt


class LuminaComposePipeline(TextPipeline):
    """Make pictures of regions. Its parts are those of `TextPipeline`."""

    _network = NextDiT

    @torch.no_grad()
    def __call__(
        self,
        regions: Sequence[Region],
        prompt: str = "",
        *,
        width: int | None = None,
        height: int | None = None,
        border: int = 16,
        windows_until: float = 1.0,
        background: str | Picture | None = None,
        num_images_per_prompt: int = 1,
        generator: torch.Generator | list[torch.Generator] | None = None,
        output_type: str | None = "pil",
        return_dict: bool = True,
        **sampling: Any,
    ) -> ImagePipelineOutput | tuple:
        """Make pictures.

        Args:
            regions: What to draw where. Where they overlap, the later lies over the earlier.
            prompt: What the whole shows. If empty, it is the prompts of all regions, and nothing
                is drawn outside of them.
            width: Pixels, a multiple of 16. None is the size that the model was trained at.
            height: Pixels, a multiple of 16. None is the size that the model was trained at.
            border: Pixels across which two regions turn into each other, 0 or more. Toward the
                background, windows fade within the inner half, so that it stays as it is.
            windows_until: The time until which the box of each region is followed as a picture of
                its own. From then on all is one picture, in which each region attends to its own
                prompt. At 1 there are windows alone, which models need that draw one thing in a
                picture of their size, as lumina-mini does. At 0 there are none, as in the
                original release: for models that know large scenes.
            background: A color, or a picture, to keep outside of all regions. None: what `prompt`
                draws, or white where there is no prompt.
            num_images_per_prompt: How many pictures to make.
            generator: The source of noise, or a list with one for each picture.
            output_type: As in `LuminaPipeline`.
            return_dict: As in `LuminaPipeline`.
            sampling: Fields of `Sampling`. There is one negative prompt for all regions.

        Raises:
            LuminaError: If there are no regions, one of them does not lie in the picture or is
                hidden by others, a setting is out of range, the solver adds noise, or a step
                cache is enabled.
            ValueError: If a size does not fit the model.

        Source:
            Attention to texts of regions: see `attend_regions`. Windows: as in MultiDiffusion,
            arXiv:2302.08113, but that each latent belongs to one.
        """
        size = Size(width or self.default_image_size, height or self.default_image_size)
        settings = self._settings(sampling)
        _check(settings, border=border, windows_until=windows_until)
        checks.size(*size)
        refuse_step_cache(self.transformer, "a composition")
        refuse_noise(self.scheduler, "a composition")
        covered = cover_all(regions, size)
        parts = part_picture(covered, border=border)
        if not prompt and background is None:
            background = BLANK
        known = None if background is None else _paint(background, size)
        pictures = num_images_per_prompt
        texts = [region.prompt for region in regions]
        canvas = self._read_regions([prompt or ", ".join(texts), *texts], parts, settings, pictures)
        # Windows have hard edges: what is blended on the way is drawn well by no window.
        hard = part_picture(covered, border=0)
        shares = coarsen(hard, self.vae_scale_factor).to(self._execution_device)
        windows = [
            self._open_window([text] * pictures, share, settings)
            for text, share in zip(texts, shares[1:], strict=True)
        ]
        outside, is_apart = shares[0], windows_until == 1
        if is_apart and known is not None:
            windows, outside = fill_windows(windows, outside)
        timesteps = self._begin(
            settings.num_inference_steps, *size, self._execution_device, settings.sigmas
        )
        x = self.prepare_latents(
            pictures,
            self.transformer.config["in_channels"],
            size.height,
            size.width,
            self.transformer.dtype,
            self._execution_device,
            generator,
        ).float()
        whole = in_float32(canvas.at, self.transformer.dtype)
        kept = None if known is None else _go_straight(encode_pixels(self.vae, known).to(x) - x)
        velocity_at = compose(whole, windows, kept, outside=outside, windows_until=windows_until)
        x = self._follow(x, timesteps, velocity_at, generator, self._after_step(canvas))
        if output_type == "latent" or not is_apart:
            return self._finish(x, output_type=output_type, return_dict=return_dict)
        pixels = self._decode_apart(x, windows, parts.to(x), None if known is None else known.to(x))
        return self._finish_pixels(pixels, output_type=output_type, return_dict=return_dict)

    def _decode_apart(
        self,
        x: Float[Tensor, "b c rows cols"],
        windows: Sequence[Window],
        parts: Float[Tensor, "parts height width"],
        known: Float[Tensor, "1 3 height width"] | None,
    ) -> Float[Tensor, "b 3 height width"]:
        """Decode windows one by one, since decoders draw rings around edges between them.

        Args:
            x: Latents of all.
            windows: Where each region was followed.
            parts: How much of each pixel belongs to what is outside of regions, and to each.
            known: What is kept outside. None: what all latents together decode to.
        """
        shares = keep_outside(parts)
        total = shares[0] * (self._decode(x).float() if known is None else known)
        scale = self.vae_scale_factor
        for window, share in zip(windows, shares[1:], strict=True):
            own = self._decode(x[..., window.rows, window.cols]).float()
            # Beyond its edges a window goes on as at its edges, to blend into its neighbors.
            rows, cols = (
                (torch.arange(length, device=x.device) - scale * span.start).clamp(0, most - 1)
                for length, span, most in zip(
                    share.shape, (window.rows, window.cols), own.shape[2:], strict=True
                )
            )
            total = total + share * own[..., rows[:, None], cols]
        return total

    def _read_regions(
        self,
        texts: list[str],
        parts: Float[Tensor, "parts height width"],
        sampling: Sampling,
        pictures: int,
    ) -> TextVelocity:
        """The velocity of all as one picture, each part of which attends to its own text."""
        size = Size(width=parts.shape[2], height=parts.shape[1])
        read = self._encode_for(texts, size, sampling, pictures=pictures).condition
        halves = 1 + self.do_classifier_free_guidance
        joined = map(join_texts, read.features.chunk(halves), read.mask.chunk(halves))
        features, weights = (
            torch.cat(rows).repeat_interleave(pictures, dim=0) for rows in zip(*joined, strict=True)
        )
        tokens = coarsen(parts, SIZE_MULTIPLE).flatten(1).to(features.device)
        return TextVelocity(
            self,
            Condition(features, weights),
            pictures,
            size,
            sampling,
            attend_text=attend_regions(tokens),
        )

    def _open_window(
        self, texts: list[str], share: Float[Tensor, "rows cols"], sampling: Sampling
    ) -> Window:
        """The velocity of the smallest picture that holds a region."""
        scale = self.vae_scale_factor
        rows, cols = (_span(share.amax(axis), SIZE_MULTIPLE // scale) for axis in (1, 0))
        size = Size(scale * (cols.stop - cols.start), scale * (rows.stop - rows.start))
        velocity = self._encode_for(texts, size, sampling)
        velocity_at = in_float32(velocity.at, self.transformer.dtype)
        return Window(rows, cols, share[rows, cols], velocity_at)


def join_texts(
    features: Float[Tensor, "texts m d"], mask: Shaped[Tensor, "texts m"]
) -> tuple[Float[Tensor, "1 all d"], Float[Tensor, "1 all"]]:
    """Put texts one after another, for `attend_regions`.

    Returns:
        Features, and weights of which those of the first text alone count in the mean.
    """
    weights = mask.float() * UNNOTICED
    weights[0] = mask[0]
    return features.flatten(0, 1)[None], weights.flatten()[None]


def fill_windows(
    windows: Sequence[Window], outside: Float[Tensor, "rows cols"]
) -> tuple[list[Window], Float[Tensor, "rows cols"]]:
    """Let windows follow all that they see and no other region needs, as whole pictures.

    Args:
        windows: All of them.
        outside: How much of each latent belongs to no region.

    Returns:
        The windows, and what is left outside.
    """
    outside, filled = outside.clone(), []
    for window in windows:
        free = outside[window.rows, window.cols].clone()
        filled.append(window._replace(share=window.share + free))
        outside[window.rows, window.cols] = 0
    return filled, outside


def compose(
    whole: VelocityAt,
    windows: Sequence[Window],
    kept: VelocityAt | None,
    *,
    outside: Float[Tensor, "rows cols"],
    windows_until: float,
) -> VelocityAt:
    """The velocity of a picture of regions.

    Args:
        whole: The velocity of all as one picture.
        windows: The regions, as pictures of their own.
        kept: The velocity outside of all regions. None: that of the whole.
        outside: How much of each latent belongs to no region.
        windows_until: The time from which regions are followed as parts of the whole.
    """
    around = Window(_ALL, _ALL, outside, kept or whole)
    apart = blend_windows([around, *windows])
    together = whole
    if kept is not None:
        together = blend_windows([around, Window(_ALL, _ALL, 1 - outside, whole)])
    # Some solvers take their last velocity at the very end.
    return lambda time: (
        apart(time) if time < windows_until or windows_until == 1 else together(time)
    )


def blend_windows(windows: Sequence[Window]) -> VelocityAt:
    """The sum of the velocities of all windows, each as far as it has a share.

    Windows are computed one after the other, so that memory does not grow with their number.
    """
    visible = [window for window in windows if window.share.any()]

    def at(time: float) -> Velocity:
        velocities = [window.velocity_at(time) for window in visible]

        def blended(
            x: Float[Tensor, "b c rows cols"], t: Float[Tensor, ""]
        ) -> Float[Tensor, "b c rows cols"]:
            total = torch.zeros_like(x)
            for window, velocity in zip(visible, velocities, strict=True):
                place = (..., window.rows, window.cols)
                total[place] += window.share * velocity(x[place], t)
            return total

        return blended

    return at


def _go_straight(way: Float[Tensor, "b c rows cols"]) -> VelocityAt:
    """The same velocity at all times, which every solver follows exactly."""
    return lambda time: lambda x, t: way


def _paint(background: str | Picture, size: Size) -> Float[Tensor, "1 3 height width"]:
    """A color, or a picture, as pixels of a picture of this size.

    Raises:
        LuminaError: If there is no such color, or the picture has another size.
    """
    if isinstance(background, str):
        return as_pixels([Image.new("RGB", size, _read_color(background))], size)
    if size_of(background) != size:
        raise LuminaError(
            f"the background has {'x'.join(map(str, size_of(background)))} pixels, and the picture"
            f" {size.width}x{size.height}",
            hint="give a background of the size of the picture",
        )
    return as_pixels([background], size)


def _read_color(name: str) -> tuple[int, ...]:
    try:
        return ImageColor.getrgb(name)[:3]
    except ValueError:
        raise LuminaError(
            f"unknown color {name!r}", hint='give a name such as "white", or "#ffcc00"'
        ) from None


def _check(sampling: Sampling, *, border: int, windows_until: float) -> None:
    if border < 0:
        raise LuminaError(f"the border is {border} pixels", hint="allowed: 0 and above")
    if not 0 <= windows_until <= 1:
        raise LuminaError(
            f"windows are followed until {windows_until}, which is out of range",
            hint="allowed: times from 0 to 1",
        )
    if isinstance(sampling.negative_prompt, list):
        raise LuminaError(
            "several negative prompts are given for one picture", hint="give one text"
        )


def _span(share: Float[Tensor, " length"], multiple: int) -> slice:
    """From the first to the last latent with a share, lengthened to whole tokens."""
    seen = share.nonzero()
    start, stop = int(seen[0]), int(seen[-1]) + 1
    length = -(-(stop - start) // multiple) * multiple
    start = min(start, len(share) - length)
    return slice(start, start + length)
