"""Text features for the released models of sound and music: CLAP beside T5, or T5 alone.

Every text has 77 tokens for each encoder. Padding is attended to and counts like any other token,
as it did in training.
"""

import re
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional
from transformers import BertConfig, BertModel, PreTrainedModel, PreTrainedTokenizerBase

TOKENS = 77
"""Tokens of a text for each encoder."""


class ClapTextEncoder(ModelMixin, ConfigMixin):
    """The text branch of Microsoft's CLAP: BERT, then a projection of each token.

    Args:
        bert: Arguments of `BertConfig`. None: those of bert-base-uncased, which are its defaults.
        out_width: Width of the features.

    Source:
        CLAP, arXiv:2206.04769, with the weights of 2022; `FrozenCLAPFLANEmbedder` of the original
        code.
    """

    @register_to_config
    def __init__(self, bert: dict[str, Any] | None = None, out_width: int = 1024):
        super().__init__()
        settings = BertConfig(**(bert or {}))
        self.base = BertModel(settings)
        self.projection = Projection(settings.hidden_size, out_width)

    def forward(self, ids: Int[Tensor, "b m"]) -> Float[Tensor, "b m d"]:
        """Return the features of each token."""
        return self.projection(self.base(input_ids=ids).last_hidden_state)


class Projection(nn.Module):
    """A linear layer, then a residual one."""

    def __init__(self, in_width: int, out_width: int):
        super().__init__()
        self.linear1 = nn.Linear(in_width, out_width, bias=False)
        self.linear2 = nn.Linear(out_width, out_width, bias=False)
        self.layer_norm = nn.LayerNorm(out_width)

    def forward(self, x: Float[Tensor, "b m e"]) -> Float[Tensor, "b m d"]:
        """Return the projected tokens."""
        first = self.linear1(x)
        return self.layer_norm(first + self.linear2(functional.gelu(first)))


@torch.no_grad()
def encode_for_music(
    texts: list[str], *, tokenizer: PreTrainedTokenizerBase, encoder: PreTrainedModel
) -> tuple[Float[Tensor, "b m d"], Int[Tensor, "b m"]]:
    """Features for models of music, and a mask by which all tokens count.

    Args:
        texts: Captions.
        tokenizer: That of FLAN-T5 large.
        encoder: The encoder of FLAN-T5 large.
    """
    ids = _tokenize(texts, tokenizer).to(encoder.device)
    features = encoder(input_ids=ids).last_hidden_state
    return features, torch.ones_like(ids)


@torch.no_grad()
def encode_for_sound(
    texts: list[str],
    *,
    clap_tokenizer: PreTrainedTokenizerBase,
    clap: ClapTextEncoder,
    tokenizer: PreTrainedTokenizerBase,
    encoder: PreTrainedModel,
    structured: list[str] | None = None,
) -> tuple[Float[Tensor, "b m d"], Int[Tensor, "b m"]]:
    """Features for models of sound, 154 tokens each, and a mask by which all count.

    Args:
        texts: Captions, which CLAP reads.
        clap_tokenizer: That of bert-base-uncased.
        clap: The text branch of CLAP.
        tokenizer: That of T5 v1.1 large.
        encoder: The encoder of T5 v1.1 large.
        structured: The same as events in time, which T5 reads. None: `structure` makes them.

    Raises:
        ValueError: If there are not as many structured captions as captions.
    """
    structured = [structure(text) for text in texts] if structured is None else structured
    if len(structured) != len(texts):
        raise ValueError(f"{len(texts)} captions, but {len(structured)} structured ones")
    heard = clap(_tokenize(texts, clap_tokenizer).to(clap.device))
    read, mask = encode_for_music(structured, tokenizer=tokenizer, encoder=encoder)
    features = torch.cat([heard, read.to(heard)], dim=1)
    return features, torch.cat([mask, mask], dim=1).to(heard.device)


def structure(text: str) -> str:
    """A caption as events in time: `<a dog barks& start>@<a car passes& end>`.

    The original release asks a language model for them. Here events are what words such as "then"
    and "followed by" stand between; a caption without these is one event that lasts.
    """
    events = [event.strip(" ,.") for event in _AFTER.split(text)]
    events = [event for event in events if event]
    if len(events) < 2:
        return f"<{(events or [''])[0]}& all>"
    places = ["start", *["mid"] * (len(events) - 2), "end"]
    return "@".join(f"<{event}& {place}>" for event, place in zip(events, places, strict=True))


_AFTER = re.compile(r"\b(?:and then|then|followed by|before)\b", re.IGNORECASE)


def _tokenize(texts: list[str], tokenizer: PreTrainedTokenizerBase) -> Int[Tensor, "b 77"]:
    tokens = tokenizer(
        texts, padding="max_length", max_length=TOKENS, truncation=True, return_tensors="pt"
    )
    return tokens["input_ids"]
