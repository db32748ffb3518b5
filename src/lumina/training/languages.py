"""Training of a text encoder so that a caption of any language acts as the English one does.

A network that was trained on English captions knows what its media look like; what it lacks are
other words for it. So nothing is made here: adapters of the text encoder learn that a caption makes
each block add what its English translation makes it add, and that it shifts the condition alike.
What a block adds depends on what its tokens ask for: on queries, which are taken from samples that
the model makes of English captions.

Source:
    A student that learns sentences of other languages from a teacher of English is from Making
    Monolingual Sentence Embeddings Multilingual using Knowledge Distillation, arXiv:2004.09813. It
    compares whole sentences, by one vector each. A network that attends to tokens reads no such
    vector, and tokens of two languages do not match one by one: so here it is what is read of them
    that is compared.
"""

import copy
import hashlib
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn

from lumina.catalog import Checkpoint, find, load
from lumina.checkpoints.difference import add_difference, difference_of, save_difference
from lumina.checkpoints.folder import (
    DIFFERENCE,
    MADE_BY,
    PIPELINES,
    read_index,
    variant_of,
    weight_files,
)
from lumina.devices import move
from lumina.encoders.cleaning import clean_caption
from lumina.encoders.text import FEATURE_LAYER, PLACE, tokenize
from lumina.errors import LuminaError
from lumina.media import make_grid
from lumina.nn.attention import plain_attend
from lumina.training.recipes import LanguagesRecipe
from lumina.training.sharding import ALONE, Share
from lumina.training.translations import Draw, captions_of_file, captions_of_world
from lumina.worlds import find_world

SAMPLES_AT_ONCE = 8
"""How many samples are made together whose queries are kept."""

KEPT = 256
"""Queries of each block that are kept of each evaluation of the network."""

UNSEEN = 256
"""Captions that validation looks at."""

MOST_TOKENS = 256
"""Where longer captions are cut."""


class Translations(NamedTuple):
    """Tokens of captions, and of what English says instead of each."""

    ids: Int[Tensor, "b m"]
    mask: Int[Tensor, "b m"]
    english_ids: Int[Tensor, "b e"]
    english_mask: Int[Tensor, "b e"]
    queries: Int[Tensor, "b _"]
    """Which queries to compare them by: those of the first row; all have the same."""


