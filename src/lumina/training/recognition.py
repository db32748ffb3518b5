"""Training of a network that tells what pictures of any size show."""

import math
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from jaxtyping import Int, UInt8
from PIL import Image
from torch import Tensor, nn

from lumina.backbones.recognizer import NextDiTClassifier
from lumina.media import make_grid
from lumina.modalities.labels import rank, to_tensor
from lumina.pipelines.recognition import LuminaRecognitionPipeline
from lumina.training.attending import attend_in_training
from lumina.training.recipes import RecognitionRecipe
from lumina.training.sharding import ALONE, Share
from lumina.types import Size
from lumina.worlds.recognition import Gallery, draw_view, open_gallery, paint_view

GRID = 24
"""Pictures of a preview."""

SCALES = {"1x": (1.0, 1.0), "2x": (2.0, 2.0), "wide": (2.0, 1.0)}
"""Sizes to validate on: width and height in sides of the usual size."""


class Labelled(NamedTuple):
    """Pictures in [-1, 1] of any sizes, and their classes."""

    pictures: list[Tensor]
    labels: Int[Tensor, " b"]


class RecognitionObjective:
    """Tell the class of the thing in a picture."""

    def __init__(self, recipe: RecognitionRecipe, galleries: dict[str, Gallery] | None = None):
        self.recipe = recipe
        self.galleries = galleries or {name: open_gallery(name) for name in ("train", "validation")}
        self.names = self.galleries["train"].names
        self.module = self._start() if recipe.start_from else self._build()

    def batch(self, number: int, share: Share = ALONE) -> Labelled:
        """New views of random classes, at the usual size or at any."""
        rng = np.random.default_rng((self.recipe.seed, 7, number))
        count = self.recipe.batch_size
        sizes = [draw_size(rng, self.recipe) for _ in range(count)]
        return share.take(self._draw(rng, self.galleries["train"], sizes))

    def loss(self, batch: Labelled, step: int) -> tuple[Tensor, dict[str, float]]:
        """Cross-entropy of the classes, and the share of those that are told right."""
        logits = self._logits(batch.pictures)
        loss = nn.functional.cross_entropy(
            logits, batch.labels, label_smoothing=self.recipe.smoothing
        )
        return loss, {"top1": _share_right(logits, batch.labels)}

    def to(self, device: torch.device) -> None:
        """Move the weights."""
        cast(Any, self.module).to(device)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Share of views that are told right, of things that training never shows in this way."""
        return {f"top1_{name}": self._validate_at(scale) for name, scale in SCALES.items()}

    @torch.no_grad()
    def preview(self, folder: Path, step: int) -> None:
        """Pictures that were never trained on, and what the network takes them for."""
        rng = np.random.default_rng((self.recipe.seed, 8))
        sizes = [draw_size(rng, self.recipe) for _ in range(GRID)]
        shown = self._draw(rng, self.galleries["validation"], sizes)
        guesses = rank(self._logits(shown.pictures).cpu(), self.names, top=1)
        pixels = [((p.permute(1, 2, 0).numpy() + 1) * 127.5).round() for p in shown.pictures]
        pictures = [Image.fromarray(picture.astype(np.uint8)) for picture in pixels]
        grid = make_grid(pictures, [guess.label for (guess,) in guesses])
        grid.save(folder / f"step-{step:06d}.png")

    def export(self, folder: Path) -> None:
        """Write a pipeline in half precision."""
        module = cast(Any, self.module)
        module.to(torch.float16)
        labels = {str(number): name for number, name in enumerate(self.names)}
        LuminaRecognitionPipeline(module, labels).save_pretrained(folder)
        module.to(torch.float32)

    def _build(self) -> NextDiTClassifier:
        recipe = self.recipe
        return NextDiTClassifier(
            num_classes=len(self.names),
            sample_size=recipe.side,
            patch_size=recipe.patch,
            hidden_size=recipe.width,
            num_layers=recipe.depth,
            num_attention_heads=recipe.heads,
            multiple_of=32,
            positions=recipe.positions,
            rope_theta=recipe.rope_theta,
        )

    def _start(self) -> NextDiTClassifier:
        start = NextDiTClassifier.from_pretrained(self.recipe.start_from, subfolder="transformer")
        return cast(NextDiTClassifier, start).float().train()

    def _draw(self, rng: np.random.Generator, gallery: Gallery, sizes: list[Size]) -> Labelled:
        labels = rng.integers(len(gallery.names), size=len(sizes))
        pictures = [
            paint_view(draw_view(rng, gallery, int(label)), gallery, size)
            for label, size in zip(labels, sizes, strict=True)
        ]
        return Labelled([self._tensor(picture) for picture in pictures], torch.from_numpy(labels))

    def _tensor(self, picture: UInt8[np.ndarray, "rows cols 3"]) -> Tensor:
        return to_tensor(picture, patch_size=self.recipe.patch)

    def _logits(self, pictures: list[Tensor]) -> Tensor:
        device = self.module.device
        together = [picture.to(device) for picture in pictures]
        are_alike = len({picture.shape for picture in pictures}) == 1
        return self.module(
            torch.stack(together) if are_alike else together,
            attend=attend_in_training(self.module, self.recipe),
        ).logits

    def _validate_at(self, scale: tuple[float, float]) -> float:
        rng = np.random.default_rng((self.recipe.seed, 9))
        width, height = (round(factor * self.recipe.side) for factor in scale)
        sizes = [Size(width, height)] * self.recipe.unseen
        drawn = self._draw(rng, self.galleries["validation"], sizes)
        parts = range(0, len(drawn.labels), self.recipe.batch_size)
        logits = [
            self._logits(drawn.pictures[start : start + self.recipe.batch_size]) for start in parts
        ]
        return _share_right(torch.cat(logits).cpu(), drawn.labels)


def draw_size(rng: np.random.Generator, recipe: RecognitionRecipe) -> Size:
    """The usual size, or any: its area and its aspect ratio are even on a logarithmic scale."""
    is_usual, area, aspect = rng.random(3)
    if is_usual < recipe.usual:
        return Size(recipe.side, recipe.side)
    side = recipe.smallest * (recipe.largest / recipe.smallest) ** area
    longer = math.sqrt(recipe.aspect) ** (2 * aspect - 1)
    return Size(round(side * longer), round(side / longer))


def _share_right(logits: Tensor, labels: Tensor) -> float:
    return (logits.argmax(-1) == labels).float().mean().item()
