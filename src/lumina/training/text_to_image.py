"""Training of a Next-DiT to draw what captions ask for, on cached latents."""

import hashlib
import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler
from jaxtyping import Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModel, AutoTokenizer

from lumina.backbones.next_dit import NextDiT
from lumina.encoders.text import FEATURE_LAYER, TOKENS_MULTIPLE
from lumina.flow.path import flow_loss
from lumina.media import make_grid
from lumina.nn.attention import plain_attend
from lumina.nn.extrapolation import RopeScaling
from lumina.pipelines.text_to_image import LuminaPipeline
from lumina.requests import read_size
from lumina.training.alignment import draw_caption
from lumina.training.autoencoder import to_pixels
from lumina.training.recipes import MADE_BY, FlowRecipe
from lumina.training.sharding import ALONE, Share
from lumina.types import Size
from lumina.worlds.captions import Brief, draw_brief, stage
from lumina.worlds.drawings import paint
from lumina.worlds.references import write_references
from lumina.worlds.vocabulary import choose_things

USUAL_SIDE = 16  # latents of the pictures that positions and attention are made for
USUAL_PIXELS = 128 * 128
ENCODED_AT_ONCE = 32
UNSEEN_SCENES = 64  # that validation is made of
PREVIEW_STEPS = 15
PREVIEW_PROMPTS = (
    "a red apple",
    "a cat",
    "a rocket on a black background",
    "tulip",
    "a small dog at the left on a green background",
    "a pizza to the left of a bicycle",
    "a grinning face",
    "an owl on a sky blue background",
    "sombrilla",
    "かに",
    "ein Fahrrad",
    "火箭",
    "a frog on a pink background",
    "a small ghost at the bottom",
    "a violin above a trumpet",
    "a house",
)


class Latents(NamedTuple):
    """Data, the noise it is mixed with, times in [0, 1], and tokens of the captions."""

    data: Float[Tensor, "b c rows cols"]
    noise: Float[Tensor, "b c rows cols"]
    times: Float[Tensor, " b"]
    ids: Int[Tensor, "b m"]
    mask: Int[Tensor, "b m"]


