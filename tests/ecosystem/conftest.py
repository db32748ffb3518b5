"""Networks and a pipeline whose every weight has an effect, at tiny sizes."""

import pytest
import torch

from lumina import FlagDiT, LuminaPipeline, NextDiT

TINY = {
    "sample_size": 8,
    "hidden_size": 48,
    "num_layers": 2,
    "num_attention_heads": 6,
    "num_kv_heads": 2,
    "multiple_of": 16,
    "cross_attention_dim": 16,
}


def randomise(model):
    """Move every weight off its initial value, with both queries of each block equal."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.2)
    model.share_queries()
    return model.eval()


@pytest.fixture(params=[NextDiT, FlagDiT])
def network(request):
    """Either network, with random weights."""
    return randomise(request.param(**TINY))


@pytest.fixture(params=[NextDiT, FlagDiT])
def deep_network(request):
    """The same with more blocks."""
    return randomise(request.param(**TINY | {"num_layers": 6}))


@pytest.fixture
def next_dit():
    """A Next-DiT with random weights."""
    return randomise(NextDiT(**TINY))


@pytest.fixture(params=["time", "space", "both"])
def mixture(request):
    """A Next-DiT with more experts than the tokens of `run` can choose."""
    return randomise(NextDiT(**TINY, moe_routing=request.param, num_experts=80))


@pytest.fixture
def pipeline(tiny_folder, next_dit):
    """A pipeline for 64x64 pixels around that Next-DiT."""
    pipeline = LuminaPipeline.from_pretrained(tiny_folder, transformer=next_dit)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture
def run():
    """What a network makes of fixed inputs."""

    def run(model, dtype=torch.float32):
        generator = torch.Generator().manual_seed(1)
        latents = torch.randn(2, 4, 8, 8, generator=generator).to(model.device, dtype)
        text = torch.randn(2, 5, 16, generator=generator).to(model.device, dtype)
        times = torch.tensor([0.2, 0.9]).to(model.device)
        with torch.no_grad():
            return model(latents, times, text).sample.float()

    return run


@pytest.fixture
def draw():
    """Sample latents from a seed in two steps."""

    def draw(pipeline, prompt="a red apple"):
        generator = torch.Generator().manual_seed(7)
        return pipeline(
            prompt, num_inference_steps=2, output_type="latent", generator=generator
        ).images

    return draw
