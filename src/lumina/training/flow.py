"""Training of a backbone to turn noise into latents of pictures, under captions or classes."""

import copy
import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from peft import get_peft_model_state_dict
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer

from lumina.backbones.flag_dit import FlagDiT
from lumina.checkpoints.folder import read_config
from lumina.devices import move
from lumina.encoders.text import FEATURE_LAYER, TOKENS_MULTIPLE
from lumina.errors import LuminaError
from lumina.flow.path import flow_loss
from lumina.flow.times import draw_logit_normal, draw_uniform, shift_times
from lumina.media import make_grid
from lumina.nn.attention import plain_attend
from lumina.nn.extrapolation import UNSCALED, RopeScaling
from lumina.pipelines.assembly import (
    assemble,
    text_encoder_folder,
    tokenizer_folder,
    vae_folder,
)
from lumina.pipelines.text_to_image import LuminaPipeline
from lumina.training.data.cache import Cache
from lumina.training.data.dataset import Encoded, Stages, Survey, encode, survey
from lumina.training.data.encoding import Encoding, draw_latents
from lumina.training.data.feed import Batches, Draw
from lumina.training.data.precompute import Runner, run_alone
from lumina.training.data.sources import DrawingsSource
from lumina.training.prior import with_prior
from lumina.training.recipes import MADE_BY, FlowRecipe
from lumina.training.reporting import say
from lumina.training.sharding import ALONE, Share, in_turn, own_share
from lumina.training.starting import make_network
from lumina.types import Size
from lumina.worlds.references import write_references
from lumina.worlds.vocabulary import choose_things

NOISE = 24
"""What tells random numbers of noise and times from those of other uses in a run."""

UNSEEN = 64
"""Pictures that validation looks at, at most."""

PREVIEWS = 16
FEW_TOKENS = 256
"""Up to so many, plain attention is faster on a CPU than the fused kernel."""


class Tokens(NamedTuple):
    """Captions as a text encoder takes them."""

    ids: Int[Tensor, "b m"]
    mask: Int[Tensor, "b m"]


class Features(NamedTuple):
    """Captions as a text encoder gave them."""

    features: Float[Tensor, "b m d"]
    mask: Int[Tensor, "b m"]


class Samples(NamedTuple):
    """A process's part of a batch.

    Args:
        data: Latents, scaled to about unit spread; a list if sizes differ.
        noise: Of the same shapes.
        times: In [0, 1], where 0 is noise.
        weights: How much each sample counts.
        condition: Captions, or classes.
        count: Samples of this part, for a mean over all parts: their number over that of parts.
    """

    data: Any
    noise: Any
    times: Float[Tensor, " b"]
    weights: Float[Tensor, " b"]
    condition: Any
    count: float


