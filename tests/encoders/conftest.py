import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import GemmaConfig, GemmaModel, PreTrainedTokenizerFast

WORDS = ["<pad>", "<bos>", "<eos>", *"abcdefghijklmnopqrstuvwxyz"]


@pytest.fixture
def make_tokenizer():
    """A tokenizer with one token for each letter that stands alone."""

    def make(template="<bos> $A", side="left"):
        ids = {word: i for i, word in enumerate(WORDS)}
        tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<pad>"))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        tokenizer.post_processor = processors.TemplateProcessing(
            single=template, special_tokens=[("<bos>", 1), ("<eos>", 2)]
        )
        return PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, pad_token="<pad>", padding_side=side
        )

    return make


@pytest.fixture(scope="session")
def text_encoder():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = GemmaConfig(
            vocab_size=len(WORDS),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=3,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=8,
            initializer_range=0.5,
        )
        return GemmaModel(config).eval()
