import pytest
import torch

from lumina.encoders.text import encode_texts, pad_features

pytestmark = pytest.mark.usefixtures("without_gradients")


@pytest.fixture
def without_gradients():
    with torch.no_grad():
        yield


@pytest.fixture
def encode(make_tokenizer, text_encoder):
    def encode(texts, *, tokenizer=None, max_tokens=32):
        return encode_texts(
            texts, tokenizer or make_tokenizer(), text_encoder, max_tokens=max_tokens
        )

    return encode


def test_features_are_what_enters_the_last_layer(encode, text_encoder, make_tokenizer):
    seen = []
    hook = text_encoder.layers[-1].register_forward_pre_hook(
        lambda module, arguments: seen.append(arguments[0])
    )
    features, mask = encode(["a b c"])
    hook.remove()
    assert torch.equal(features, seen[0])
    assert mask.tolist() == [[0, 0, 0, 0, 1, 1, 1, 1]]


def test_lengths_are_multiples_of_eight(encode):
    assert encode([" ".join("abcdefg")])[0].shape == (1, 8, 16)
    assert encode([" ".join("abcdefgh"), "a"])[0].shape == (2, 16, 16)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_does_not_change_the_features_of_a_text(encode, make_tokenizer, side):
    tokenizer = make_tokenizer(side=side)
    alone, alone_mask = encode(["a b c"], tokenizer=tokenizer)
    both, both_mask = encode(["a b c", " ".join("abcdefghijkl")], tokenizer=tokenizer)
    torch.testing.assert_close(
        both[0][both_mask[0].bool()], alone[0][alone_mask[0].bool()], atol=1e-5, rtol=1e-5
    )


def test_a_text_that_occurs_again_is_encoded_once(encode, text_encoder):
    rows = []
    hook = text_encoder.register_forward_pre_hook(
        lambda module, arguments: rows.append(len(arguments[0]))
    )
    features, _ = encode(["a", "", "b", ""])
    hook.remove()
    assert rows == [3]
    assert torch.equal(features[1], features[3])
    assert not torch.equal(features[0], features[2])


@pytest.mark.parametrize("template", ["<bos> $A", "<bos> $A <eos>"])
def test_a_cut_is_said_with_the_words_that_are_lost(encode, make_tokenizer, caplog, template):
    tokenizer = make_tokenizer(template)
    cut = 8 - tokenizer.num_special_tokens_to_add()
    features, _ = encode([" ".join("abcdefghij"), "a"], tokenizer=tokenizer, max_tokens=8)
    assert features.shape[1] == 8
    assert len(caplog.records) == 1
    assert repr(" ".join("abcdefghij"[cut:])) in caplog.text


def test_a_text_that_fits_is_not_warned_of(encode, caplog):
    encode([" ".join("abcdefg")], max_tokens=8)
    assert not caplog.records


def test_a_text_without_tokens_has_one_that_counts(encode, make_tokenizer):
    features, mask = encode(["", "a"], tokenizer=make_tokenizer("$A"))
    assert mask.sum(dim=1).tolist() == [1, 1]
    assert features.isfinite().all()


def test_features_have_the_dtype_of_the_encoder(make_tokenizer, text_encoder):
    features, _ = encode_texts(
        ["a"], make_tokenizer(), text_encoder.to(torch.bfloat16), max_tokens=8
    )
    text_encoder.float()
    assert features.dtype == torch.bfloat16


def test_padded_tokens_do_not_count():
    features, mask = pad_features(torch.ones(2, 3, 4), torch.ones(2, 3, dtype=torch.long), 5)
    assert features.sum(dim=(0, 2)).tolist() == [8, 8, 8, 0, 0]
    assert mask.tolist() == [[1, 1, 1, 0, 0]] * 2