class FlowObjective:
    """Match the velocity from noise to latents of painted scenes.

    Positions and attention are scaled at each size as the pipeline does it.
    """

    def __init__(self, recipe: FlowRecipe):
        self.recipe = recipe
        self.things, _ = choose_things()
        # Any, since diffusers says of results that they may be tuples.
        self.vae: Any = AutoencoderKL.from_pretrained(recipe.autoencoder).eval()
        text = Path(recipe.text_encoder)
        self.text_encoder = AutoModel.from_pretrained(
            text / "text_encoder", dtype=torch.float32
        ).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(text / "tokenizer")
        self.module = NextDiT(
            sample_size=USUAL_SIDE,
            in_channels=self.vae.config["latent_channels"],
            hidden_size=recipe.width,
            num_layers=recipe.depth,
            num_attention_heads=recipe.heads,
            num_kv_heads=recipe.kv_heads,
            multiple_of=recipe.multiple_of,
            cross_attention_dim=self.text_encoder.config.hidden_size,
        )
        if recipe.start_from:
            self.module.load_state_dict(
                NextDiT.from_pretrained(recipe.start_from, subfolder="transformer").state_dict()
            )
        self.sizes = [Size(*read_size(text)) for text in recipe.sizes]
        self.early_sizes = [Size(*read_size(text)) for text in recipe.early_sizes]
        self.scenes = _share(recipe.early_scenes, self.early_sizes) if recipe.early_share else {}
        self.scenes |= _share(recipe.scenes, self.sizes)
        self.briefs = {size: self._draw_briefs(size) for size in self.scenes}
        self.latents = {size: self._encode(size) for size in self.scenes}
        self._unseen: Latents | None = None

    def batch(self, number: int, share: Share = ALONE) -> Latents:
        """Latents of one size with fresh captions, noise and times.

        Small pictures come in larger batches, so that every batch has about as many tokens.
        """
        recipe = self.recipe
        rng = np.random.default_rng((recipe.seed, 3, number))
        is_early = number < recipe.early_share * recipe.steps
        sizes = self.early_sizes if is_early else self.sizes
        size = sizes[number % len(sizes)]
        count = recipe.batch_size * USUAL_PIXELS // (size.width * size.height)
        chosen = rng.integers(self.scenes[size], size=count)
        captions = [self._caption(size, int(index), rng) for index in chosen]
        tokens = self.tokenizer(
            captions, padding=True, pad_to_multiple_of=TOKENS_MULTIPLE, return_tensors="pt"
        )
        data = self.latents[size][torch.from_numpy(chosen)].float()
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        noise = torch.randn(data.shape, generator=generator)
        times = torch.rand(len(data), generator=generator)
        times = times / (times + recipe.time_shift * (1 - times))
        return share.take(
            Latents(data, noise, times, tokens["input_ids"], tokens["attention_mask"])
        )

    def loss(self, batch: Latents, step: int) -> tuple[Tensor, dict[str, float]]:
        """Mean squared error of the velocity."""
        with torch.no_grad():
            states = self.text_encoder(
                batch.ids, attention_mask=batch.mask, output_hidden_states=True, use_cache=False
            )
        rows, cols = batch.data.shape[-2:]
        velocity = partial(
            self._velocity, states.hidden_states[FEATURE_LAYER], batch.mask, (rows, cols)
        )
        errors = flow_loss(velocity, batch.noise, batch.data, batch.times)
        figures: dict[str, float] = {"samples": len(batch.data), "tokens": self._tokens(rows, cols)}
        return errors.mean(), figures

    def to(self, device: torch.device) -> None:
        """Move the weights, and what else the loss needs."""
        for model in (self.module, self.text_encoder, self.vae):
            cast(Any, model).to(device)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Loss on scenes that no step sees, with noise and times that are always the same."""
        if self._unseen is None:
            self._unseen = self._make_unseen()
        device = next(self.module.parameters()).device
        batch = Latents(*(part.to(device) for part in self._unseen))
        return {"validation": self.loss(batch, 0)[0].item()}

    @torch.no_grad()
    def preview(self, folder: Path, step: int) -> None:
        """Pictures of fixed prompts from fixed noise."""
        pipeline = self._pipeline()
        pipeline.set_progress_bar_config(disable=True)
        generators = [torch.Generator().manual_seed(seed) for seed in range(len(PREVIEW_PROMPTS))]
        output = pipeline(
            list(PREVIEW_PROMPTS), num_inference_steps=PREVIEW_STEPS, generator=generators
        )
        make_grid(cast(Any, output).images, PREVIEW_PROMPTS).save(folder / f"step-{step:06d}.png")

    def export(self, folder: Path) -> None:
        """Write a checkpoint that `lumina.load` and diffusers read, in half precision."""
        pipeline = self._pipeline()
        pipeline.to(torch.float16)
        pipeline.save_pretrained(folder)
        pipeline.to(torch.float32)
        _read_as_float32(folder / "text_encoder" / "config.json")
        for part, run in (
            ("vae", self.recipe.autoencoder),
            ("text_encoder", self.recipe.text_encoder),
        ):
            made_by = Path(run) / MADE_BY
            if made_by.exists():
                shutil.copy(made_by, folder / part / MADE_BY)
        write_references(folder, self.things)

    def _velocity(
        self,
        features: Float[Tensor, "b m d"],
        mask: Int[Tensor, "b m"],
        grid: tuple[int, int],
        points: Float[Tensor, "b c rows cols"],
        times: Float[Tensor, " b"],
    ) -> Float[Tensor, "b out rows cols"]:
        rows, cols = grid
        return self.module(
            points,
            times,
            features,
            mask,
            cross_attention_kwargs={"base_sequence_length": self._tokens(USUAL_SIDE, USUAL_SIDE)},
            rope=RopeScaling(linear=(rows * cols) ** 0.5 / USUAL_SIDE),
            return_dict=False,
            attend=plain_attend,
            attend_text=plain_attend,
        )[0]

    def _tokens(self, rows: int, cols: int) -> int:
        return rows * cols // self.module.patch_size**2

    def _pipeline(self) -> LuminaPipeline:
        return LuminaPipeline(
            self.module,
            FlowMatchEulerDiscreteScheduler(),
            self.vae,
            self.text_encoder,
            self.tokenizer,
        )

    def _caption(self, size: Size, index: int, rng: np.random.Generator) -> str:
        if rng.random() < self.recipe.caption_dropout:
            return ""
        return draw_caption(self.briefs[size][index], rng, foreign=self.recipe.foreign)

    def _draw_briefs(self, size: Size) -> list[Brief]:
        rng = np.random.default_rng((self.recipe.seed, 4, *size))
        pairs = self.recipe.pairs
        return [draw_brief(rng, self.things, pairs=pairs) for _ in range(self.scenes[size])]

    def _make_unseen(self) -> Latents:
        size = self.sizes[0]
        rng = np.random.default_rng((self.recipe.seed, 8, *size))
        briefs = [
            draw_brief(rng, self.things, pairs=self.recipe.pairs) for _ in range(UNSEEN_SCENES)
        ]
        data = self._encode_scenes(briefs, size, rng).float()
        captions = [draw_caption(brief, rng, foreign=self.recipe.foreign) for brief in briefs]
        tokens = self.tokenizer(
            captions, padding=True, pad_to_multiple_of=TOKENS_MULTIPLE, return_tensors="pt"
        )
        noise = torch.randn(data.shape, generator=torch.Generator().manual_seed(self.recipe.seed))
        times = (torch.arange(len(data)) + 0.5) / len(data)
        return Latents(data, noise, times, tokens["input_ids"], tokens["attention_mask"])

    @torch.no_grad()
    def _encode(self, size: Size) -> Float[Tensor, "n c rows cols"]:
        """Latents of all scenes of a size, kept in the run's folder."""
        weights = Path(self.recipe.autoencoder) / "diffusion_pytorch_model.safetensors"
        asked = json.dumps([self.things, self.recipe.pairs]).encode()
        key = hashlib.sha256(weights.read_bytes() + asked).hexdigest()
        name = (
            f"latents-{size.width}x{size.height}-{self.scenes[size]}-{self.recipe.seed}-{key[:12]}"
        )
        path = Path(self.recipe.out) / f"{name}.safetensors"
        if path.exists():
            return load_file(path)["latents"]
        rng = np.random.default_rng((self.recipe.seed, 5, *size))
        latents = self._encode_scenes(self.briefs[size], size, rng)
        partial = path.with_suffix(".partial")
        save_file({"latents": latents}, partial)
        partial.replace(path)
        return latents

    @torch.no_grad()
    def _encode_scenes(
        self, briefs: list[Brief], size: Size, rng: np.random.Generator
    ) -> Float[Tensor, "n c rows cols"]:
        parts = []
        for start in range(0, len(briefs), ENCODED_AT_ONCE):
            some = briefs[start : start + ENCODED_AT_ONCE]
            pixels = to_pixels([np.asarray(paint(stage(brief, rng), size)) for brief in some])
            parts.append(self.vae.encode(pixels.to(self.vae.device)).latent_dist.mean.half().cpu())
        return torch.cat(parts).contiguous()


def _read_as_float32(config: Path) -> None:
    """Make transformers load a model as diffusers loads the others where no dtype is asked for.

    Else features come in the dtype of the file, and diffusers' transformer refuses them.
    """
    settings = json.loads(config.read_text())
    config.write_text(json.dumps(settings | {"dtype": "float32"}, indent=2) + "\n")


def _share(scenes: int, sizes: list[Size]) -> dict[Size, int]:
    """How many scenes each size gets, by how often it comes up."""
    return {size: max(1, scenes * sizes.count(size) // len(sizes)) for size in dict.fromkeys(sizes)}