class FlowObjective:
    """Match the velocity from noise to cached latents.

    Positions and attention are scaled at each size as the pipeline does it.
    """

    def __init__(self, recipe: FlowRecipe):
        recipe = with_prior(recipe)
        self.recipe = recipe
        self.encoding = make_encoding(recipe)
        self.module = make_network(recipe, is_shared=own_share().count > 1)
        self.encoded = in_turn(partial(precompute, recipe))
        if own_share().number == 0:
            say(self.encoded.survey.lines())
        self.latents, self.texts = self.encoded.open()
        self.stages = make_stages(recipe, self.encoded)
        self.scaling = LatentScaling.of(recipe)
        self.text_encoder: Any = None
        if recipe.text_encoder:
            self.tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder(recipe.text_encoder))
            if not recipe.cache_texts:
                folder = text_encoder_folder(recipe.text_encoder)
                self.text_encoder = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
                self.text_encoder.requires_grad_(False)

    def to(self, device: torch.device) -> None:
        """Move the weights, and what else the loss needs."""
        cast(Any, self.module).to(device)
        if self.text_encoder is not None:
            self.text_encoder.to(device)

    def batch(self, number: int, share: Share = ALONE) -> Samples:
        """Latents with fresh captions, noise and times; the same number gives the same ones."""
        draws, count = self.stages.share(number, rank=share.number, world=share.count)
        keys = [self.encoded.keys[draw.source][draw.index] for draw in draws]
        seeds = [(self.recipe.seed, NOISE, number, draw.source, draw.index) for draw in draws]
        generators = [_generator(seed) for seed in seeds]
        times = torch.cat([self._draw_time(generator) for generator in generators])
        weights = [self._weight(draw) for draw in draws]
        return self._samples(
            keys, draws, generators, times, torch.tensor(weights), count / share.count
        )

    def loss(self, batch: Samples, step: int) -> tuple[Tensor, dict[str, float]]:
        """Mean squared error of the velocity."""
        errors = self._errors(batch)
        loss = (errors * batch.weights).sum() / batch.count
        return loss, {"samples": len(batch.times)}

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Loss on pictures that no step sees, with noise and times that are always the same."""
        unseen = self.encoded.survey.unseen
        if not unseen:
            return {}
        by_size: dict[Size, list[int]] = {}
        for number, placed in enumerate(unseen[:UNSEEN]):
            by_size.setdefault(placed.crop.size, []).append(number)
        device = next(self.module.parameters()).device
        errors = [self._errors(move(self._unseen(some), device)) for some in by_size.values()]
        return {"validation": torch.cat(errors).mean().item()}

    @torch.no_grad()
    def preview(self, folder: Path, step: int) -> None:
        """Draw fixed prompts, or classes, from fixed noise."""
        pipeline = self._pipeline()
        pipeline.set_progress_bar_config(disable=True)
        asked: Any = self._asked()
        pictures = pipeline(
            asked,
            num_inference_steps=self.recipe.preview_steps,
            guidance_scale=self.recipe.preview_guidance,
            generator=[torch.Generator().manual_seed(seed) for seed in range(len(asked))],
        ).images
        make_grid(pictures, [str(one) for one in asked]).save(folder / f"step-{step:06d}.png")

    def export(self, folder: Path) -> None:
        """Write the adapters, or a checkpoint that `lumina.load` and diffusers read."""
        dtype = getattr(torch, self.recipe.save_dtype)
        if self.recipe.lora_rank and not self.recipe.lora_merge:
            self._export_adapters(folder, dtype)
            return
        module = copy.deepcopy(self.module)
        if self.recipe.lora_rank:
            module.fuse_lora()
            module.unload_lora()
        pipeline = self._pipeline(module)
        for part in pipeline.components.values():
            if isinstance(part, nn.Module):
                nn.Module.to(part, dtype)  # diffusers' own would warn, of nothing
        pipeline.save_pretrained(folder)
        if self.recipe.text_encoder:
            _read_as_float32(folder / "text_encoder" / "config.json")
        self._tell_origins(folder)

    def _tell_origins(self, folder: Path) -> None:
        """Put beside each part what made it, and beside a model of drawings how they look."""
        origins = {"vae": vae_folder(self.recipe.autoencoder)}
        if self.recipe.text_encoder:
            origins["text_encoder"] = text_encoder_folder(self.recipe.text_encoder)
        for part, origin in origins.items():
            # A run keeps what made it beside the folders of its parts.
            for made_by in (origin / MADE_BY, origin.parent / MADE_BY):
                if made_by.exists():
                    shutil.copy(made_by, folder / part / MADE_BY)
                    break
        if any(isinstance(source, DrawingsSource) for source in self.encoded.survey.sources):
            write_references(folder, choose_things()[0])

    def _export_adapters(self, folder: Path, dtype: torch.dtype) -> None:
        module: Any = self.module
        weights = get_peft_model_state_dict(module)
        (settings,) = module.peft_config.values()
        LuminaPipeline.save_lora_weights(
            folder,
            transformer_lora_layers={name: weight.to(dtype) for name, weight in weights.items()},
            transformer_lora_adapter_metadata=settings.to_dict(),
        )

    def _errors(self, batch: Samples) -> Float[Tensor, " b"]:
        velocity = partial(self._velocity, batch)
        return flow_loss(velocity, batch.noise, batch.data, batch.times)

    def _velocity(self, batch: Samples, points: Any, times: Float[Tensor, " b"]) -> Any:
        condition, extra = batch.condition, {}
        if isinstance(condition, Tokens):
            condition = Features(self._encode(condition), condition.mask)
        if isinstance(condition, Features):
            texts: Any = condition
            condition = {"encoder_hidden_states": texts.features, "encoder_mask": texts.mask}
            extra = self._positions(points)
        else:
            condition = {"class_labels": condition}
        attend = self._attend(points)
        module: Any = self.module
        return module(
            points,
            times,
            return_dict=False,
            attend=attend,
            attend_text=attend,
            **condition,
            **extra,
        )[0]

    def _positions(self, points: Any) -> dict[str, Any]:
        """How the pipeline scales positions and attention at a size.

        Pictures of several sizes in one batch have positions as they are.
        """
        side = self.module.config["sample_size"]
        if isinstance(points, list) or isinstance(self.module, FlagDiT):
            return {"rope": UNSCALED}
        rows, cols = points.shape[-2:]
        base = (side // self.module.config["patch_size"]) ** 2
        return {
            "rope": RopeScaling(linear=(rows * cols) ** 0.5 / side),
            "cross_attention_kwargs": {"base_sequence_length": base},
        }

    def _attend(self, points: Any) -> Any:
        """Plain attention for a few tokens on a CPU; else the kernel that is set."""
        is_shared = self.recipe.context_parallel > 1
        if is_shared or isinstance(points, list) or points.device.type != "cpu":
            return None
        tokens = points[0, 0].numel() // self.module.config["patch_size"] ** 2
        return plain_attend if tokens <= FEW_TOKENS else None

    @torch.no_grad()
    def _encode(self, tokens: Tokens) -> Float[Tensor, "b m d"]:
        states = self.text_encoder(
            tokens.ids, attention_mask=tokens.mask, output_hidden_states=True, use_cache=False
        )
        return states.hidden_states[FEATURE_LAYER]

    def _draw_time(self, generator: torch.Generator) -> Float[Tensor, "1"]:
        recipe = self.recipe
        if recipe.times == "uniform":
            times = draw_uniform(1, generator=generator)
        else:
            times = draw_logit_normal(
                1, mean=recipe.time_mean, spread=recipe.time_spread, generator=generator
            )
        return shift_times(times, recipe.time_shift)

    def _weight(self, draw: Draw) -> float:
        source = self.encoded.survey.sources[draw.source]
        return draw.placed.example.loss_weight * source.loss_weight

    def _samples(
        self,
        keys: list[str],
        draws: list[Draw],
        generators: list[torch.Generator],
        times: Float[Tensor, " b"],
        weights: Float[Tensor, " b"],
        count: float,
    ) -> Samples:
        chance = self.recipe.sample_latents
        found = [
            self.scaling.scale(draw_latents(_read(self.latents, key), g if chance else None))
            for key, g in zip(keys, generators, strict=True)
        ]
        noise = [
            torch.randn(latents.shape, generator=generator)
            for latents, generator in zip(found, generators, strict=True)
        ]
        is_packed = self.recipe.shapes == "packed"
        return Samples(
            found if is_packed else torch.stack(found),
            noise if is_packed else torch.stack(noise),
            times,
            weights.float(),
            self._condition(draws),
            count,
        )

    def _condition(self, draws: list[Draw]) -> Any:
        if not self.recipe.text_encoder:
            return torch.tensor([_label(draw, self.module.config["num_classes"]) for draw in draws])
        captions = [draw.caption for draw in draws]
        if self.texts is None:
            tokens = self.tokenizer(
                captions,
                padding=True,
                pad_to_multiple_of=TOKENS_MULTIPLE,
                truncation=True,
                max_length=min(self.recipe.max_tokens, self.tokenizer.model_max_length),
                return_tensors="pt",
            )
            return Tokens(tokens["input_ids"], tokens["attention_mask"])
        keys = [self.encoded.text_keys[caption] for caption in captions]
        return _pad([_read(self.texts, key)["features"] for key in keys])

    def _unseen(self, numbers: list[int]) -> Samples:
        """Pictures of one size that validate; noise, times and captions follow from numbers."""
        survey = self.encoded.survey
        draws, generators = [], []
        for number in numbers:
            placed = survey.unseen[number]
            caption = placed.example.captions.draw(np.random.default_rng((NOISE, number)))
            draws.append(Draw(0, number, placed, caption, False))
            generators.append(_generator((NOISE, number)))
        total = min(UNSEEN, len(survey.unseen))
        times = (torch.tensor(numbers) + 0.5) / total
        keys = [self.encoded.unseen_keys[number] for number in numbers]
        ones = torch.ones(len(numbers))
        return self._samples(keys, draws, generators, times, ones, len(numbers))

    def _asked(self) -> list[str] | list[int]:
        if not self.recipe.text_encoder:
            return list(range(min(PREVIEWS, self.module.config["num_classes"])))
        if self.recipe.prompts:
            return list(self.recipe.prompts)
        captions = (placed.example.captions.every()[0] for placed in self.encoded.survey.everything)
        return list(dict.fromkeys(captions))[:PREVIEWS]

    def _pipeline(self, module: Any = None) -> Any:
        module = self.module if module is None else module
        pipeline = assemble(
            module,
            text_encoder=self.recipe.text_encoder or None,
            vae=self.recipe.autoencoder,
        )
        if module.device.type != "cpu":
            pipeline.to(module.device)
        return pipeline


class LatentScaling(NamedTuple):
    """From latents as an autoencoder gives them to those that a flow is trained on."""

    shift: float
    factor: float

    @classmethod
    def of(cls, recipe: FlowRecipe) -> "LatentScaling":
        """What the autoencoder's settings say."""
        config = read_config(vae_folder(recipe.autoencoder))
        return cls(config.get("shift_factor") or 0.0, config.get("scaling_factor") or 1.0)

    def scale(self, latents: Float[Tensor, "c rows cols"]) -> Float[Tensor, "c rows cols"]:
        """Latents of about unit spread."""
        return (latents - self.shift) * self.factor


