"""Change a picture by its description: back to its noise with the old words, forth with the new."""

import logging
from dataclasses import replace
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, ImagePipelineOutput
from jaxtyping import Float
from torch import Tensor

from lumina.flow.sample import flow_times
from lumina.flow.scheduler import FlowSolverScheduler
from lumina.flow.solvers import SOLVERS, Solver, integrate
from lumina.pipelines.pictures import (
    Pictures,
    as_pixels,
    check_strength,
    choose_size,
    encode_pixels,
    in_float32,
    pair_up,
    refuse_noise,
    refuse_step_cache,
)
from lumina.pipelines.sampling import Sampling
from lumina.pipelines.text import TextPipeline
from lumina.types import Size, Velocity

TOLERANCE = 5e-4
"""Change of a sample, relative to it, from which on an inverted step counts as found."""

MOST_TRIES = 8
"""Velocities that an inverted step takes at most. Near data a step hardly depends on where it
began, and is found slowly."""


FEWEST_STEPS = 10
"""Steps below which the way back is not found well enough."""

_log = logging.getLogger(__name__)

ONE_STEP = ("euler", "midpoint", "heun", "rk4")
"""Solvers whose steps do not depend on the steps before, and so can be undone one by one."""


class LuminaRewritePipeline(TextPipeline):
    """Change what a picture shows, and keep its layout. Its parts are those of `TextPipeline`."""

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str],
        image: Pictures,
        source_prompt: str | list[str] = "",
        strength: float = 1.0,
        *,
        width: int | None = None,
        height: int | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        output_type: str | None = "pil",
        return_dict: bool = True,
        **sampling: Any,
    ) -> ImagePipelineOutput | tuple:
        """Rewrite pictures.

        Args:
            prompt: What the picture is to show: one text, or one for each picture.
            image: What to change: one picture, or several.
            source_prompt: What it shows now: one text, or one for each picture.
            strength: How far to go back toward noise, above 0 to 1: all the way.
            width: Pixels to bring the picture to first, a multiple of 16. None: its own.
            height: The same for the other side.
            generator: For schedulers that add noise. The noise to start from is that of the
                picture, and no chance is in it.
            output_type: "pil", "np", "pt", or "latent" for what the VAE would decode.
            return_dict: Return an object with `images`, else a tuple with them.
            sampling: All other settings, which are the fields of `Sampling`. They are for the way
                forth, but for the steps, which are the same.

        Raises:
            LuminaError: If the strength does not lie in (0, 1], a side is no multiple of 16,
                prompts and pictures are not equally many, the solver adds noise or cannot take
                the steps that the strength leaves, or a step cache is on.

        Source:
            DDIM inversion, arXiv:2010.02502, section 4.3, for the ODE of a flow.
        """
        prompts, (pictures, sources) = pair_up(prompt, image=image, source_prompt=source_prompt)
        check_strength(strength)
        size = choose_size(pictures[0], width=width, height=height)
        settings = self._settings(sampling)
        data = encode_pixels(self.vae, as_pixels(pictures, size))
        x = self._follow_back(data, sources, strength, settings)
        velocity = self._encode_for(prompts, size, settings)
        x = self._follow(
            x,
            self._begin_late(settings.num_inference_steps, size, settings.sigmas, strength),
            in_float32(velocity.at, self.transformer.dtype),
            generator,
            self._after_step(velocity),
        )
        return self._finish(x, output_type=output_type, return_dict=return_dict)

    @torch.no_grad()
    def invert(
        self,
        image_latents: Float[Tensor, "b c rows cols"],
        source_prompt: str | list[str] = "",
        strength: float = 1.0,
        **sampling: Any,
    ) -> Float[Tensor, "b c rows cols"]:
        """Find the noise from which the scheduler would come to these latents, without guidance.

        Steps that do not depend on those before, such as Euler's, are undone one by one. A solver
        that chooses its steps follows the flow backwards; for other schedulers that is done by one
        of order 4, at the same times. Steps should be ten or more, else there is a warning: of
        long ones the trials do not find where they began.

        Args:
            image_latents: What a VAE makes of pictures, scaled: see `encode_pixels`.
            source_prompt: What they show: one text, or one for each.
            strength: How far to go back, above 0 to 1: all the way.
            sampling: All other settings, which are the fields of `Sampling`. Those of guidance
                have no effect.

        Returns:
            The latents at the time where the way back ends, in float32. That is noise if the
            strength is 1.

        Raises:
            LuminaError: If the strength does not lie in (0, 1], the texts are not as many as the
                latents, the solver adds noise, or a step cache is on.
        """
        check_strength(strength)
        prompts, _ = pair_up(source_prompt, image_latents=image_latents)
        return self._follow_back(image_latents, prompts, strength, self._settings(sampling))

    def _follow_back(
        self,
        image_latents: Float[Tensor, "b c rows cols"],
        prompts: list[str],
        strength: float,
        settings: Sampling,
    ) -> Float[Tensor, "b c rows cols"]:
        """What `invert` does, within a call that has begun."""
        refuse_step_cache(self.transformer, "inversion")
        refuse_noise(self.scheduler, "inversion")
        settings = replace(settings, guidance_scale=1.0, negative_prompt=None)
        rows, cols = image_latents.shape[-2:]
        size = Size(cols * self.vae_scale_factor, rows * self.vae_scale_factor)
        velocity = self._encode_for(prompts, size, settings)
        device = self._execution_device
        steps = self._begin_late(settings.num_inference_steps, size, settings.sigmas, strength)
        # Solvers of several velocities a step have timesteps between the times of the steps.
        times = flow_times(self.scheduler, steps[:: getattr(self.scheduler, "order", 1)])
        times = torch.cat([times.float(), times.new_ones(1, dtype=torch.float32)]).to(device)
        velocity_at = in_float32(velocity.at, self.transformer.dtype)

        def follow(x: Tensor, time: Tensor) -> Tensor:
            return velocity_at(time.item())(x, time)

        x = image_latents.to(device, torch.float32)
        if getattr(self.scheduler, "is_adaptive", False):
            # Toward noise, time goes the other way: such solvers go forth alone.
            ends = 1 - times[[-1, 0]]
            solver = self.scheduler.make_solver()
            return integrate(lambda x, t: -follow(x, 1 - t), x, ends, solver=solver)[-1]
        _warn_of_long_steps(settings)
        solver = _one_step_solver(self.scheduler)
        if solver is None:
            return integrate(follow, x, times.flip(0), solver=SOLVERS["rk4"])[-1]
        return undo_steps(follow, x, times, solver=solver)


