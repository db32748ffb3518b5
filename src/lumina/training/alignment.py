"""Training of a small text encoder: what do the things that a caption names look like?

The encoder learns this before the flow is trained, because a flow that has to learn words and
drawings at once learns neither in the time that a small machine has.
"""

import json
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float, Int
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers.trainers import BpeTrainer
from torch import Tensor, nn
from transformers import GemmaConfig, GemmaModel, PreTrainedTokenizerFast

from lumina.devices import move
from lumina.encoders.cleaning import clean_caption
from lumina.encoders.text import FEATURE_LAYER
from lumina.training.recipes import AlignmentRecipe
from lumina.training.sharding import ALONE, Share
from lumina.worlds.captions import BACKGROUND, PLACES, RELATIONS, Brief, draw_brief, write
from lumina.worlds.drawings import PALETTE, reference
from lumina.worlds.vocabulary import LANGUAGES, choose_things, names, on_white

BOS, EOS, PAD, UNKNOWN = "<bos>", "<eos>", "<pad>", "<unk>"
LOOK_SIDE = 16  # pixels to a side of the drawings whose looks are told
SLOTS = 2  # things in a caption, at most
NOTHING = -100  # class of a slot that is empty: cross-entropy skips it


class Captions(NamedTuple):
    """Tokens of captions and the classes of what they ask for."""

    ids: Int[Tensor, "b m"]
    mask: Int[Tensor, "b m"]
    things: Int[Tensor, "b slots"]
    background: Int[Tensor, " b"]
    arrangement: Int[Tensor, " b"]


class AlignedEncoder(nn.Module):
    """A Gemma and the heads that read from it, as a Next-DiT would, what a caption means.

    One head reads the average over tokens; one for each thing attends to the tokens.
    """

    def __init__(self, recipe: AlignmentRecipe, things: int):
        super().__init__()
        config = GemmaConfig(
            vocab_size=recipe.vocabulary_size,
            hidden_size=recipe.width,
            intermediate_size=recipe.hidden,
            num_hidden_layers=recipe.depth,
            num_attention_heads=recipe.heads,
            num_key_value_heads=recipe.heads,
            head_dim=recipe.width // recipe.heads,
            max_position_embeddings=256,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=2,
        )
        self.encoder = GemmaModel(config)
        width, looks = recipe.width, recipe.appearance
        self.norm = nn.LayerNorm(width)
        self.query_head = nn.Parameter(torch.randn(SLOTS, width) / width**0.5)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.look_head = nn.Linear(width, looks)
        self.thing_head = nn.Linear(width, things)
        self.mean_look_head = nn.Linear(width, looks)
        self.mean_thing_head = nn.Linear(width, things)
        self.background_head = nn.Linear(width, len(PALETTE) + 1)
        self.arrangement_head = nn.Linear(width, 1 + len(PLACES) + len(RELATIONS))

    def features(self, ids: Tensor, mask: Tensor) -> Float[Tensor, "b m width"]:
        """What pipelines take from the encoder."""
        states = self.encoder(ids, attention_mask=mask, output_hidden_states=True, use_cache=False)
        return states.hidden_states[FEATURE_LAYER]

    def slots(self, features: Tensor, mask: Tensor) -> Float[Tensor, "b slots width"]:
        """What each thing's query finds among the tokens."""
        tokens = F.rms_norm(features, features.shape[-1:])
        scores = self.query_head @ self.key(tokens).mT / features.shape[-1] ** 0.5
        scores = scores.masked_fill(mask[:, None] == 0, float("-inf"))
        return scores.softmax(-1) @ self.value(tokens)

    def mean(self, features: Tensor, mask: Tensor) -> Float[Tensor, "b width"]:
        """Average over the tokens that count."""
        weights = mask[..., None].to(features.dtype)
        return self.norm((features * weights).sum(1) / weights.sum(1))


