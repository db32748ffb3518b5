"""Panoramas and seamless tiles: one flow over a canvas, seen through overlapping windows."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from diffusers import ImagePipelineOutput
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad

from lumina.errors import LuminaError, UnknownNameError
from lumina.pipelines import checks
from lumina.pipelines.pictures import in_float32, refuse_step_cache
from lumina.pipelines.text import TextPipeline
from lumina.requests import SIZE_MULTIPLE
from lumina.types import Size, Velocity, VelocityAt

WRAPS = ("none", "x", "both")
SEEN_BY_DECODER = 8
"""Latent pixels beyond an edge that the decoder gets to see where edges meet."""


class LuminaPanoramaPipeline(TextPipeline):
    """Make wide pictures, and pictures whose edges meet. Its parts are those of `TextPipeline`."""

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str],
        *,
        width: int,
        height: int,
        overlap: float = 0.5,
        wraps: str = "none",
        window: tuple[int, int] | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: Tensor | None = None,
        output_type: str | None = "pil",
        return_dict: bool = True,
        **sampling: Any,
    ) -> ImagePipelineOutput | tuple:
        """Make panoramas or tiles.

        Args:
            prompt: What every window of the canvas shows: a text, or a list of texts.
            width: Pixels, a multiple of 16.
            height: Pixels, a multiple of 16.
            overlap: From 0 to below 1, the share of a window that the next one sees too, at least.
            wraps: "none"; "x", where left and right meet, for a view all around; or "both", for a
                tile that repeats without a seam.
            window: Width and height in pixels. None: the size that the model was trained at, or
                the canvas where that is smaller.
            generator: The source of noise, or a list with one for each picture.
            latents: Noise to start from instead.
            output_type: As in `LuminaPipeline`.
            return_dict: As in `LuminaPipeline`.
            sampling: Fields of `Sampling`.

        Raises:
            UnknownNameError: If `wraps` is none of these.
            LuminaError: If the overlap is out of range, the window is empty or larger than the
                canvas, or a step cache is enabled.
            ValueError: If a size does not fit the model.
        """
        canvas, side = Size(width, height), self.default_image_size
        checks.size(width, height)
        seen = Size(min(width, side), min(height, side)) if window is None else Size(*window)
        _check(canvas, seen, overlap=overlap, wraps=wraps)
        refuse_step_cache(self.transformer, "a panorama")
        settings = self._settings(sampling)
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        velocity = self._encode_for(prompts, seen, settings)
        device = self._execution_device
        timesteps = self._begin(settings.num_inference_steps, *seen, device, settings.sigmas)
        x = self.prepare_latents(
            len(prompts),
            self.transformer.config["in_channels"],
            height,
            width,
            torch.float32,
            device,
            generator,
            latents,
        )
        windows = list_windows(
            _latent_size(canvas, self.vae_scale_factor),
            _latent_size(seen, self.vae_scale_factor),
            overlap=overlap,
            wraps=wraps,
        )
        blended = blend_windows(in_float32(velocity.at, self.transformer.dtype), windows)
        x = self._follow(x, timesteps, blended, generator, self._after_step(velocity))
        if output_type == "latent" or wraps == "none":
            return self._finish(x, output_type=output_type, return_dict=return_dict)
        pixels = self._decode_wrapped(x, wraps)
        return self._finish_pixels(pixels, output_type=output_type, return_dict=return_dict)

    def _decode_wrapped(
        self, x: Float[Tensor, "b c rows cols"], wraps: str
    ) -> Float[Tensor, "b 3 height width"]:
        """Decode latents with their other side beyond each edge, so that the edges meet."""
        rows, cols = x.shape[2:]
        x_margin = min(SEEN_BY_DECODER, cols)
        y_margin = min(SEEN_BY_DECODER, rows) if wraps == "both" else 0
        padded = pad(x, (x_margin, x_margin, y_margin, y_margin), mode="circular")
        top, left = (self.vae_scale_factor * margin for margin in (y_margin, x_margin))
        bottom, right = top + self.vae_scale_factor * rows, left + self.vae_scale_factor * cols
        return self._decode(padded)[:, :, top:bottom, left:right]


class Window(NamedTuple):
    """Which rows and columns of a canvas a window sees, in latent pixels."""

    rows: Int[Tensor, " rows"]
    cols: Int[Tensor, " cols"]


def list_windows(
    canvas: tuple[int, int], window: tuple[int, int], *, overlap: float, wraps: str
) -> list[Window]:
    """Windows at even distances that cover a canvas.

    Args:
        canvas: Rows and columns, in latent pixels.
        window: Rows and columns of a window, no more than those of the canvas.
        overlap: The share of a window that the next one sees too, at least.
        wraps: As in `LuminaPanoramaPipeline`: windows go on at the other side.
    """
    rows, cols = (
        _stretches(length, seen, overlap=overlap, wraps=does_wrap)
        for length, seen, does_wrap in zip(
            canvas, window, (wraps == "both", wraps != "none"), strict=True
        )
    )
    return [Window(y, x) for y in rows for x in cols]


def blend_windows(velocity_at: VelocityAt, windows: Sequence[Window]) -> VelocityAt:
    """The mean of the velocities of all windows, each weighed by how far inside it a place is.

    Windows are computed one after the other, so that memory does not grow with the canvas.

    Args:
        velocity_at: The velocity of one window.
        windows: They have one size, and cover the canvas.

    Source:
        MultiDiffusion, arXiv:2302.08113, equation 5, for velocities.
    """

    def at(time: float) -> Velocity:
        inner = velocity_at(time)

        def velocity(
            x: Float[Tensor, "b c rows cols"], t: Float[Tensor, ""]
        ) -> Float[Tensor, "b c rows cols"]:
            total = torch.zeros_like(x)
            weights = torch.zeros_like(total[0, 0])
            for rows, cols in windows:
                place = (rows[:, None], cols)
                share = _insideness(len(rows))[:, None] * _insideness(len(cols))
                share = share.to(x.device)
                total[:, :, *place] += share * inner(x[:, :, *place], t)
                weights[place] += share
            return total / weights

        return velocity

    return at


def _stretches(length: int, seen: int, *, overlap: float, wraps: bool) -> list[Int[Tensor, " n"]]:
    """Places along one axis that windows of `seen` places see."""
    stride = seen * (1 - overlap)
    if wraps:
        count = math.ceil(length / stride)
        starts = [round(index * length / count) for index in range(count)]
    else:
        count = 1 + math.ceil((length - seen) / stride)
        starts = [round(index * (length - seen) / max(1, count - 1)) for index in range(count)]
    return [(start + torch.arange(seen)) % length for start in starts]


def _insideness(length: int) -> Float[Tensor, " length"]:
    """How far inside a stretch each place is, from above 0 at its ends to 1 in its middle."""
    places = torch.arange(length) + 0.5
    return torch.minimum(places, length - places) * 2 / length


def _latent_size(size: Size, scale: int) -> tuple[int, int]:
    return size.height // scale, size.width // scale


def _check(canvas: Size, window: Size, *, overlap: float, wraps: str) -> None:
    if wraps not in WRAPS:
        raise UnknownNameError.among(WRAPS, wraps, kind="way to wrap")
    if not 0 <= overlap < 1:
        raise LuminaError(
            f"windows overlap by {overlap}, which is out of range", hint="allowed: 0 to below 1"
        )
    if wraps != "none" and overlap == 0:
        raise LuminaError(
            "edges cannot meet where windows do not overlap", hint="use an overlap above 0"
        )
    if min(window) < SIZE_MULTIPLE:
        raise LuminaError(
            f"a window of {window.width}x{window.height} pixels shows nothing",
            hint=f"allowed: multiples of {SIZE_MULTIPLE}",
        )
    if window.width > canvas.width or window.height > canvas.height:
        raise LuminaError(
            f"a window of {window.width}x{window.height} pixels does not fit into"
            f" {canvas.width}x{canvas.height}",
            hint="leave `window` out, or ask for a larger picture",
        )
