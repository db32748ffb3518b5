"""Pictures of a class: the ImageNet models of the original release."""

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
from diffusers import AutoencoderKL, ImagePipelineOutput
from diffusers.schedulers import SchedulerMixin
from jaxtyping import Float, Int
from torch import Tensor

from lumina.backbones.flag_dit import FlagDiT
from lumina.backbones.next_dit import NextDiT
from lumina.flow.guidance import Guidance, guide
from lumina.nn.extrapolation import UNSCALED, RopeScaling
from lumina.pipelines import checks
from lumina.pipelines.images import ImagePipeline
from lumina.pipelines.sampling import GUIDED_CHANNELS
from lumina.pipelines.velocity import as_guidance_scale
from lumina.types import Velocity


class LuminaClassPipeline(ImagePipeline):
    """Make pictures of classes with a Next-DiT or Flag-DiT that was trained on classes.

    Args:
        transformer: A backbone with `num_classes`.
        scheduler: Any flow scheduler of diffusers, or one with `use_flow_sigmas`.
        vae: Decoder from latents to pixels.

    Raises:
        ValueError: If the backbone is one of text.

    Source:
        `Next-DiT-ImageNet/sample.py` of the original code.
    """

    model_cpu_offload_seq = "transformer->vae"

    def __init__(
        self,
        transformer: NextDiT | FlagDiT | None,
        scheduler: SchedulerMixin | None,
        vae: AutoencoderKL | None,
    ):
        super().__init__()
        if transformer is not None and transformer.config["num_classes"] is None:
            raise ValueError("the transformer was trained on text: use `LuminaPipeline`")
        self.register_modules(transformer=transformer, scheduler=scheduler, vae=vae)
        self._prepare()

    @torch.no_grad()
    def __call__(
        self,
        class_labels: int | list[int],
        width: int | None = None,
        height: int | None = None,
        num_inference_steps: int = 30,
        guidance_scale: float = 4.0,
        num_images_per_class: int = 1,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        rope: RopeScaling = UNSCALED,
        callback_on_step_end: Callable | None = None,
        callback_on_step_end_tensor_inputs: list[str] | None = None,
    ) -> ImagePipelineOutput | tuple:
        """Make pictures.

        Args:
            class_labels: Classes from 0, such as 207, a golden retriever of ImageNet.
            width: Pixels, a multiple of 16. None or 0 is the size that the model was trained at.
            height: Pixels, a multiple of 16. None or 0 is the size that the model was trained at.
            num_inference_steps: Steps from noise to picture, 1 or more.
            guidance_scale: How closely to follow the class. 1 or less does not guide, in half
                the time.
            num_images_per_class: Pictures of each class. They follow each other in the result.
            generator: The source of noise, or a list with one for each picture.
            latents: Noise to start from, instead of `generator`.
            output_type: "pil", "np", "pt", or "latent" for what the VAE would decode.
            return_dict: Return an object with `images`, else a tuple with them.
            rope: How positions are read, for sizes above the trained one: `lumina.nn.extrapolation`
                makes it.
            callback_on_step_end: Called with the pipeline, the index of the step, its timestep
                and a dict of "latents" after each step. What it returns replaces them.
            callback_on_step_end_tensor_inputs: ["latents"], which is usual, or [].

        Returns:
            The pictures, those of the first class first.

        Raises:
            ValueError: If a class does not exist, or a size or shape does not fit.
        """
        height = height or self.default_image_size
        width = width or self.default_image_size
        checks.size(width, height)
        self._guidance = Guidance(channels=GUIDED_CHANNELS)
        self._begin_call()
        device = self._execution_device
        labels = self._labels(class_labels, num_images_per_class).to(device)
        pictures = len(labels)
        self._guidance_scale = as_guidance_scale(guidance_scale, pictures)
        timesteps = self._begin(num_inference_steps, width, height, device)
        x = self.prepare_latents(
            pictures,
            self.transformer.config.in_channels,
            height,
            width,
            self.transformer.dtype,
            device,
            generator,
            latents,
        )
        pair = torch.cat([labels, torch.full_like(labels, self._classes)])

        def at(time: float) -> Velocity:
            is_guided = self.do_classifier_free_guidance
            self._count(guided=is_guided)
            if is_guided:
                return guide(partial(self._velocity, pair, rope), self.guidance)
            return partial(self._velocity, labels, rope)

        after_step = self._take_over(callback_on_step_end, callback_on_step_end_tensor_inputs)
        x = self._follow(x, timesteps, at, generator, after_step)
        images = x
        if output_type != "latent":
            images = self._postprocess(self._decode(x), output_type)
        self.maybe_free_model_hooks()
        return ImagePipelineOutput(images=cast(Any, images)) if return_dict else (images,)

    @property
    def _classes(self) -> int:
        return self.transformer.config["num_classes"]

    def _labels(self, classes: int | list[int], times: int) -> Int[Tensor, " b"]:
        labels = [classes] if isinstance(classes, int) else classes
        unknown = [label for label in labels if not 0 <= label < self._classes]
        if unknown or not labels:
            raise ValueError(
                f"`class_labels` has to be one or more of 0 to {self._classes - 1}, but is"
                f" {classes}."
            )
        return torch.tensor(labels).repeat_interleave(times)

    def _velocity(
        self,
        labels: Int[Tensor, " b"],
        rope: RopeScaling,
        x: Float[Tensor, "b c rows cols"],
        t: Float[Tensor, ""],
    ) -> Float[Tensor, "b c rows cols"]:
        output = self.transformer(
            x, t.expand(len(x)), class_labels=labels, return_dict=False, rope=rope
        )[0]
        # Channels past those of the data are a variance that the flow does not use.
        return output[:, : x.shape[1]]
