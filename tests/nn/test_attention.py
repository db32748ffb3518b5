import math

import pytest
import torch
from diffusers.models.attention_dispatch import attention_backend

from lumina.nn.attention import (
    FEW_KEYS,
    Attention,
    float32_attend,
    fused_attend,
    plain_attend,
    proportional_scale,
)


def plain_attention(query, key, value, *, mask=None, scale):
    """Softmax attention, written out."""
    repeats = query.shape[2] // key.shape[2]
    key, value = (x.repeat_interleave(repeats, dim=2) for x in (key, value))
    scores = torch.einsum("bnhk,bmhk->bhnm", query, key) * scale
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    return torch.einsum("bhnm,bmhk->bnhk", scores.softmax(-1), value)


@pytest.mark.parametrize("kv_heads", [1, 2, 6])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("attend", [fused_attend, plain_attend, float32_attend])
def test_attention_equals_its_formula(attend, kv_heads, masked):
    torch.manual_seed(0)
    query = torch.randn(2, 7, 6, 8)
    key, value = torch.randn(2, 2, 5, kv_heads, 8)
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]).bool()[:, None, None]
    mask = mask if masked else None
    expected = plain_attention(query, key, value, mask=mask, scale=0.3)
    torch.testing.assert_close(attend(query, key, value, mask=mask, scale=0.3), expected)


@pytest.mark.parametrize("keys", [7, FEW_KEYS + 1])
def test_attention_of_training_works_in_float32_whatever_comes_in(keys):
    chance = torch.Generator().manual_seed(0)
    query = torch.randn(2, 7, 4, 8, generator=chance)
    key, value = torch.randn(2, 2, keys, 4, 8, generator=chance)
    expected = fused_attend(query.bfloat16().float(), key.bfloat16().float(), value)
    with torch.autocast("cpu", torch.bfloat16):
        values = float32_attend(query.bfloat16(), key.bfloat16(), value)
    torch.testing.assert_close(values, expected)


def test_the_chosen_backend_is_the_one_that_runs():
    query = torch.randn(1, 4, 2, 8)
    # A kernel that the CPU does not have
    with attention_backend("_native_cudnn"), pytest.raises(RuntimeError, match="No viable backend"):
        fused_attend(query, query, query)


def test_keys_are_those_of_the_source():
    attention = Attention(16, heads=4, kv_heads=2, source_width=6)
    key, value = attention.key_value(torch.randn(3, 5, 6))
    assert key.shape == value.shape == (3, 5, 2, 4)


def test_the_scale_grows_with_the_tokens_of_training_as_base():
    assert proportional_scale(16, tokens=64, base=None) == 0.25
    assert proportional_scale(16, tokens=64, base=64) == 0.25
    assert proportional_scale(16, tokens=64**2, base=64) == pytest.approx(0.25 * math.sqrt(2))


def test_a_base_of_one_token_is_refused():
    with pytest.raises(ValueError, match="must be above 1, got 1"):
        proportional_scale(16, tokens=64, base=1)