class LanguagesObjective:
    """Have each block add under a caption what it adds under the English one."""

    def __init__(self, recipe: LanguagesRecipe):
        self.recipe = recipe
        self.checkpoint = find_model(recipe.model)
        if recipe.world:
            self.seen = self.unseen = captions_of_world(recipe.world)
        else:
            self.seen, self.unseen = captions_of_file(Path(recipe.pairs))
        folder = self.checkpoint.folder
        self.pipeline: Any = load(folder, device=recipe.device, dtype="float32")
        self.pipeline.set_progress_bar_config(disable=True)
        _refuse_other_readings(recipe.model, self.pipeline.config)
        self.network = self.pipeline.transformer.requires_grad_(False).eval()
        self.teacher = self.pipeline.text_encoder.requires_grad_(False).eval()
        self.queries = self._gather_queries()
        self.module: Any = adapt(copy.deepcopy(self.teacher), recipe.rank)
        # Of its own, since batches are made beside what else goes on.
        self.tokenizer = copy.deepcopy(self.pipeline.tokenizer)
        rng = np.random.default_rng((recipe.seed, 6))
        unseen = self._translate(self.unseen, rng, UNSEEN)
        self.unseen_batch = move(unseen, self.network.device)
        self.spreads = [spread(one) for one in self._read_english(self.unseen_batch)]

    @property
    def data_digest(self) -> str:
        """What tells the captions and the model that are learned from, from any others."""
        recipe = self.recipe
        of = find_world(recipe.world).digest() if recipe.world else Path(recipe.pairs).read_text()
        whole = f"{self.checkpoint.fingerprint()} {of}"
        return hashlib.sha256(whole.encode()).hexdigest()[:16]

    def to(self, device: torch.device) -> None:
        """Move the weights, and what else the loss needs."""
        self.module.to(device)
        self.pipeline.to(device)
        self.queries = [each.to(device) for each in self.queries]
        self.unseen_batch = move(self.unseen_batch, device)

    def batch(self, number: int, share: Share = ALONE) -> Translations:
        """Random captions, each with its translation."""
        rng = np.random.default_rng((self.recipe.seed, 5, number))
        return share.take(self._translate(self.seen, rng, self.recipe.batch_size))

    def loss(self, batch: Translations, step: int) -> tuple[Tensor, dict[str, float]]:
        """Mean over blocks and the condition of the squared error, in spreads of English ones."""
        queries = self._queries(batch)
        features = features_of(self.module, batch.ids, batch.mask)
        found = readings(self.network, features, batch.mask, queries)
        errors = [
            (one - other).square().mean() / of
            for one, other, of in zip(found, self._read_english(batch), self.spreads, strict=True)
        ]
        return torch.stack(errors).mean(), {"samples": len(batch.ids)}

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """The same for captions that no step sees."""
        return {"validation": self.loss(self.unseen_batch, 0)[0].item()}

    @torch.no_grad()
    def preview(self, folder: Path, step: int) -> None:
        """Make what fixed prompts ask for, from fixed noise."""
        prompts = list(self.recipe.prompts)
        if not prompts:
            return
        self.pipeline.text_encoder = self.module
        try:
            media = self.pipeline(
                prompts,
                generator=[torch.Generator().manual_seed(seed) for seed in range(len(prompts))],
                return_dict=False,
            )[0]
        finally:
            self.pipeline.text_encoder = self.teacher
        pictures = self.pipeline.as_pictures(media)
        make_grid(pictures, prompts).save(folder / f"step-{step:06d}.png")

    def export(self, folder: Path) -> None:
        """Write the model with the text encoder that has learned.

        What makes it differ, where the one before was another model's, and else all of it.
        """
        before, own = self.checkpoint.folder, folder / "text_encoder"
        shutil.copytree(before, folder, dirs_exist_ok=True)
        # What an earlier export has left in the folder is no sign of what the model was like.
        if (before / MADE_BY).exists():
            of = own if (before / "transformer" / MADE_BY).exists() else folder / "transformer"
            (folder / MADE_BY).replace(of / MADE_BY)
        difference = difference_of(self.module, scale=1.0)
        if not (before / "text_encoder").is_dir():
            save_difference(
                own, self.module.config.to_json_string(), difference, dtype=torch.bfloat16
            )
            return
        for file in weight_files(own):
            file.unlink(missing_ok=True)
        whole = copy.deepcopy(self.teacher)
        add_difference(whole, difference, where=folder, origin=self.checkpoint.folder)
        whole.save_pretrained(own, variant=variant_of(self.checkpoint.folder))

    def _queries(self, batch: Translations) -> list[Float[Tensor, "n h k"]]:
        return [each[batch.queries[0]] for each in self.queries]

    @torch.no_grad()
    def _read_english(self, batch: Translations) -> list[Tensor]:
        features = features_of(self.teacher, batch.english_ids, batch.english_mask)
        return readings(self.network, features, batch.english_mask, self._queries(batch))

    def _translate(self, draw: Draw, rng: np.random.Generator, count: int) -> Translations:
        """Captions and translations; English ones are to act as they did."""
        captions, translations = [], []
        for _ in range(count):
            english, others = draw(rng)
            if rng.random() < self.recipe.english:
                captions.append(str(rng.choice(english)))
                translations.append(captions[-1])
            else:
                captions.append(str(rng.choice(others)))
                translations.append(english[0])
        chosen = rng.integers(len(self.queries[0]), size=self.recipe.queries)
        rows = torch.from_numpy(chosen).expand(count, -1)
        return Translations(*self._tokenize(captions), *self._tokenize(translations), rows)

    def _tokenize(self, captions: Sequence[str]) -> tuple[Int[Tensor, "b m"], Int[Tensor, "b m"]]:
        most = min(MOST_TOKENS, self.tokenizer.model_max_length)
        return tokenize(list(map(clean_caption, captions)), self.tokenizer, max_tokens=most)

    @torch.no_grad()
    def _gather_queries(self) -> list[Float[Tensor, "kept h k"]]:
        """What tokens of each block ask texts for, while the model makes samples."""
        generator = torch.Generator().manual_seed(self.recipe.seed)
        found: list[list[Tensor]] = [[] for _ in self.network.layers]

        def record(number: int, query: Tensor, *others: Any, **options: Any) -> Tensor:
            every = query.flatten(0, 1)
            found[number].append(every[torch.randint(len(every), (KEPT,), generator=generator)])
            return plain_attend(query, *others, **options)

        records = [partial(record, number) for number in range(len(found))]
        hook = self.network.register_forward_pre_hook(
            lambda _, given, options: (given, options | {"attend_text": records}),
            with_kwargs=True,
        )
        rng = np.random.default_rng((self.recipe.seed, 7))
        try:
            for _ in range(-(-self.recipe.samples // SAMPLES_AT_ONCE)):
                captions = [str(rng.choice(self.seen(rng).english)) for _ in range(SAMPLES_AT_ONCE)]
                self.pipeline(captions, generator=generator, output_type="latent")
        finally:
            hook.remove()
        return [torch.cat(each) for each in found]


def find_model(name: str) -> Checkpoint:
    """A model whose text encoder can learn.

    Raises:
        LuminaError: If it has none, or its text encoder is a difference already.
    """
    checkpoint = find(name)
    is_whole = not (checkpoint.is_network or checkpoint.is_release)
    kind = read_index(checkpoint.folder)["_class_name"] if is_whole else ""
    if "text_encoder" not in PIPELINES.get(kind, ()):
        raise LuminaError(
            f"{name} is no whole model with a text encoder",
            hint="model names one such as lumina-mini-video, or the folder of a flow run's `last`",
        )
    if (checkpoint.folder / "text_encoder" / DIFFERENCE).is_file():
        raise LuminaError(
            f"the text encoder of {name} has learned languages already",
            hint="name the model as it was before, and give all captions at once",
        )
    return checkpoint


def _refuse_other_readings(name: str, config: Mapping[str, Any]) -> None:
    if (config["text_layer"], config["prompt_template"]) != (FEATURE_LAYER, PLACE):
        raise LuminaError(
            f"{name} reads texts by a text_layer or prompt_template of its own, and what learns"
            " languages does not",
            hint=f'name a model with text_layer {FEATURE_LAYER} and prompt_template "{PLACE}"',
        )


def adapt(encoder: Any, rank: int) -> nn.Module:
    """Put adapters into the layers of a text encoder that what pipelines read goes through."""
    last = f"layers.{len(encoder.layers) - 1}."
    linear = [name for name, one in encoder.named_modules() if isinstance(one, nn.Linear)]
    config = LoraConfig(
        r=rank,
        lora_alpha=rank,
        target_modules=[name for name in linear if not name.startswith(last)],
    )
    return inject_adapter_in_model(config, encoder)


def features_of(
    encoder: Any, ids: Int[Tensor, "b m"], mask: Int[Tensor, "b m"]
) -> Float[Tensor, "b m d"]:
    """What pipelines take from a text encoder."""
    states = encoder(ids, attention_mask=mask, output_hidden_states=True, use_cache=False)
    return states.hidden_states[FEATURE_LAYER]


def readings(
    network: Any,
    features: Float[Tensor, "b m d"],
    mask: Int[Tensor, "b m"],
    queries: Sequence[Float[Tensor, "n h k"]],
) -> list[Float[Tensor, "b _ width"]]:
    """What each block takes from texts for some queries, and what they do to the condition."""
    count = len(features)
    seen = (mask != 0)[:, None, None]
    found = [
        block.read_text(query.expand(count, -1, -1, -1), features, seen)
        for block, query in zip(network.layers, queries, strict=True)
    ]
    time, both = network.time_caption_embed(features.new_zeros(count), features, mask)
    return [*found, (both - time).unsqueeze(1)]


def spread(values: Float[Tensor, "b n d"]) -> float:
    """Mean square of how samples differ from their mean; not quite 0 where they do not."""
    differences = (values - values.mean(0)).square().mean()
    return (differences + 1e-3 * values.square().mean()).item()
