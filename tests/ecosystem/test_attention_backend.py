import copy

import pytest
import torch
from diffusers import attention_backend
from torch.profiler import profile

from lumina import FlagDiT, NextDiT

TINY = {
    "sample_size": 8,
    "hidden_size": 48,
    "num_layers": 2,
    "num_attention_heads": 6,
    "num_kv_heads": 2,
    "multiple_of": 16,
    "cross_attention_dim": 32,
}
FLASH = "aten::_scaled_dot_product_flash_attention_for_cpu"


@pytest.fixture(autouse=True)
def _native_in_the_end():
    yield
    NextDiT(**TINY).set_attention_backend("native")  # which holds for the whole process


@pytest.fixture(params=[NextDiT, FlagDiT])
def model(request):
    torch.manual_seed(0)
    model = request.param(**TINY)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.2)
    return model


def run(model):
    """The output, and how many fused kernels made it."""
    torch.manual_seed(1)
    mask = torch.ones(2, 7)
    mask[1, 4:] = 0
    inputs = torch.randn(2, 4, 8, 12), torch.tensor([0.2, 0.9]), torch.randn(2, 7, 32)
    with torch.no_grad(), profile() as operations:
        sample = model(*inputs, mask).sample
    return sample, sum(event.name == FLASH for event in operations.events())


def test_native_attention_is_one_fused_kernel(model):
    assert run(model)[1] == 4  # to tokens and to text, in each block


@pytest.mark.parametrize("backend", ["_native_math", "flex"])
def test_each_model_uses_the_backend_it_is_set_to(model, backend):
    expected, _ = run(model)
    other = copy.deepcopy(model)
    model.set_attention_backend(backend)
    other.set_attention_backend("native")
    found, fused = run(model)
    assert fused == 0
    torch.testing.assert_close(found, expected)
    assert run(other)[1] == 4
    model.reset_attention_backend()
    assert run(model)[1] == 4


def test_a_context_chooses_the_backend_inside_of_it(model):
    expected, _ = run(model)
    with attention_backend("_native_math"):
        found, fused = run(model)
    assert fused == 0
    torch.testing.assert_close(found, expected)
    assert run(model)[1] == 4


def test_a_backend_without_masks_leaves_masked_text_to_pytorch(model):
    expected, _ = run(model)
    model.set_attention_backend("_native_flash")
    found, fused = run(model)
    assert fused == 4
    torch.testing.assert_close(found, expected)


def test_unknown_backends_are_refused(model):
    with pytest.raises(ValueError, match="backend='fast'"):
        model.set_attention_backend("fast")
    with pytest.raises(ValueError, match="fast"), attention_backend("fast"):
        pass
