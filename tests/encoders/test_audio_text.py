import pytest
import torch
from transformers import T5Config, T5EncoderModel

from lumina.encoders.audio_text import (
    TOKENS,
    ClapTextEncoder,
    encode_for_music,
    encode_for_sound,
    structure,
)

BERT = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
}


@pytest.fixture(scope="module")
def clap():
    torch.manual_seed(0)
    return ClapTextEncoder(bert=BERT, out_width=24).eval()


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(1)
    config = T5Config(
        vocab_size=40, d_model=24, d_ff=32, d_kv=8, num_layers=1, num_heads=2, is_gated_act=True
    )
    return T5EncoderModel(config).eval()


@pytest.fixture
def tokenizer(make_tokenizer):
    return make_tokenizer("$A <eos>", side="right")


def test_sound_reads_both_encoders_side_by_side(clap, encoder, tokenizer):
    parts = {"tokenizer": tokenizer, "encoder": encoder}
    texts, structured = ["a b c", "d"], ["e f", "g h"]
    features, mask = encode_for_sound(
        texts, clap_tokenizer=tokenizer, clap=clap, structured=structured, **parts
    )
    assert features.shape == (2, 2 * TOKENS, 24)
    assert mask.shape == (2, 2 * TOKENS)
    alone, _ = encode_for_music(structured, **parts)
    assert torch.equal(features[:, TOKENS:], alone)


def test_padding_counts_and_is_attended_to(encoder, tokenizer):
    features, mask = encode_for_music(["a b"], tokenizer=tokenizer, encoder=encoder)
    assert mask.all()
    ids = tokenizer(["a b"], return_tensors="pt")["input_ids"]
    with torch.no_grad():
        short = encoder(input_ids=ids).last_hidden_state
    assert not torch.allclose(features[:, : ids.shape[1]], short, atol=1e-3)


def test_a_saved_encoder_is_the_same(clap, tokenizer, tmp_path):
    clap.save_pretrained(tmp_path)
    ids = tokenizer(["a b c"], return_tensors="pt")["input_ids"]
    assert torch.equal(ClapTextEncoder.from_pretrained(tmp_path)(ids), clap(ids))


def test_captions_and_structured_captions_must_be_as_many(clap, encoder, tokenizer):
    with pytest.raises(ValueError, match="1 captions, but 2"):
        encode_for_sound(
            ["a"],
            clap_tokenizer=tokenizer,
            clap=clap,
            tokenizer=tokenizer,
            encoder=encoder,
            structured=["a", "b"],
        )


@pytest.mark.parametrize(
    ("text", "events"),
    [
        ("a dog barks", "<a dog barks& all>"),
        ("a dog barks, then a car passes", "<a dog barks& start>@<a car passes& end>"),
        ("rain followed by thunder and then wind", "<rain& start>@<thunder& mid>@<wind& end>"),
        ("", "<& all>"),
    ],
)
def test_events_follow_each_other_as_the_words_say(text, events):
    assert structure(text) == events
