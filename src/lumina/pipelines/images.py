"""What all pipelines that make pictures share: noise, the loop over steps, and decoding."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
import torch.distributed as dist
from diffusers import DiffusionPipeline
from diffusers.image_processor import VaeImageProcessor
from diffusers.utils.torch_utils import randn_tensor
from jaxtyping import Float, Num
from torch import Tensor

from lumina.checkpoints.folder import OPENED_BY_US
from lumina.errors import LuminaError
from lumina.flow.guidance import Guidance
from lumina.flow.sample import asked_times, begin_sample, begin_steps, flow_times, step_options
from lumina.media import write_png, write_result
from lumina.modalities.image import as_precise, scaling_of
from lumina.pipelines import checks
from lumina.pipelines.adapters import LoraMixin
from lumina.pipelines.pictures import refuse_step_cache
from lumina.pipelines.tiling import disable_tiling, enable_tiling
from lumina.requests import SIZE_MULTIPLE, steps_left
from lumina.types import Size, VelocityAt

if TYPE_CHECKING:
    from PIL.Image import Image


class Evaluations(NamedTuple):
    """How often a network was asked: for pairs with and without the prompt, and for one alone."""

    pairs: int = 0
    singles: int = 0

    @property
    def passes(self) -> int:
        """How many passes through the network that is."""
        return 2 * self.pairs + self.singles

    def __str__(self) -> str:
        """Pairs, those alone, and passes in all."""
        parts = [_count(self.pairs, "pair", "pairs")] if self.pairs else []
        parts += [f"{self.singles} alone"] if self.pairs and self.singles else []
        passes = _count(self.passes, "pass", "passes") + " through the network for each result"
        return ", ".join([" and ".join(parts), passes] if parts else [passes])


class ImagePipeline(DiffusionPipeline, LoraMixin):
    """A flow over latents that a VAE turns into pictures.

    Pipelines register their models, `transformer`, `scheduler` and `vae` among them, and then call
    `_prepare`.
    """

    progress_bar: Callable[..., Any]  # its decorator in diffusers hides that it takes a `total`
    vae: Any  # an AutoencoderKL, whose annotations in diffusers do not fit its uses
    _guidance_group: dist.ProcessGroup | None = None
    _guidance = Guidance()
    _guidance_scale: float | Tensor

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **kwargs: Any) -> Any:
        """Load as every pipeline of diffusers loads, with parts that are those of another model.

        Args:
            pretrained_model_name_or_path: A folder, a hub id, or a name from `lumina models`.
            kwargs: As of diffusers. A part that is given is taken in place of the stored one.

        Raises:
            LuminaError: If a model of that name, or one whose parts are shared, is not here.
        """
        from lumina.pipelines.shared_parts import locate, shared_parts  # which need pipelines

        source = locate(pretrained_model_name_or_path)
        return super().from_pretrained(source, **shared_parts(source, kwargs), **kwargs)

    def to_json_string(self) -> str:
        """The index of a saved pipeline, which says so where diffusers alone cannot open it."""
        index = json.loads(super().to_json_string())
        if not self._opens_in_diffusers:
            index["_class_name"] += OPENED_BY_US
        return json.dumps(index, indent=2, sort_keys=True) + "\n"

    @property
    def _opens_in_diffusers(self) -> bool:
        return False

    def _prepare(self) -> None:
        self.vae_scale_factor = 8
        self.image_processor = VaeImageProcessor(vae_scale_factor=self.vae_scale_factor)
        transformer = getattr(self, "transformer", None)
        self.default_sample_size: int = (
            128 if transformer is None else transformer.config["sample_size"]
        )
        self.default_image_size = self.default_sample_size * self.vae_scale_factor
        self._current_timestep = None
        self._expected_data: Tensor | None = None
        self._begin_call()

    @property
    def guidance_scale(self) -> float | Tensor:
        """How closely the prompt is followed. A callback may change `_guidance_scale`."""
        return self._guidance_scale

    @property
    def guidance(self) -> Guidance:
        """How velocities are guided now."""
        return replace(self._guidance, scale=self._guidance_scale)

    @property
    def do_classifier_free_guidance(self) -> bool:
        """Whether velocities are guided, which takes a guidance scale above 1."""
        return self.guidance.is_on

    @property
    def evaluations(self) -> Evaluations:
        """How often the network was asked for each picture of the latest call.

        Windows, views and the way back to noise count like all others.
        """
        return self._evaluations

    @property
    def expected_data(self) -> Float[Tensor, "b c *grid"] | None:
        """Latents that the latest velocity leads to, for callbacks to look at."""
        return self._expected_data

    @property
    def num_timesteps(self) -> int:
        """How many timesteps the latest sample has."""
        return self._num_timesteps

    @property
    def current_timestep(self) -> Tensor | None:
        """The timestep that is being computed, and None between samples."""
        return self._current_timestep

    @property
    def interrupt(self) -> bool:
        """Whether sampling is to stop after this step. A callback sets `_interrupt`."""
        return self._interrupt

    def enable_guidance_parallelism(self, group: dist.ProcessGroup | None = None) -> None:
        """Compute guided steps on two processes: one with the prompt, one with the negative.

        Both make the same calls, from the same noise, and get the same pictures.

        Args:
            group: The two processes. None: all.

        Raises:
            ValueError: If they are not two.
        """
        group = group or dist.group.WORLD
        processes = dist.get_world_size(group)
        if processes != 2:
            raise ValueError(f"guidance needs 2 processes, and the group has {processes}")
        self._guidance_group = group

    def enable_vae_slicing(self) -> None:
        """Decode pictures one at a time, in less memory."""
        self._picture_vae.enable_slicing()

    def disable_vae_slicing(self) -> None:
        """Decode all pictures at once."""
        self._picture_vae.disable_slicing()

    def enable_vae_tiling(self, memory_gb: float | None = None) -> None:
        """Decode and encode large pictures in tiles, which takes less memory and more time.

        Args:
            memory_gb: Memory to get by with, beside weights and the picture. What takes no more
                is decoded whole. None: what is larger than the autoencoder was trained for is
                tiled, in about a fifth of the memory.
        """
        enable_tiling(self._picture_vae, memory_gb=memory_gb)

    def disable_vae_tiling(self) -> None:
        """Decode each picture whole."""
        disable_tiling(self._picture_vae)

    @property
    def _picture_vae(self) -> Any:
        vae = getattr(self, "vae", None)
        if not hasattr(vae, "enable_tiling"):
            raise LuminaError(
                f"{type(self).__name__} has no autoencoder of pictures, which slices and tiles are"
                " for",
                hint="leave them out",
            )
        return vae

    def prepare_latents(
        self,
        batch_size: int,
        num_channels_latents: int,
        height: int,
        width: int,
        dtype: torch.dtype,
        device: torch.device,
        generator: torch.Generator | list[torch.Generator] | None,
        latents: Tensor | None = None,
    ) -> Float[Tensor, "b c rows cols"]:
        """Draw the noise to start from, or check and place the noise that was passed in.

        Raises:
            ValueError: If generators or latents are not as many as the pictures, or the latents
                are of another size.
        """
        rows, cols = height // self.vae_scale_factor, width // self.vae_scale_factor
        shape = (batch_size, num_channels_latents, rows, cols)
        if isinstance(generator, list) and len(generator) != batch_size:
            raise ValueError(
                f"You have passed a list of generators of length {len(generator)}, but requested"
                f" an effective batch size of {batch_size}. Make sure the batch size matches the"
                " length of the generators."
            )
        if latents is None:
            return randn_tensor(shape, generator=generator, device=device, dtype=dtype)
        if latents.shape != shape:
            raise ValueError(
                f"`latents` has the shape {tuple(latents.shape)}, but {batch_size} pictures of"
                f" {width}x{height} pixels start from {shape}."
            )
        return latents.to(device, dtype)

    @property
    def file_facts(self) -> dict[str, Any]:
        """What files of results have to say besides how they were made."""
        return {}

    def as_pictures(self, media: Sequence[Any], *, small: bool = True) -> "Sequence[Image]":
        """Results as pictures, small ones for grids: themselves."""
        return media

    def write(
        self, medium: Any, path: Path, record: dict[str, Any], *, force: bool = False
    ) -> None:
        """Write one result in the format that the name of the file says; PNG shows what it is like.

        Args:
            medium: One of the results.
            path: A file in a folder that exists.
            record: How it was made; anything that JSON can hold.
            force: Replace a file of that name.

        Raises:
            LuminaError: If the file exists and is not to be replaced, or cannot be written.
        """
        if path.suffix.lower() == ".png":
            write_png(path, self.as_pictures([medium], small=False)[0], record, force=force)
        else:
            write_result(path, medium, record, force=force, **self.file_facts)

    def pictures_beside(self, medium: Any) -> "list[Image]":
        """Pictures of one result for files beside its own: what it looks like."""
        return list(self.as_pictures([medium], small=False))

    def pictures_of(self, latents: Float[Tensor, "b c *grid"]) -> "list[Image]":
        """What latents look like."""
        return cast(Any, self._postprocess(self._decode(latents), "pil"))

    def _begin_call(self) -> None:
        """Forget what the call before left: that it was stopped, and what it cost."""
        self._interrupt = False
        self._evaluations = Evaluations()

    def _take_over(
        self, callback: Callable | None, names: list[str] | None
    ) -> Callable[[int, Tensor, Tensor], Tensor]:
        """What calls a callback that is given latents alone, and takes over what it returns."""
        checks.callback(callback)
        checks.callback_tensors(names, ["latents"])

        def after_step(index: int, timestep: Tensor, x: Tensor) -> Tensor:
            if callback is None:
                return x
            tensors = {"latents": x} if names is None or "latents" in names else {}
            return (callback(self, index, timestep, tensors) or {}).get("latents", x)

        return after_step

    def _count(self, *, guided: bool, times: int = 1) -> None:
        """Add to what this call costs."""
        pairs, singles = self._evaluations
        self._evaluations = Evaluations(pairs + guided * times, singles + (not guided) * times)

    def _follow(
        self,
        x: Float[Tensor, "b c *grid"],
        timesteps: Num[Tensor, " s"],
        velocity_at: VelocityAt,
        generator: torch.Generator | list[torch.Generator] | None,
        after_step: Callable[[int, Tensor, Tensor], Tensor],
    ) -> Float[Tensor, "b c *grid"]:
        """Take all steps from noise.

        Args:
            x: The noise.
            timesteps: What `begin_steps` gave.
            velocity_at: Gives the velocity to follow at a time.
            generator: For schedulers that add noise.
            after_step: Takes the index, the timestep and the latents, and returns latents.
        """
        options = step_options(self.scheduler, generator)
        is_adaptive = getattr(self.scheduler, "is_adaptive", False)
        if is_adaptive:
            refuse_step_cache(self.transformer, "a solver that chooses its steps")
        x = begin_sample(self.scheduler, x, generator)
        with self.progress_bar(total=len(timesteps)) as progress_bar:
            if is_adaptive:
                progress_bar.total = None  # nobody knows
            for index, (timestep, known) in enumerate(asked_times(self.scheduler, timesteps)):
                if self.interrupt:
                    break
                self._current_timestep = timestep
                time = flow_times(self.scheduler, timestep)
                with self.transformer.step_context(
                    index,
                    steps=len(timesteps),
                    time=time,
                    samples=len(x) * (1 + self.guidance.is_on_at(known)),
                ):
                    toward_data = velocity_at(known)(x, time)
                self._expected_data = x + (1 - time) * toward_data
                # A scheduler follows the velocity toward noise.
                x = self.scheduler.step(
                    -toward_data,
                    timestep,
                    x,
                    **options,
                    return_dict=False,
                )[0].to(x.dtype)
                progress_bar.update()
                x = after_step(index, timestep, x)
        self._current_timestep = self._expected_data = None
        return x

    def _begin(
        self,
        steps: int,
        width: int,
        height: int,
        device: torch.device | str,
        sigmas: list[float] | None = None,
        *,
        skip: int = 0,
    ) -> Num[Tensor, " s"]:
        """Make the scheduler ready for a sample, and return its timesteps."""
        tokens = (width // SIZE_MULTIPLE) * (height // SIZE_MULTIPLE)
        timesteps = begin_steps(
            self.scheduler, steps, sigmas=sigmas, tokens=tokens, device=device, skip=skip
        )
        self._num_timesteps = len(timesteps)
        return timesteps

    def _begin_late(
        self, steps: int, size: Size, sigmas: list[float] | None, strength: float
    ) -> Num[Tensor, " s"]:
        """Make the scheduler ready for the last steps of a sample, a share of all of them.

        Raises:
            LuminaError: If its solver needs more than that leaves.
        """
        device = self._execution_device
        all_steps = self._begin(steps, *size, device, sigmas)
        # Diffusers' Heun takes one timestep less in its last step.
        count = math.ceil(len(all_steps) / getattr(self.scheduler, "order", 1))
        skip = count - steps_left(count, strength)
        return self._begin(steps, *size, device, sigmas, skip=skip)

    def _postprocess(
        self, pixels: Float[Tensor, "b 3 height width"], output_type: str | None
    ) -> Any:
        return self.image_processor.postprocess(pixels, output_type=cast(str, output_type))

    def _decode(self, latents: Float[Tensor, "b c rows cols"]) -> Float[Tensor, "b 3 height width"]:
        with as_precise(self.vae):
            latents = scaling_of(self.vae.config).unscale(latents.to(self.vae.dtype))
            return self.vae.decode(latents, return_dict=False)[0]


def _count(number: int, one: str, several: str) -> str:
    return f"{number} {one if number == 1 else several}"