def undo_steps(
    velocity: Velocity,
    x: Float[Tensor, "b *grid"],
    times: Float[Tensor, " points"],
    *,
    solver: Solver,
) -> Float[Tensor, "b *grid"]:
    """Where a solver would have had to begin to come to `x` at the last of these times.

    Each step `x' = x + change(x)` is solved for x by fixed-point iteration.

    Args:
        velocity: What the solver follows.
        x: Where it ends.
        times: Where it stops, increasing.
        solver: One whose steps do not depend on the steps before.

    Source:
        Pan et al., "Effective Real Image Editing with Accelerated Iterative Diffusion Inversion"
        (2023), arXiv:2309.04907, without its acceleration.
    """
    for step in reversed(range(len(times) - 1)):
        end = x
        for _ in range(MOST_TRIES):
            before = x
            x = end - (integrate(velocity, x, times[step : step + 2], solver=solver)[-1] - x)
            if (x - before).norm() <= TOLERANCE * x.norm():
                break
    return x


def _warn_of_long_steps(settings: Sampling) -> None:
    steps = settings.num_inference_steps if settings.sigmas is None else len(settings.sigmas)
    if steps < FEWEST_STEPS:
        _log.warning(
            "a picture is followed back to its noise in %d steps: with fewer than %d it may come"
            " back as another one",
            steps,
            FEWEST_STEPS,
        )


def _one_step_solver(scheduler: Any) -> Solver | None:
    """The solver of a scheduler, if its steps do not depend on those before."""
    if isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
        return SOLVERS["euler"]
    name = scheduler.config.get("solver")
    is_known = isinstance(scheduler, FlowSolverScheduler) and name in ONE_STEP
    return SOLVERS[name] if is_known else None
