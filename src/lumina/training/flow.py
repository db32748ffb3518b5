"""Training of a backbone to turn noise into latents of media, under captions or classes."""

import hashlib
from collections import Counter
from functools import partial
from itertools import chain
from math import prod
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lumina.catalog import find
from lumina.devices import move
from lumina.errors import LuminaError
from lumina.flow.path import flow_loss
from lumina.flow.times import draw_logit_normal, draw_uniform, shift_times
from lumina.media import make_grid
from lumina.modalities import find_modality
from lumina.pipelines.assembly import text_encoder_folder, tokenizer_folder, vae_folder
from lumina.requests.sizes import read_axes
from lumina.training.attending import attend_in_training
from lumina.training.conditions import Conditions, read_entry
from lumina.training.data.dataset import Encoded, Stages, Survey, encode, survey
from lumina.training.data.encoding import Encoding, draw_latents
from lumina.training.data.feed import Batches, Draw
from lumina.training.data.precompute import Runner, run_alone
from lumina.training.data.sources import DrawingsSource
from lumina.training.exporting import Sizes, export, make_pipeline
from lumina.training.prior import with_prior
from lumina.training.recipes import FlowRecipe
from lumina.training.reporting import say
from lumina.training.sharding import ALONE, Share, in_turn, own_share
from lumina.training.starting import make_network
from lumina.worlds.references import write_references
from lumina.worlds.vocabulary import choose_things

NOISE = 24
"""What tells random numbers of noise and times from those of other uses in a run."""

UNSEEN = 64
"""Pictures that validation looks at, at most."""

PREVIEWS = 16


class Samples(NamedTuple):
    """A process's part of a batch.

    Args:
        data: Latents, scaled to about unit spread; a list if sizes differ.
        noise: Of the same shapes.
        times: In [0, 1], where 0 is noise.
        hints: What is known of each besides the text.
        weights: How much each sample counts.
        condition: Captions, or classes.
        count: Samples of this part, for a mean over all parts: their number over that of parts.
    """

    data: Any
    noise: Any
    times: Float[Tensor, " b"]
    hints: Any
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
        self.modality = find_modality(recipe.modality)
        self.encoding = make_encoding(recipe)
        self.module = make_network(recipe, is_shared=own_share().count > 1)
        self.encoded = in_turn(partial(precompute, recipe))
        self.sizes = choose_sizes(recipe, self.encoded.survey)
        if own_share().number == 0:
            say(self.encoded.survey.lines())
        self.latents, texts = self.encoded.open()
        self.stages = make_stages(recipe, self.encoded)
        self.stages.check_shares(own_share(together=recipe.context_parallel).count)
        self.scaling = self.modality.scaling(Path(self.encoding.autoencoder))
        self.conditions = Conditions(
            recipe,
            classes=self.module.config["num_classes"],
            texts=texts,
            text_keys=self.encoded.text_keys,
        )

    @property
    def data_digest(self) -> str:
        """What tells the latents that are trained on, and captions if kept, from any others.

        And what tells the weights that adapters are trained on, which no state of a run has.
        """
        digest = hashlib.sha256()
        if self.recipe.lora_rank:
            digest.update(find(self.recipe.start_from).fingerprint().encode())
        for key in [*chain(*self.encoded.keys), *sorted(self.encoded.text_keys)]:
            digest.update(f"{key}\n".encode())
        return digest.hexdigest()[:16]

    def to(self, device: torch.device) -> None:
        """Move the weights, and what else the loss needs."""
        cast(Any, self.module).to(device)
        self.conditions.to(device)

    def batch(self, number: int, share: Share = ALONE) -> Samples:
        """Latents with fresh captions, noise and times; the same number gives the same ones."""
        draws, count = self.stages.share(number, rank=share.number, world=share.count)
        keys = [self.encoded.keys[draw.source][draw.index] for draw in draws]
        seeds = [(self.recipe.seed, NOISE, number, draw.place) for draw in draws]
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
        by_size: dict[tuple[int, ...], list[int]] = {}
        for number, placed in enumerate(unseen[:UNSEEN]):
            by_size.setdefault(placed.size, []).append(number)
        device = next(self.module.parameters()).device
        errors = [self._errors(move(self._unseen(some), device)) for some in by_size.values()]
        return {"validation": torch.cat(errors).mean().item()}

    @torch.no_grad()
    def preview(self, folder: Path, step: int) -> None:
        """Draw fixed prompts, or classes, from fixed noise."""
        pipeline = make_pipeline(self.recipe, self.module, self.sizes)
        pipeline.set_progress_bar_config(disable=True)
        asked: Any = self._asked()
        media = pipeline(
            asked,
            num_inference_steps=self.recipe.preview_steps,
            guidance_scale=self.recipe.preview_guidance,
            generator=[torch.Generator().manual_seed(seed) for seed in range(len(asked))],
            return_dict=False,
        )[0]
        pictures = [
            self.modality.show(one) if isinstance(one, np.ndarray) else one for one in media
        ]
        make_grid(pictures, [str(one) for one in asked]).save(folder / f"step-{step:06d}.png")

    def export(self, folder: Path) -> None:
        """Write the adapters, or a checkpoint that `lumina.load` and diffusers read."""
        export(self.recipe, self.module, folder, self.sizes)
        is_whole = not self.recipe.lora_rank or self.recipe.lora_merge
        sources = self.encoded.survey.sources
        if is_whole and any(isinstance(source, DrawingsSource) for source in sources):
            write_references(folder, choose_things()[0])

    def _errors(self, batch: Samples) -> Float[Tensor, " b"]:
        velocity = partial(self._velocity, batch)
        return flow_loss(velocity, batch.noise, batch.data, batch.times)

    def _velocity(self, batch: Samples, points: Any, times: Float[Tensor, " b"]) -> Any:
        module: Any = self.module
        attends = dict.fromkeys(("attend", "attend_text"), attend_in_training(module, self.recipe))
        return module(
            self.modality.enter(points, times, batch.hints),
            times,
            return_dict=False,
            **self.conditions.arguments(batch.condition),
            **attends | self.modality.positions(module, points),
        )[0]

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
            self.scaling.scale(draw_latents(read_entry(self.latents, key), g if chance else None))
            for key, g in zip(keys, generators, strict=True)
        ]
        noise = [
            self.modality.draw_noise(latents, generator)
            for latents, generator in zip(found, generators, strict=True)
        ]
        hints: list[Any] = [
            self.modality.draw_hints(latents, generator, draw.caption)
            for latents, generator, draw in zip(found, generators, draws, strict=True)
        ]
        is_packed = self.recipe.shapes == "packed"
        return Samples(
            found if is_packed else torch.stack(found),
            noise if is_packed else torch.stack(noise),
            times,
            None if hints[0] is None else hints if is_packed else torch.stack(hints),
            weights.float(),
            self.conditions.make(draws),
            count,
        )

    def _unseen(self, numbers: list[int]) -> Samples:
        """Pictures of one size that validate; noise, times and captions follow from numbers."""
        survey = self.encoded.survey
        draws, generators = [], []
        for number in numbers:
            placed = survey.unseen[number]
            caption = placed.example.captions.draw(np.random.default_rng((NOISE, number)))
            draws.append(Draw(0, number, placed, caption, False, number))
            generators.append(_generator((NOISE, number)))
        total = min(UNSEEN, len(survey.unseen))
        times = (torch.tensor(numbers) + 0.5) / total
        keys = [self.encoded.unseen_keys[number] for number in numbers]
        ones = torch.ones(len(numbers))
        return self._samples(keys, draws, generators, times, ones, len(numbers))

    def _asked(self) -> list[str] | list[int]:
        if self.recipe.prompts:
            return list(self.recipe.prompts)
        if self.recipe.modality == "image" and not self.recipe.text_encoder:
            return list(range(min(PREVIEWS, self.module.config["num_classes"])))
        captions = (placed.example.captions.every()[0] for placed in self.encoded.survey.everything)
        return list(dict.fromkeys(captions))[:PREVIEWS]