class AlignmentObjective:
    """Tell from a caption its things, their looks, the background and the arrangement."""

    def __init__(self, recipe: AlignmentRecipe):
        self.recipe = recipe
        self.things, _ = choose_things()
        self.number = {emoji: i for i, emoji in enumerate(self.things)}
        self.tokenizer = train_tokenizer(_corpus(self.things), recipe.vocabulary_size)
        self.looks = describe_looks(self.things, recipe.appearance)
        self.module = AlignedEncoder(recipe, len(self.things))
        self.last_layer = set(self.module.encoder.layers[-1].parameters())
        for weight in self.last_layer:  # pipelines read what enters it
            weight.requires_grad_(False)

    def batch(self, number: int, share: Share = ALONE) -> Captions:
        """Random captions; three steps of four take names alone, which are short."""
        rng = np.random.default_rng((self.recipe.seed, 2, number))
        is_short = number % 4 != 0
        briefs = [self._brief(rng, is_short) for _ in range(self.recipe.batch_size)]
        foreign = self.recipe.languages_weight
        texts = [draw_caption(brief, rng, foreign=foreign) for brief in briefs]
        return share.take(self._pack(briefs, texts))

    def loss(self, batch: Captions, step: int) -> tuple[Tensor, dict[str, float]]:
        """Cross-entropies of the classes, and the squared error of the looks."""
        module = self.module
        features = module.features(batch.ids, batch.mask)
        slots, mean = module.slots(features, batch.mask), module.mean(features, batch.mask)
        first = batch.things[:, 0]
        is_thing = batch.things != NOTHING
        looks = self.looks.to(batch.things.device)[batch.things.clamp_min(0)]
        guesses = module.thing_head(slots)
        losses = {
            "thing": F.cross_entropy(guesses.flatten(0, 1), batch.things.flatten()),
            "mean_thing": F.cross_entropy(module.mean_thing_head(mean), first),
            "look": F.mse_loss(module.look_head(slots)[is_thing], looks[is_thing]),
            "mean_look": F.mse_loss(module.mean_look_head(mean), looks[:, 0]),
            "background": F.cross_entropy(module.background_head(mean), batch.background),
            "arrangement": F.cross_entropy(module.arrangement_head(mean), batch.arrangement),
        }
        figures: dict[str, float] = {name: value.item() for name, value in losses.items()}
        figures["top1"] = (guesses[:, 0].argmax(-1) == first).float().mean().item()
        return cast(Tensor, sum(losses.values())), figures

    def to(self, device: torch.device) -> None:
        """Move the weights, and what else the loss needs."""
        self.module.to(device)

    def validate(self) -> dict[str, float]:
        """Nothing: the previews show how far the run is."""
        return {}

    @torch.no_grad()
    def preview(self, folder: Path, step: int) -> None:
        """Write how many names of each language are understood."""
        found = {}
        for language in LANGUAGES:
            briefs = [Brief((emoji,)) for emoji in self.things]
            texts = [clean_caption(write(brief, language, with_article=False)) for brief in briefs]
            batch = move(self._pack(briefs, texts), next(self.module.parameters()).device)
            features = self.module.features(batch.ids, batch.mask)
            guess = self.module.thing_head(self.module.slots(features, batch.mask))[:, 0]
            found[language] = (guess.argmax(-1) == batch.things[:, 0]).float().mean().item()
        (folder / f"names-{step:06d}.json").write_text(json.dumps(found, indent=2) + "\n")

    def export(self, folder: Path) -> None:
        """Write the encoder and its tokenizer as transformers reads them."""
        self.module.encoder.save_pretrained(folder / "text_encoder")
        self.tokenizer.save_pretrained(folder / "tokenizer")

    def _brief(self, rng: np.random.Generator, is_short: bool) -> Brief:
        if is_short:
            return Brief((self.things[rng.integers(len(self.things))],))
        return draw_brief(rng, self.things)

    def _pack(self, briefs: list[Brief], texts: list[str]) -> Captions:
        tokens = self.tokenizer(texts, padding=True, return_tensors="pt")
        slots = [[self.number[emoji] for emoji in brief.things] for brief in briefs]
        return Captions(
            tokens["input_ids"],
            tokens["attention_mask"],
            torch.tensor([row + [NOTHING] * (SLOTS - len(row)) for row in slots]),
            torch.tensor([[None, *PALETTE].index(brief.background) for brief in briefs]),
            torch.tensor(
                [[None, *PLACES, *RELATIONS].index(b.place or b.relation) for b in briefs]
            ),
        )


def draw_caption(brief: Brief, rng: np.random.Generator, *, foreign: float) -> str:
    """Random caption of a brief, cleaned as the pipeline cleans prompts.

    Args:
        brief: What it asks for.
        rng: Source of chance.
        foreign: Share of captions in other languages than English, where they can say it.
    """
    others = [language for language in brief.languages if language != "en"]
    language = "en"
    if others and rng.random() < foreign:
        language = others[rng.integers(len(others))]
    return clean_caption(write(brief, language, with_article=bool(rng.random() < 0.6)))


def train_tokenizer(texts: list[str], size: int) -> PreTrainedTokenizerFast:
    """Byte-pair tokenizer that starts texts with a mark and spells the unknown in bytes.

    Args:
        texts: What to learn it from.
        size: Tokens, with the 4 special ones and the 256 bytes.
    """
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token=UNKNOWN, fuse_unk=True))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    special = [BOS, EOS, PAD, UNKNOWN, *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = BpeTrainer(
        vocab_size=size,
        special_tokens=special,
        limit_alphabet=size - len(special),  # by default every letter is taken, over the size
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.decoder = decoders.Sequence(
        [decoders.ByteFallback(), decoders.Metaspace(), decoders.Fuse()]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, 0)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        unk_token=UNKNOWN,
        padding_side="right",
        model_max_length=256,
    )


def describe_looks(things: list[str], numbers: int) -> Float[Tensor, "things numbers"]:
    """Main components of small drawings on white and of their outlines, of unit spread."""
    drawings = np.stack([reference(emoji, LOOK_SIDE) for emoji in things])
    outlines = drawings[..., 3:].astype(np.float32) / 255
    flat = np.concatenate([on_white(drawings), outlines], -1).reshape(len(things), -1)
    centered = torch.from_numpy(flat - flat.mean(0))
    left, spread, _ = torch.linalg.svd(centered, full_matrices=False)
    looks = left[:, :numbers] * spread[:numbers]
    return looks / looks.std()


def _corpus(things: list[str]) -> list[str]:
    """Every name once, and the words around them often enough to become tokens."""
    texts = []
    for language in LANGUAGES:
        called = names(language)
        texts += [clean_caption(called[emoji]) for emoji in things]
    frames = []
    for color in PALETTE:
        frames += [
            clean_caption(write(Brief((emoji,), color), language))
            for emoji in things[:2]
            for language in BACKGROUND
        ]
        frames += [clean_caption(write(Brief((emoji,), color), "en")) for emoji in things[:30]]
    for arrangement in (*PLACES, *RELATIONS):
        for emoji, other in zip(things[:60], things[60:120], strict=True):
            brief = (
                Brief((emoji,), None, arrangement)
                if arrangement in PLACES
                else Brief((emoji, other), relation=arrangement)
            )
            frames.append(clean_caption(write(brief, "en")))
    return texts + frames
