"""Text features from a decoder-only language model of transformers."""

import logging
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel, PreTrainedTokenizerBase

_log = logging.getLogger(__name__)

TOKENS_MULTIPLE = 8
"""Texts are padded to a multiple of this, so that few lengths occur (diffusers' choice)."""

PLACE = "{prompt}"
"""Where a prompt template has the prompt."""

FEATURE_LAYER = -2
"""Lumina checkpoints are trained on what enters the last layer, before the final norm."""


def encode_texts(
    texts: list[str],
    tokenizer: PreTrainedTokenizerBase,
    text_encoder: PreTrainedModel,
    *,
    max_tokens: int,
    layer: int = FEATURE_LAYER,
    device: torch.device | str | None = None,
) -> tuple[Float[Tensor, "b m d"], Int[Tensor, "b m"]]:
    """Encode texts to features, all padded to one length.

    Args:
        texts: Any number of texts. One that occurs several times is encoded once.
        tokenizer: It decides on which side texts are padded.
        text_encoder: Any causal model that can return its hidden states.
        max_tokens: Where longer texts are cut, with a warning that shows what is lost. They are
            cut sooner where the tokenizer's own `model_max_length` is less.
        layer: Which hidden states the features are: -1 for those after the last layer and its
            norm, -2 for those before both.
        device: Where the features are computed and stay.

    Returns:
        The features, in the dtype of the text encoder, and a mask that is 1 where they count.
    """
    different = list(dict.fromkeys(texts))
    max_tokens = min(max_tokens, tokenizer.model_max_length)
    _warn_of_cuts(different, tokenizer, max_tokens=max_tokens)
    ids, mask = tokenize(different, tokenizer, max_tokens=max_tokens)
    ids, mask = ids.to(device), mask.to(device)
    states = text_encoder(ids, attention_mask=mask, output_hidden_states=True, use_cache=False)
    features = states.hidden_states[layer].to(device, text_encoder.dtype)
    order = torch.tensor([different.index(text) for text in texts], device=features.device)
    return features[order], mask[order]


def fill_template(template: str, text: str) -> str:
    """A text as a prompt template has it; an empty text, which asks for nothing, stays empty."""
    return template.replace(PLACE, text) if text else text


def pad_features(
    features: Float[Tensor, "b m d"], mask: Shaped[Tensor, "b m"], tokens: int
) -> tuple[Float[Tensor, "b padded d"], Shaped[Tensor, "b padded"]]:
    """Lengthen features to a number of tokens, with tokens that do not count."""
    missing = tokens - features.shape[1]
    return functional.pad(features, (0, 0, 0, missing)), functional.pad(mask, (0, missing))


def tokenize(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, *, max_tokens: int
) -> tuple[Int[Tensor, "b m"], Int[Tensor, "b m"]]:
    """Numbers of tokens as a text encoder takes them, and a mask that is 1 where they count."""
    longest = max(1, *_count_tokens(texts, tokenizer))
    rounded = -(-longest // TOKENS_MULTIPLE) * TOKENS_MULTIPLE
    tokens = tokenizer(
        list(texts),
        padding="max_length",
        max_length=min(rounded, max_tokens),
        truncation=True,
        return_tensors="pt",
    )
    ids, mask = tokens["input_ids"], tokens["attention_mask"]
    # A text without tokens would leave attention nothing to look at: it is read as one padding.
    mask[mask.sum(dim=1) == 0, -1] = 1
    return ids, mask


def _count_tokens(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    return [len(ids) for ids in tokenizer(list(texts), verbose=False)["input_ids"]]


def _warn_of_cuts(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, *, max_tokens: int
) -> None:
    lengths = _count_tokens(texts, tokenizer)
    for text, length in zip(texts, lengths, strict=True):
        if length > max_tokens:
            _warn_of_cut(text, tokenizer, max_tokens=max_tokens, length=length)


def _warn_of_cut(
    text: str, tokenizer: PreTrainedTokenizerBase, *, max_tokens: int, length: int
) -> None:
    words = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    room = max_tokens - (length - len(words))
    _log.warning(
        "The following part of your input was truncated because the text encoder is given"
        " at most %d tokens: %r",
        max_tokens,
        tokenizer.decode(words[room:]),
    )