def make_encoding(recipe: FlowRecipe) -> Encoding:
    """What a recipe encodes pictures and captions with, and where it keeps them."""
    text = recipe.text_encoder
    return Encoding(
        cache=recipe.cache or str(Path(recipe.out) / "cache"),
        modality=recipe.modality,
        autoencoder=str(vae_folder(recipe.autoencoder)) if recipe.autoencoder else "",
        text_encoder=str(text_encoder_folder(text)) if text else "",
        tokenizer=str(tokenizer_folder(text)) if text else "",
        max_tokens=recipe.max_tokens,
        device=recipe.device,
    )


def find_data(recipe: FlowRecipe) -> Survey:
    """What a recipe trains and validates on.

    Raises:
        LuminaError: If data are missing, none can be used, one is of an unknown class, or none has
            the usual size.
    """
    found = survey(
        recipe.data,
        modality=recipe.modality,
        crops=recipe.crops,
        validation=recipe.validation,
        classes=recipe.classes,
    )
    choose_sizes(recipe, found)
    return found


def choose_sizes(recipe: FlowRecipe, found: Survey) -> Sizes:
    """The size of what a model makes where none is asked for: as given, or that of most data.

    Of one axis, such as points or the length of a sound, any may be given. And the largest of data.

    Raises:
        LuminaError: If it has other axes than the data, or several and no data have them.
    """
    sizes = Counter[tuple[int, ...]]()
    for placed in found.placed:
        for one in placed:
            sizes[tuple(one.size)] += prod(one.size)
    largest = tuple(max(along) for along in zip(*sizes, strict=True))
    if not recipe.usual_size:
        return Sizes(sizes.most_common(1)[0][0], largest)
    chosen, axes = read_axes(recipe.usual_size), {len(size) for size in sizes}
    if len(chosen) not in axes or (len(chosen) > 1 and chosen not in sizes):
        known = ", ".join("x".join(map(str, size)) for size in sorted(sizes))
        raise LuminaError(
            f"usual_size is {recipe.usual_size}, and no data have it", hint=f"there are {known}"
        )
    return Sizes(chosen, largest)


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


def _generator(seed: tuple[int, ...]) -> torch.Generator:
    state = np.random.SeedSequence(seed).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))
