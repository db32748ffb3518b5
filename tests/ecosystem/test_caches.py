import pytest
import torch
from diffusers import (
    FasterCacheConfig,
    FirstBlockCacheConfig,
    MagCacheConfig,
    PyramidAttentionBroadcastConfig,
    SeaCacheConfig,
    TaylorSeerCacheConfig,
    TextKVCacheConfig,
)

from lumina import FlagDiT, LuminaError, LuminaPipeline, NextDiT
from lumina.nn.attention import Kernel

STEPS = 8
TINY = {
    "sample_size": 8,
    "hidden_size": 48,
    "num_layers": 3,
    "num_attention_heads": 6,
    "num_kv_heads": 2,
    "multiple_of": 16,
    "cross_attention_dim": 32,
}


def make_model(kind=NextDiT, **config):
    return randomise(kind(**TINY | config))


def randomise(model):
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.1)
    return model


def sample(model, *, seed=0, stop=STEPS):
    """Follow the flow in even steps, with a prompt that the seed stands for."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, 4, 8, 8, generator=generator)
    text = torch.randn(2, 5, 32, generator=generator)
    for step in range(stop):
        time = torch.tensor(step / STEPS)
        model.time = time
        with torch.no_grad(), model.step_context(step, steps=STEPS, time=time):
            velocity = model(x, time.expand(2), text).sample[:, :4]
        x = x + velocity / STEPS
    return x


def pyramid(model, **ranges):
    """Attention is computed at every second step, between the times that diffusers names."""
    return PyramidAttentionBroadcastConfig(
        **ranges, current_timestep_callback=lambda: 1000 * (1 - model.time.item())
    )


RATIOS = [1.0] + [0.99] * (STEPS - 1)
CACHES = {
    "first block": lambda _: FirstBlockCacheConfig(threshold=1.0),
    "mag": lambda _: MagCacheConfig(threshold=0.5, num_inference_steps=STEPS, mag_ratios=RATIOS),
    "sea": lambda _: SeaCacheConfig(threshold=100.0),
    "taylor": lambda _: TaylorSeerCacheConfig(
        cache_interval=3, disable_cache_before_step=2, taylor_factors_dtype=torch.float32
    ),
    "taylor lite": lambda _: TaylorSeerCacheConfig(cache_interval=3, use_lite_mode=True),
    "pyramid, tokens": lambda model: pyramid(model, spatial_attention_block_skip_range=2),
    "pyramid, text": lambda model: pyramid(model, cross_attention_block_skip_range=2),
}
WITHOUT_EFFECT = {
    "first block": lambda: FirstBlockCacheConfig(threshold=0.0),
    "mag": lambda: MagCacheConfig(
        threshold=0.0, num_inference_steps=STEPS, mag_ratios=[1.0] * STEPS
    ),
    "sea": lambda: SeaCacheConfig(threshold=0.0),
    "taylor": lambda: TaylorSeerCacheConfig(cache_interval=1),
}


@pytest.mark.parametrize("kind", [NextDiT, FlagDiT])
@pytest.mark.parametrize("name", list(WITHOUT_EFFECT))
def test_a_cache_that_may_skip_nothing_changes_no_bit(kind, name):
    model = make_model(kind)
    expected = sample(model)
    model.enable_cache(WITHOUT_EFFECT[name]())
    assert torch.equal(sample(model), expected)


@pytest.mark.parametrize("kind", [NextDiT, FlagDiT])
@pytest.mark.parametrize("name", list(CACHES))
def test_a_cache_forgets_a_sample_before_the_next(kind, name):
    expected = []
    for seed in (1, 2):
        model = make_model(kind)
        model.enable_cache(CACHES[name](model))
        expected.append(sample(model, seed=seed))
    sample(model, seed=3, stop=STEPS // 2)  # as if interrupted
    assert torch.equal(sample(model, seed=1), expected[0])
    assert torch.equal(sample(model, seed=2), expected[1])


@pytest.mark.parametrize("kind", [NextDiT, FlagDiT])
@pytest.mark.parametrize("name", list(CACHES))
def test_a_cache_changes_the_sample_until_it_is_disabled(kind, name):
    model = make_model(kind)
    expected = sample(model)
    model.enable_cache(CACHES[name](model))
    found = sample(model)
    assert not torch.equal(found, expected)
    assert found.isfinite().all()
    model.disable_cache()
    assert torch.equal(sample(model), expected)


def count_blocks(model):
    calls = []
    for block in model.layers:
        block.feed_forward.register_forward_pre_hook(lambda *_: calls.append(1))
    sample(model)
    return len(calls)


@pytest.mark.parametrize("name", [name for name in CACHES if "pyramid" not in name])
def test_a_cache_leaves_out_blocks(name):
    model = make_model()
    model.enable_cache(CACHES[name](model))
    assert count_blocks(model) < 0.8 * STEPS * len(model.layers)


@pytest.mark.parametrize("attention", ["tokens", "text"])
def test_pyramid_attention_leaves_out_attention(attention):
    model, calls = make_model(), []

    class Counting(Kernel):
        def __call__(self, *arguments, **named):
            calls.append(1)
            return super().__call__(*arguments, **named)

    for block in model.layers:
        (block.attn1 if attention == "tokens" else block.attn2).set_processor(Counting())
    model.enable_cache(CACHES[f"pyramid, {attention}"](model))
    sample(model)
    assert len(calls) < 0.8 * STEPS * len(model.layers)


def test_a_pipeline_forgets_a_picture_that_failed(tiny_folder):
    def draw(**named):
        generator = torch.Generator().manual_seed(5)
        return pipeline(
            "a cat", num_inference_steps=6, generator=generator, output_type="latent", **named
        ).images

    def fail(pipeline, step, timestep, tensors):
        if step == 3:
            raise RuntimeError("enough")
        return tensors

    def stop(pipeline, step, timestep, tensors):
        pipeline._interrupt = step == 3
        return tensors

    pipeline = LuminaPipeline.from_pretrained(tiny_folder)
    randomise(pipeline.transformer)
    exact = draw()
    pipeline.transformer.enable_cache(FirstBlockCacheConfig(threshold=0.5))
    expected = draw()
    assert not torch.equal(expected, exact)
    with pytest.raises(RuntimeError, match="enough"):
        draw(callback_on_step_end=fail)
    assert torch.equal(draw(), expected)
    draw(callback_on_step_end=stop)
    assert torch.equal(draw(), expected)


@pytest.mark.parametrize("name", [name for name in CACHES if "pyramid" not in name])
@torch.no_grad()
def test_a_cache_begins_again_where_guidance_ends_or_begins(tiny_folder, name):
    def change(pipeline, step, timestep, tensors):
        pipeline._guidance_scale = 1.0 if step in (3, 4) else 4.0
        return tensors

    pipeline = LuminaPipeline.from_pretrained(tiny_folder)
    model, calls = randomise(pipeline.transformer), []
    model.register_forward_hook(lambda *call: calls.append(call[1:]), with_kwargs=True)
    model.enable_cache(CACHES[name](model))
    latents = pipeline(
        "a cat",
        guidance_scale=4.0,
        num_inference_steps=STEPS,
        output_type="latent",
        callback_on_step_end=change,
    ).images
    assert len(latents) == 1
    model.disable_cache()
    for arguments, named, found in (calls[4], calls[6]):
        assert torch.equal(model(*arguments, **named)[0], found[0])


@pytest.mark.parametrize(
    ("config", "layers", "reason"),
    [
        (
            FasterCacheConfig(current_timestep_callback=lambda: 0),
            3,
            "half of a batch.*hint: use First",
        ),
        (TextKVCacheConfig(), 3, "kept from step to step without it"),
        (FirstBlockCacheConfig(), 1, "needs 2 blocks or more, and the model has 1"),
    ],
)
def test_a_cache_that_cannot_work_is_refused_and_leaves_the_model_as_it_was(config, layers, reason):
    model = make_model(num_layers=layers)
    expected = sample(model)
    with pytest.raises(LuminaError, match=f"(?s){reason}"):
        model.enable_cache(config)
    assert not model.is_cache_enabled
    assert torch.equal(sample(model), expected)
