"""From picture to picture in even steps: between prompts, between seeds, and around a picture."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from diffusers import ImagePipelineOutput
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from lumina.errors import LuminaError
from lumina.pipelines.pictures import (
    Picture,
    as_pixels,
    encode_pixels,
    in_float32,
    refuse_noise,
)
from lumina.pipelines.rewrite import LuminaRewritePipeline
from lumina.pipelines.sampling import Sampling
from lumina.pipelines.text import TextPipeline
from lumina.pipelines.velocity import Condition, TextVelocity, as_guidance_scale
from lumina.types import Size

Source = torch.Generator | list[torch.Generator] | None


class Place(NamedTuple):
    """Where a frame is: after which stop, and how far along the way to the next, below 1."""

    stop: int
    along: float


class LuminaInterpolationPipeline(TextPipeline):
    """Make what is between pictures, or near one. Its parts are those of `TextPipeline`."""

    @torch.no_grad()
    def __call__(
        self,
        prompts: str | list[str],
        frames: int = 8,
        *,
        amount: float = 1.0,
        generators: Source = None,
        width: int | None = None,
        height: int | None = None,
        output_type: str | None = "pil",
        return_dict: bool = True,
        **sampling: Any,
    ) -> ImagePipelineOutput | tuple:
        """Go from prompt to prompt, from seed to seed, or both at once.

        There is a stop for each prompt, or for each generator, and frames at even distances on the
        way. The first frame is the picture of the first prompt and generator; the last frame is
        that of the last ones, if all of the way is gone.

        Args:
            prompts: One for all stops, or one for each.
            frames: How many pictures to make, both ends included.
            amount: Above 0 and up to 1, how much of the way is gone.
            generators: One source of noise for all stops, or a list with one for each.
            width: Pixels, a multiple of 16. None or 0 is the size that the model was trained at.
            height: The same.
            output_type: As in `LuminaPipeline`.
            return_dict: As in `LuminaPipeline`.
            sampling: Fields of `Sampling`. A list of negative prompts has one for each stop, a
                list of guidance scales one for each frame.

        Returns:
            The frames in order.

        Raises:
            LuminaError: If there are fewer than two frames or stops, prompts and generators differ
                in number, the amount is out of range, or the solver adds noise.
            ValueError: If the size does not fit the model.
        """
        refuse_noise(self.scheduler, "an interpolation")
        texts = [prompts] if isinstance(prompts, str) else list(prompts)
        sources = generators if isinstance(generators, list) else [generators]
        stops = _count_stops(len(texts), len(sources))
        places = spread_frames(stops, frames, amount=amount)
        size = self._size(width, height)
        texts = texts * (stops if len(texts) == 1 else 1)
        settings = self._settings(sampling)
        velocity = self._encode_for(texts, size, settings, pictures=frames)
        condition = blend_texts(velocity.condition, stops, places)
        velocity = replace(velocity, condition=condition, pictures=frames)
        ends = [self._draw_noise(1, size, source) for source in sources]
        ends = ends * (stops if len(ends) == 1 else 1)
        pairs = [(ends[place.stop], ends[min(place.stop + 1, stops - 1)]) for place in places]
        noise = [
            slerp(start, end, place.along)
            for (start, end), place in zip(pairs, places, strict=True)
        ]
        x = self._follow_noise(torch.cat(noise), size, velocity)
        return self._finish(x, output_type=output_type, return_dict=return_dict)

    @torch.no_grad()
    def vary(
        self,
        prompt: str,
        image: Picture | None = None,
        *,
        origin: torch.Generator | None = None,
        amount: float = 0.3,
        images: int = 4,
        generator: Source = None,
        width: int | None = None,
        height: int | None = None,
        output_type: str | None = "pil",
        return_dict: bool = True,
        **sampling: Any,
    ) -> ImagePipelineOutput | tuple:
        """Make pictures like one: from its noise, mixed with other noise.

        Args:
            prompt: What the picture shows, or something else.
            image: Any picture. Its noise is found by following the flow back.
            origin: The generator that made the picture, in its state from before, instead.
            amount: From 0, for the picture itself, to 1, for any picture of the prompt. At 0, of
                an `image` no guidance is allowed, since none is on the way to its noise.
            images: How many pictures to make.
            generator: The source of the other noise, or a list with one for each picture.
            width: Pixels, a multiple of 16. None or 0 is the size that the model was trained at.
                Noise of one size makes another picture in another.
            height: The same.
            output_type: As in `LuminaPipeline`.
            return_dict: As in `LuminaPipeline`.
            sampling: Fields of `Sampling`.

        Raises:
            LuminaError: If there is not one of `image` and `origin`, the amount is out of range,
                there are no pictures to make, or the solver adds noise.
            ValueError: If the size does not fit the model.
        """
        _check_variations(image, origin, amount=amount, images=images)
        refuse_noise(self.scheduler, "a variation")
        size = self._size(width, height)
        settings = self._settings(sampling)
        if image is not None and amount == 0:
            _refuse_guidance(settings, images)
        if image is None:
            start = self._draw_noise(1, size, origin)
        else:
            pixels = as_pixels([image], size)
            inverter = LuminaRewritePipeline.from_pipe(self)
            start = inverter.invert(encode_pixels(self.vae, pixels), prompt, **sampling)
            self._evaluations = inverter.evaluations
        fresh = self._draw_noise(images, size, generator)
        noise = slerp(start.expand_as(fresh), fresh, amount)
        velocity = self._encode_for([prompt] * images, size, settings)
        x = self._follow_noise(noise, size, velocity)
        return self._finish(x, output_type=output_type, return_dict=return_dict)

    def _size(self, width: int | None, height: int | None) -> Size:
        return Size(width or self.default_image_size, height or self.default_image_size)

    def _draw_noise(
        self, pictures: int, size: Size, source: Source
    ) -> Float[Tensor, "pictures c rows cols"]:
        return self.prepare_latents(
            pictures,
            self.transformer.config["in_channels"],
            size.height,
            size.width,
            torch.float32,
            self._execution_device,
            source,
        )

    def _follow_noise(
        self, noise: Float[Tensor, "b c rows cols"], size: Size, velocity: TextVelocity
    ) -> Float[Tensor, "b c rows cols"]:
        settings = velocity.sampling
        timesteps = self._begin(
            settings.num_inference_steps, *size, self._execution_device, settings.sigmas
        )
        velocity_at = in_float32(velocity.at, self.transformer.dtype)
        return self._follow(noise, timesteps, velocity_at, None, self._after_step(velocity))


def spread_frames(stops: int, frames: int, *, amount: float) -> list[Place]:
    """Places at even distances from the first stop on.

    Args:
        stops: How many there are, 2 or more.
        frames: How many places, both ends included.
        amount: How much of the way to the last stop is gone.

    Raises:
        LuminaError: If there are fewer frames than stops or than two, or the amount is not above 0
            and up to 1.
    """
    if frames < 2:
        raise LuminaError(f"there are {frames} frames to make", hint="ask for 2 or more")
    if frames < stops:
        raise LuminaError(
            f"{frames} frames cannot show all of {stops} stops", hint=f"ask for {stops} or more"
        )
    if not 0 < amount <= 1:
        raise LuminaError(
            f"amount is {amount}, which is out of range", hint="allowed: above 0, to 1"
        )
    ways = [amount * (stops - 1) * index / (frames - 1) for index in range(frames)]
    return [Place(int(way), way - int(way)) for way in ways]


def slerp(
    start: Float[Tensor, "b *grid"], end: Float[Tensor, "b *grid"], share: float
) -> Float[Tensor, "b *grid"]:
    """A point on the arc between two samples of noise: noise as strong as they are.

    Args:
        start: Where the arc begins.
        end: Where it ends.
        share: How far to go on it, from 0 to 1.
    """
    a, b = start.float(), end.float()
    cosine = nn.functional.cosine_similarity(a.flatten(1), b.flatten(1)).clamp(-1, 1)
    angle = cosine.arccos().view(-1, *[1] * (a.ndim - 1))
    sine = angle.sin()
    mixed = (((1 - share) * angle).sin() * a + (share * angle).sin() * b) / sine
    # Equal samples have no arc, and opposite ones have many.
    straight = a + share * (b - a)
    return torch.where(sine > _SMALLEST_SINE, mixed, straight).to(start.dtype)


def blend_texts(condition: Condition, stops: int, places: Sequence[Place]) -> Condition:
    """The features of prompts at places between them.

    Token by token, features go in a straight line from one prompt to the next. Of two texts that
    differ in length, the tokens of the shorter one are repeated, in their order, to as many.

    Args:
        condition: A prompt for each stop, and as many negative prompts if there is guidance.
        stops: How many stops there are.
        places: Where features are wanted.

    Returns:
        Features of all places, and of negative prompts there if there were any.
    """
    texts = [
        features[mask > 0]
        for features, mask in zip(condition.features, condition.mask, strict=True)
    ]
    rows = [
        _between(texts[first : first + stops], place)
        for first in range(0, len(texts), stops)
        for place in places
    ]
    features = pad_sequence(rows, batch_first=True)
    mask = pad_sequence([condition.mask.new_ones(len(row)) for row in rows], batch_first=True)
    return Condition(features, mask)


_SMALLEST_SINE = 1e-4


def _between(texts: list[Float[Tensor, "_ d"]], place: Place) -> Float[Tensor, "m d"]:
    start = texts[place.stop]
    if place.along == 0:
        return start
    end = texts[place.stop + 1]
    tokens = max(len(start), len(end))
    return torch.lerp(_stretch(start, tokens), _stretch(end, tokens), place.along)


def _stretch(text: Float[Tensor, "m d"], tokens: int) -> Float[Tensor, "tokens d"]:
    index = torch.arange(tokens, device=text.device) * len(text) // tokens
    return text[index]


def _count_stops(prompts: int, sources: int) -> int:
    """How many stops prompts and generators make."""
    stops = max(prompts, sources)
    if stops < 2:
        raise LuminaError(
            "there is one prompt and one generator, and nothing between them",
            hint="give two prompts or more, or a list of generators",
        )
    if prompts not in (1, stops) or sources not in (1, stops):
        raise LuminaError(
            f"there are {prompts} prompts and {sources} generators",
            hint="give as many of both, or one of either",
        )
    return stops


def _refuse_guidance(settings: Sampling, images: int) -> None:
    """Refuse to lead a picture away from itself, where nothing else changes it."""
    scale = as_guidance_scale(settings.guidance_scale, images)
    if replace(settings.guidance, scale=scale).is_on:
        raise LuminaError(
            "amount is 0, and guidance, which is not on the way to the noise of a picture, would"
            " make another one",
            hint="use guidance_scale=1, which gives the picture back, or an amount above 0",
        )


def _check_variations(
    image: Picture | None, origin: torch.Generator | None, *, amount: float, images: int
) -> None:
    if (image is None) == (origin is None):
        raise LuminaError(
            "variations are of one picture, and there are none or two",
            hint="give either image or origin",
        )
    if not 0 <= amount <= 1:
        raise LuminaError(f"amount is {amount}, which is out of range", hint="allowed: 0 to 1")
    if images < 1:
        raise LuminaError(f"there are {images} variations to make", hint="ask for 1 or more")
