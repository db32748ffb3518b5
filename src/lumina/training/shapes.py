"""Training of a small Next-DiT on pictures of one shape each, straight on their pixels.

It is made to show what happens on canvases larger than those of training.
"""

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from lumina.backbones.next_dit import NextDiT
from lumina.flow.guidance import Guidance, guide
from lumina.flow.path import flow_loss
from lumina.flow.solvers import SOLVERS, integrate
from lumina.flow.times import shift_times, uniform_times
from lumina.media import make_grid
from lumina.modalities.image import to_pixels
from lumina.training.attending import attend_in_training
from lumina.training.recipes import ShapesRecipe
from lumina.training.sharding import ALONE, Share
from lumina.worlds.shapes import CLASSES, COLORS, SHAPES, draw_shape, paint_shape

PREVIEW_STEPS, PREVIEW_GUIDANCE, PREVIEW_SHIFT = 16, 2.0, 2.0


class Shapes(NamedTuple):
    """Pictures in [-1, 1], the noise they are mixed with, times in [0, 1], and classes."""

    data: Float[Tensor, "b 3 rows cols"]
    noise: Float[Tensor, "b 3 rows cols"]
    times: Float[Tensor, " b"]
    labels: Int[Tensor, " b"]


class ShapesObjective:
    """Match the velocity from noise to pictures of shapes of a class."""

    def __init__(self, recipe: ShapesRecipe):
        self.recipe = recipe
        self.module = NextDiT(
            sample_size=recipe.side,
            patch_size=recipe.patch,
            in_channels=3,
            hidden_size=recipe.width,
            num_layers=recipe.depth,
            num_attention_heads=recipe.heads,
            multiple_of=32,
            learn_sigma=False,
            rope_theta=recipe.rope_theta,
            num_classes=CLASSES,
        )
        if recipe.start_from:
            start = NextDiT.from_pretrained(recipe.start_from, subfolder="transformer")
            self.module.load_state_dict(start.state_dict())

    def batch(self, number: int, share: Share = ALONE) -> Shapes:
        """New shapes; some lose their class, so that guidance has something to leave."""
        recipe = self.recipe
        rng = np.random.default_rng((recipe.seed, 6, number))
        labels = rng.integers(CLASSES, size=recipe.batch_size)
        pictures = [paint_shape(draw_shape(rng, int(label)), recipe.side) for label in labels]
        labels[rng.random(len(labels)) < recipe.class_dropout] = CLASSES
        data = to_pixels(pictures)
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        noise = torch.randn(data.shape, generator=generator)
        times = shift_times(torch.rand(len(data), generator=generator), recipe.time_shift)
        return share.take(Shapes(data, noise, times, torch.from_numpy(labels)))

    def loss(self, batch: Shapes, step: int) -> tuple[Tensor, dict[str, float]]:
        """Mean squared error of the velocity."""
        velocity = partial(self._velocity, batch.labels)
        return flow_loss(velocity, batch.noise, batch.data, batch.times).mean(), {}

    def to(self, device: torch.device) -> None:
        """Move the weights."""
        cast(Any, self.module).to(device)

    def validate(self) -> dict[str, float]:
        """Nothing: every batch is of shapes that were never seen."""
        return {}

    @torch.no_grad()
    def preview(self, folder: Path, step: int) -> None:
        """A picture of each class from fixed noise."""
        device = self.module.device
        labels = torch.arange(CLASSES, device=device)
        labels = torch.cat([labels, torch.full_like(labels, CLASSES)])
        guided = guide(
            lambda x, t: self._velocity(labels, x, t.expand(len(x))),
            Guidance(scale=PREVIEW_GUIDANCE, channels=None),
        )
        side = self.recipe.side
        noise = torch.randn(CLASSES, 3, side, side, generator=torch.Generator().manual_seed(0))
        times = shift_times(uniform_times(PREVIEW_STEPS), PREVIEW_SHIFT)
        x = integrate(guided, noise.to(device), times.to(device), solver=SOLVERS["euler"])[-1]
        pixels = ((x.cpu().clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
        names = [f"{color} {shape}" for shape in SHAPES for color in COLORS]
        grid = make_grid([Image.fromarray(picture) for picture in pixels], names)
        grid.save(folder / f"step-{step:06d}.png")

    def export(self, folder: Path) -> None:
        """Write the network in half precision."""
        module = cast(Any, self.module)
        module.to(torch.float16)
        module.save_pretrained(folder / "transformer")
        module.to(torch.float32)

    def _velocity(
        self, labels: Int[Tensor, " b"], x: Float[Tensor, "b 3 rows cols"], times: Tensor
    ) -> Float[Tensor, "b 3 rows cols"]:
        attend = attend_in_training(self.module, self.recipe)
        module: Any = self.module
        return module(x, times, class_labels=labels, attend=attend, return_dict=False)[0]
