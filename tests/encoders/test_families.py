"""Decoder-only language models of several families, read by name."""

import logging

import pytest
import torch
from transformers import AutoModel, GemmaConfig, LlamaConfig, Qwen3Config

import lumina
from lumina.encoders.text import encode_texts
from lumina.pipelines.text_to_image import LuminaPipeline

SHAPE = {
    "vocab_size": 300,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "pad_token_id": 0,
    "bos_token_id": 1,
}
FAMILIES = {"gemma": GemmaConfig, "llama": LlamaConfig, "qwen": Qwen3Config}
TEXTS = ["a cat", "a very long dog on a sofa", ""]


@pytest.fixture(params=FAMILIES)
def family(request, tmp_path):
    """A folder with a random model of a family, as `save_pretrained` writes it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoModel.from_config(FAMILIES[request.param](**SHAPE)).save_pretrained(tmp_path)
    return tmp_path


@pytest.fixture
def encoder(family):
    return AutoModel.from_pretrained(family).eval()


@pytest.fixture
def tokenizer(tiny_folder):
    return lumina.load(tiny_folder, dtype="float32", device="cpu").tokenizer


@pytest.mark.parametrize("layer", [-1, -2])
@pytest.mark.parametrize("side", ["left", "right"])
@torch.no_grad()
def test_features_are_those_of_the_text_alone_whatever_stands_beside_it(
    encoder, tokenizer, side, layer
):
    tokenizer.padding_side = side
    features, mask = encode_texts(TEXTS, tokenizer, encoder, max_tokens=64, layer=layer)
    for text, found, counts in zip(TEXTS, features, mask, strict=True):
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        alone = encoder(ids, output_hidden_states=True).hidden_states[layer][0]
        torch.testing.assert_close(found[counts == 1], alone, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_the_last_layer_is_what_the_model_returns_as_such(encoder, tokenizer):
    features, mask = encode_texts(["a cat"], tokenizer, encoder, max_tokens=64, layer=-1)
    ids = torch.tensor([tokenizer("a cat")["input_ids"]])
    last = encoder(ids).last_hidden_state[0]
    torch.testing.assert_close(features[0][mask[0] == 1], last, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_the_tokenizer_may_ask_for_fewer_tokens(encoder, tokenizer, caplog):
    tokenizer.model_max_length = 6
    with caplog.at_level(logging.WARNING):
        features, _ = encode_texts(["a long text"], tokenizer, encoder, max_tokens=64)
    assert features.shape[1] == 6
    assert "at most 6 tokens" in caplog.text


def test_settings_of_the_text_are_saved_with_the_checkpoint(tiny_folder, encoder, tmp_path):
    parts = dict(lumina.load(tiny_folder, dtype="float32", device="cpu").components)
    parts["tokenizer"].padding_side = "right"
    parts["tokenizer"].model_max_length = 40
    settings = {"text_layer": -1, "prompt_template": "Draw this: {prompt}"}
    pipeline = LuminaPipeline(**parts | {"text_encoder": encoder} | settings)
    pipeline.save_pretrained(tmp_path / "own")
    loaded = LuminaPipeline.from_pretrained(tmp_path / "own")
    assert type(loaded.text_encoder) is type(encoder)
    assert (loaded.tokenizer.padding_side, loaded.tokenizer.model_max_length) == ("right", 40)
    assert {name: loaded.config[name] for name in settings} == settings
    for one, other in zip(
        loaded.encode_prompt("a cat"), pipeline.encode_prompt("a cat"), strict=True
    ):
        torch.testing.assert_close(one, other)


@torch.no_grad()
def test_a_template_is_put_around_prompts_and_leaves_empty_ones_empty(tiny_folder):
    parts = dict(lumina.load(tiny_folder, dtype="float32", device="cpu").components)
    plain = LuminaPipeline(**parts)
    templated = LuminaPipeline(**parts, prompt_template="draw: {prompt}")
    features, mask, away, away_mask = templated.encode_prompt("a cat")
    expected, counts, _, _ = plain.encode_prompt("draw: a cat")
    torch.testing.assert_close(features[mask == 1], expected[counts == 1])
    _, _, empty, empty_counts = plain.encode_prompt("a cat")
    torch.testing.assert_close(away[away_mask == 1], empty[empty_counts == 1])


def test_a_template_without_a_place_for_the_prompt_is_refused(tiny_folder):
    parts = dict(lumina.load(tiny_folder, dtype="float32", device="cpu").components)
    with pytest.raises(ValueError, match="prompt_template"):
        LuminaPipeline(**parts, prompt_template="draw a cat")


def test_usual_settings_leave_the_index_as_diffusers_writes_it(tiny_folder):
    index = (tiny_folder / "model_index.json").read_text()
    assert "text_layer" not in index
    assert "prompt_template" not in index