def make_encoding(recipe: FlowRecipe) -> Encoding:
    """What a recipe encodes pictures and captions with, and where it keeps them."""
    text = recipe.text_encoder
    return Encoding(
        cache=recipe.cache or str(Path(recipe.out) / "cache"),
        autoencoder=str(vae_folder(recipe.autoencoder)),
        text_encoder=str(text_encoder_folder(text)) if text else "",
        tokenizer=str(tokenizer_folder(text)) if text else "",
        max_tokens=recipe.max_tokens,
        device=recipe.device,
    )


def find_data(recipe: FlowRecipe) -> Survey:
    """What a recipe trains and validates on.

    Raises:
        LuminaError: If data are missing, or none can be used.
    """
    return survey(recipe.data, crops=recipe.crops, validation=recipe.validation)


def precompute(recipe: FlowRecipe, run: Runner = run_alone) -> Encoded:
    """Find the data of a recipe and fill its cache.

    Raises:
        LuminaError: If data or models are missing, or the cache cannot be written.
    """
    with_texts = bool(recipe.text_encoder) and recipe.cache_texts
    return encode(find_data(recipe), make_encoding(recipe), with_texts=with_texts, run=run)


def make_stages(recipe: FlowRecipe, encoded: Encoded) -> Stages:
    """The batches of a run."""
    return Stages(
        encoded.survey,
        make_batches(recipe),
        total=recipe.steps * recipe.accumulate,
        seed=recipe.seed,
    )


