"""What turns media into latents and texts into features, and keeps both in a cache."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from transformers import AutoTokenizer

from lumina.checkpoints.text_encoder import load_text_encoder
from lumina.devices import pick_device
from lumina.encoders.text import FEATURE_LAYER, encode_texts
from lumina.modalities import find_modality
from lumina.settings import setting
from lumina.training.data.buckets import Placed
from lumina.training.data.cache import Cache, Entry
from lumina.training.data.decoding import BrokenPictureError
from lumina.training.data.hashing import latents_key, model_key, text_key

LATENTS, TEXTS = "latents", "texts"
"""Folders of a cache."""


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """What to compute with, and where the results are kept."""

    cache: str = setting("", "folder that the results are kept in")
    modality: str = setting("image", "what is encoded")
    autoencoder: str = setting("", "folder of the autoencoder, where there is one")
    text_encoder: str = setting("", "folder of the text encoder")
    tokenizer: str = setting("", "folder of its tokenizer")
    max_tokens: int = setting(256, "where longer texts are cut", ge=1, unit="tokens")
    dtype: str = setting("float16", "type of the numbers kept", choices=("float16", "float32"))
    device: str = setting("auto", "where to compute: auto, cpu, cuda ...")
    batch_size: int = setting(64, "media or texts computed in a row and kept in one file", ge=1)
    readers: int = setting(4, "media that are read at a time", ge=1)


class Outcome(NamedTuple):
    """What became of one medium or text.

    Args:
        key: Name of the result in the cache; "" where there is none.
        is_new: Whether it was computed now.
        reason: Why there is none.
    """

    key: str
    is_new: bool = False
    reason: str = ""


class Outcomes(NamedTuple):
    """What became of those of one batch, in order, and how many entries were damaged."""

    each: list[Outcome]
    damaged: int


class LatentsEncoder:
    """Mean and spread of the latents of media, by the autoencoder of their modality.

    They are as the autoencoder gives them: not multiplied by its scaling factor.

    Args:
        encoding: What to compute with.

    Raises:
        LuminaError: If the autoencoder is not there, or the cache cannot be made.
    """

    def __init__(self, encoding: Encoding):
        self._encoding = encoding
        folder = Path(encoding.autoencoder)
        self._model_key = model_key(folder) if encoding.autoencoder else encoding.modality
        self._cache = Cache(Path(encoding.cache) / LATENTS)
        self._codec = find_modality(encoding.modality).open(folder, pick_device(encoding.device))

    def __call__(self, batch: Sequence[Placed]) -> Outcomes:
        """Compute what the cache lacks for media of one size.

        Raises:
            LuminaError: If the cache cannot be written.
        """
        damaged = self._cache.damaged
        with ThreadPoolExecutor(self._encoding.readers) as pool:
            outcomes = list(pool.map(self._name, batch))
            named = zip(outcomes, batch, strict=True)
            missing = {
                outcome.key: placed
                for outcome, placed in named
                if outcome.key and self._cache.read(outcome.key) is None
            }
            opened = dict(zip(missing, pool.map(_open, missing.values()), strict=True))
        media = {key: found for key, found in opened.items() if isinstance(found, np.ndarray)}
        broken = {key: found for key, found in opened.items() if isinstance(found, str)}
        if media:
            self._cache.write(dict(self._encode(media)))
        self._cache.tidy()
        each = [_after(outcome, new=media, broken=broken) for outcome in outcomes]
        return Outcomes(each, self._cache.damaged - damaged)

    def _name(self, placed: Placed) -> Outcome:
        try:
            digest = placed.example.medium.digest()
        except BrokenPictureError as error:
            return Outcome("", reason=str(error))
        return Outcome(
            latents_key(digest, placed.crop, model=self._model_key, dtype=self._encoding.dtype)
        )

    def _encode(self, media: dict[str, np.ndarray]) -> Iterator[tuple[str, Entry]]:
        dtype = getattr(torch, self._encoding.dtype)
        means, spreads = (part.to(dtype).cpu() for part in self._codec.encode([*media.values()]))
        for key, mean, spread in zip(media, means, spreads, strict=True):
            yield key, {"mean": mean, "std": spread}


class TextsEncoder:
    """Features of texts, without padding, by a text encoder.

    Args:
        encoding: What to compute with.

    Raises:
        LuminaError: If the text encoder is not there, or the cache cannot be made.
    """

    def __init__(self, encoding: Encoding):
        self._encoding = encoding
        folder, tokenizer = Path(encoding.text_encoder), Path(encoding.tokenizer)
        self._model_key = model_key(folder, tokenizer)
        self._device = pick_device(encoding.device)
        self._cache = Cache(Path(encoding.cache) / TEXTS)
        self._tokenizer = AutoTokenizer.from_pretrained(tokenizer)
        model: Any = load_text_encoder(folder, dtype=torch.float32)
        self._model = model.eval().to(self._device)

    def __call__(self, batch: Sequence[str]) -> Outcomes:
        """Compute what the cache lacks for some texts.

        Raises:
            LuminaError: If the cache cannot be written.
        """
        damaged = self._cache.damaged
        keys = {text: self.key_of(text) for text in batch}
        missing = [text for text, key in keys.items() if self._cache.read(key) is None]
        if missing:
            self._cache.write({keys[text]: entry for text, entry in self._encode(missing)})
        self._cache.tidy()
        new = set(missing)
        each = [Outcome(keys[text], text in new) for text in batch]
        return Outcomes(each, self._cache.damaged - damaged)

    def key_of(self, text: str) -> str:
        """Name of the features of a text in the cache."""
        return text_key(
            text,
            model=self._model_key,
            max_tokens=self._encoding.max_tokens,
            layer=FEATURE_LAYER,
            dtype=self._encoding.dtype,
        )

    @torch.no_grad()
    def _encode(self, texts: list[str]) -> Iterator[tuple[str, Entry]]:
        features, mask = encode_texts(
            texts,
            self._tokenizer,
            self._model,
            max_tokens=self._encoding.max_tokens,
            device=self._device,
        )
        dtype = getattr(torch, self._encoding.dtype)
        for text, row, counts in zip(
            texts, features.to(dtype).cpu(), mask.bool().cpu(), strict=True
        ):
            yield text, {"features": row[counts]}


def draw_latents(entry: Entry, generator: torch.Generator | None) -> Float[Tensor, "c *grid"]:
    """Latents of a cached medium, in float32.

    Args:
        entry: What the cache has of it.
        generator: Draws from their spread; without it they are the mean.
    """
    mean = entry["mean"].float()
    if generator is None:
        return mean
    return mean + entry["std"].float() * torch.randn(mean.shape, generator=generator)


def _open(placed: Placed) -> np.ndarray | str:
    """What there is to encode, or why there is nothing."""
    try:
        return placed.read()
    except BrokenPictureError as error:
        return str(error)


def _after(outcome: Outcome, *, new: dict[str, np.ndarray], broken: dict[str, str]) -> Outcome:
    """The outcome of a medium after what was missing has been computed."""
    if outcome.key in broken:
        return Outcome("", reason=broken[outcome.key])
    return outcome._replace(is_new=outcome.key in new)
