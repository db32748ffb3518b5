"""What a flow is trained under: captions as tokens or features, or classes."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import AutoTokenizer

from lumina.checkpoints.text_encoder import load_text_encoder
from lumina.encoders.text import FEATURE_LAYER, TOKENS_MULTIPLE, tokenize
from lumina.errors import LuminaError
from lumina.pipelines.assembly import text_encoder_folder, tokenizer_folder
from lumina.training.data.cache import Cache, Entry
from lumina.training.data.feed import Draw
from lumina.training.recipes import FlowRecipe


class Tokens(NamedTuple):
    """Captions as a text encoder takes them."""

    ids: Int[Tensor, "b m"]
    mask: Int[Tensor, "b m"]


class Features(NamedTuple):
    """Captions as a text encoder gave them."""

    features: Float[Tensor, "b m d"]
    mask: Int[Tensor, "b m"]


Condition = Tokens | Features | Tensor
"""Of a batch: captions, or numbers of classes."""


class Conditions:
    """Makes the condition of a batch, and what the network takes of it.

    Args:
        recipe: Of the run.
        classes: How many the network knows. None: it reads captions.
        texts: Features of all captions. None: they are computed when they are needed.
        text_keys: Names of the features.
    """

    def __init__(
        self,
        recipe: FlowRecipe,
        *,
        classes: int | None,
        texts: Cache | None,
        text_keys: Mapping[str, str],
    ):
        self._classes, self._texts, self._text_keys = classes, texts, text_keys
        self._encoder: Any = None
        if not recipe.text_encoder:
            return
        self._tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder(recipe.text_encoder))
        self._max_tokens = min(recipe.max_tokens, self._tokenizer.model_max_length)
        if not recipe.cache_texts:
            folder = text_encoder_folder(recipe.text_encoder)
            self._encoder = load_text_encoder(folder, dtype=torch.float32).eval()
            self._encoder.requires_grad_(False)

    def to(self, device: torch.device) -> None:
        """Move the text encoder, if there is one."""
        if self._encoder is not None:
            self._encoder.to(device)

    def make(self, draws: Sequence[Draw]) -> Condition:
        """The condition of a batch."""
        if self._classes is not None:
            left_out = self._classes
            labels = [left_out if d.is_dropped else d.placed.example.label for d in draws]
            return torch.tensor(labels)
        captions = [draw.caption for draw in draws]
        if self._texts is not None:
            keys = [self._text_keys[caption] for caption in captions]
            return _pad([read_entry(self._texts, key)["features"] for key in keys])
        return Tokens(*tokenize(captions, self._tokenizer, max_tokens=self._max_tokens))

    def arguments(self, condition: Condition) -> dict[str, Any]:
        """The condition as arguments of the network."""
        if isinstance(condition, Tensor):
            return {"class_labels": condition}
        if isinstance(condition, Tokens):
            condition = Features(self._encode(condition), condition.mask)
        return {"encoder_hidden_states": condition.features, "encoder_mask": condition.mask}

    @torch.no_grad()
    def _encode(self, tokens: Tokens) -> Float[Tensor, "b m d"]:
        states = self._encoder(
            tokens.ids, attention_mask=tokens.mask, output_hidden_states=True, use_cache=False
        )
        return states.hidden_states[FEATURE_LAYER]


def read_entry(cache: Cache, key: str) -> Entry:
    """An entry that was there when the run began.

    Raises:
        LuminaError: If it is there no more.
    """
    entry = cache.read(key)
    if entry is None:
        raise LuminaError(
            "an entry of the cache was lost or damaged after the run began",
            hint="start the run again: it computes what is missing and goes on",
        )
    return entry


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