def make_batches(recipe: FlowRecipe) -> Batches:
    """How examples come together in a batch."""
    return Batches(
        batch_size=recipe.batch_size,
        shapes=recipe.shapes,
        multiple=recipe.batch_multiple,
        caption_dropout=recipe.caption_dropout,
    )


def _read(cache: Cache, key: str) -> dict[str, Tensor]:
    entry = cache.read(key)
    if entry is None:
        raise LuminaError(
            "an entry of the cache was lost or damaged after the run began",
            hint="start the run again: it computes what is missing and goes on",
        )
    return entry


def _generator(seed: tuple[int, ...]) -> torch.Generator:
    state = np.random.SeedSequence(seed).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))


def _label(draw: Draw, classes: int) -> int:
    label = draw.placed.example.label
    if label is None or not 0 <= label < classes:
        raise LuminaError(
            f"{draw.placed.example.key} has the class {label}, not one of 0 to {classes - 1}",
            hint="set classes, or a text_encoder to train on captions",
        )
    return classes if draw.is_dropped else label


def _pad(features: list[Float[Tensor, "_ d"]]) -> Features:
    """Features of captions of any length as one batch."""
    longest = max(len(one) for one in features)
    padded = -(-longest // TOKENS_MULTIPLE) * TOKENS_MULTIPLE
    batch = torch.zeros(len(features), padded, features[0].shape[-1])
    mask = torch.zeros(len(features), padded, dtype=torch.int64)
    for number, one in enumerate(features):
        batch[number, : len(one)] = one.float()
        mask[number, : len(one)] = 1
    return Features(batch, mask)


def _read_as_float32(config: Path) -> None:
    """Make transformers load a model as diffusers loads the others where no dtype is asked for.

    Else features come in the dtype of the file, and diffusers' transformer refuses them.
    """
    settings = json.loads(config.read_text())
    config.write_text(json.dumps(settings | {"dtype": "float32"}, indent=2) + "\n")
