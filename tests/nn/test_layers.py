import pytest
import torch
from torch import nn

from lumina.nn.layers import (
    ModulatedRMSNorm,
    PatchEmbed,
    RMSNorm,
    TimeTextEmbed,
    feed_forward_width,
    unpatchify,
)


def test_rms_norm_equals_pytorch():
    torch.manual_seed(0)
    norm, reference = RMSNorm(16), nn.RMSNorm(16, eps=1e-5)
    nn.init.normal_(norm.weight)
    reference.weight = norm.weight
    x = torch.randn(2, 5, 16) * 7
    torch.testing.assert_close(norm(x), reference(x))


def test_the_factor_of_a_norm_multiplies_its_result():
    torch.manual_seed(0)
    norm, x, factor = RMSNorm(16), torch.randn(2, 5, 16), torch.randn(2, 1, 16)
    torch.testing.assert_close(norm(x, factor), norm(x) * factor)


@pytest.mark.parametrize("has_weight", [True, False])
@pytest.mark.parametrize("factor_size", [None, (2, 1, 4), (2, 5, 4)])
def test_the_gradients_of_a_norm_are_those_of_its_formula(has_weight, factor_size):
    chance = torch.Generator().manual_seed(0)
    norm = RMSNorm(4, has_weight=has_weight).double()
    x = torch.randn(2, 5, 4, generator=chance, dtype=torch.double, requires_grad=True)
    factor = factor_size and torch.randn(factor_size, generator=chance, dtype=torch.double)
    inputs = [x, *norm.parameters(), *([] if factor is None else [factor.requires_grad_()])]
    torch.autograd.gradcheck(lambda x, *_: norm(x, factor), inputs)


def test_half_precision_norms_are_computed_in_float32():
    x = torch.full((1, 1, 4), 1000.0, dtype=torch.float16)  # its square is beyond float16
    torch.testing.assert_close(RMSNorm(4).half()(x), torch.ones_like(x))


@pytest.mark.parametrize("parts", [4, 6])
def test_modulation_has_a_vector_for_each_part_in_order(parts):
    norm = ModulatedRMSNorm(2, condition_width=3, eps=1e-5, parts=parts)
    nn.init.zeros_(norm.linear.weight)
    norm.linear.bias.data = torch.arange(2.0 * parts)
    modulation = norm.modulation(torch.randn(1, 3))
    assert [part.flatten().tolist() for part in modulation] == [
        [2 * k, 2 * k + 1] for k in range(parts)
    ]


def test_a_norm_without_weights_only_scales():
    norm = RMSNorm(8, has_weight=False)
    x, factor = torch.randn(2, 3, 8), torch.rand(2, 1, 8)
    assert list(norm.parameters()) == []
    torch.testing.assert_close(norm(x, factor), RMSNorm(8)(x) * factor)


def test_patches_keep_their_place():
    embed = PatchEmbed(patch_size=2, channels=1, width=4)
    embed.proj.weight.data = torch.eye(4)
    nn.init.zeros_(embed.proj.bias)
    x = torch.arange(2 * 4 * 6.0).view(2, 1, 4, 6)
    tokens = embed(x)
    assert tokens[0, 1].tolist() == [2, 3, 8, 9]
    torch.testing.assert_close(unpatchify(tokens, patch_size=2, rows=2, cols=3), x)


@pytest.mark.parametrize(
    ("width", "multiple_of", "multiplier", "expected"),
    [(2304, 256, None, 6144), (48, 16, None, 128), (48, 16, 1.5, 192), (256, 256, None, 768)],
)
def test_feed_forward_width_is_that_of_the_checkpoints(width, multiple_of, multiplier, expected):
    found = feed_forward_width(width, multiple_of=multiple_of, multiplier=multiplier)
    assert found == expected


def test_no_weights_of_text_tokens_mean_equal_weights():
    torch.manual_seed(0)
    embed = TimeTextEmbed(8, text_width=6)
    times, text = torch.rand(2), torch.randn(2, 5, 6)
    torch.testing.assert_close(embed(times, text), embed(times, text, torch.full((2, 5), 3.0)))


def test_weights_of_zero_give_the_embedding_of_zero_text():
    embed = TimeTextEmbed(8, text_width=6)
    times, text = torch.rand(2), torch.randn(2, 5, 6)
    expected = embed(times, torch.zeros_like(text))
    torch.testing.assert_close(embed(times, text, torch.zeros(2, 5)), expected)
