"""Draws by processes together, and by each alone: run by `test_parallel.py`.

Imports once, and forks before any computation, which is much faster than to start each process.
"""

import copy
import json
import multiprocessing
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from diffusers import ContextParallelConfig, MagCacheConfig
from torch.distributed.device_mesh import init_device_mesh

import lumina
from lumina import FlagDiT, LuminaPipeline, NextDiT
from lumina.modalities import find_modality
from lumina.modalities.sound.spectral import SpectralVocoder
from lumina.nn.attention import fused_attend
from lumina.nn.ring import RingAttend
from lumina.spelling import VOICES

TINY = {
    "sample_size": 8,
    "hidden_size": 32,
    "num_layers": 2,
    "num_attention_heads": 4,
    "num_kv_heads": 2,
    "multiple_of": 16,
    "cross_attention_dim": 16,
}
STEPS = 6


def make_model(kind=NextDiT, **config):
    return randomise(kind(**TINY | config))


def randomise(model):
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.2)
    return model


def make_inputs(*shapes):
    torch.manual_seed(1)
    data = [torch.randn(4, *shape) for shape in shapes]
    mask = torch.ones(len(data), 6)  # as many as tokens of a process, in some of the cases
    mask[-1, 4:] = 0
    return {
        "hidden_states": torch.stack(data) if len(set(shapes)) == 1 else data,
        "timestep": torch.linspace(0.2, 0.9, len(data)),
        "encoder_hidden_states": torch.randn(len(data), 6, 16),
        "encoder_mask": mask,
        "cross_attention_kwargs": {"base_sequence_length": 7},
    }


EVEN = ((8, 12), (8, 12))
LISTED = ((8, 12), (4, 6))


def distance(found, expected):
    pairs = zip(found, expected, strict=True)
    return max(((a - b).abs().max() / b.abs().max()).item() for a, b in pairs)


def between(model, config, shapes, **named):
    """How far the output of processes is from that of one, where each has its part of the work."""
    inputs = make_inputs(*shapes)
    tokens = []
    model.norm_out.register_forward_pre_hook(lambda _, given: tokens.append(given[0].shape[1]))
    expected = model(**inputs).sample
    shared = copy.deepcopy(model)
    shared.enable_parallelism(config=config)
    found = shared(**inputs, **named).sample
    assert tokens[1] * dist.get_world_size() == tokens[0]
    return distance(found, expected)


def ulysses(world):
    def config(**named):
        return ContextParallelConfig(ulysses_degree=world, **named)

    yield "next_dit", between(make_model(), config(), EVEN)
    yield "flag_dit", between(make_model(FlagDiT), config(), EVEN)
    yield "samples of different sizes", between(make_model(), config(), LISTED)
    yield "mixture of experts", between(make_model(moe_routing="both"), config(), EVEN)
    # Gloo cannot gather parts of different sizes, so the tokens divide here and the heads do not.
    odd = make_model(hidden_size=56, num_attention_heads=7, num_kv_heads=1)
    yield "odd heads", between(odd, config(ulysses_anything=True), EVEN)


def ring(world):
    def config():
        return ContextParallelConfig(ring_degree=world)

    yield "next_dit", between(make_model(), config(), EVEN)
    yield "flag_dit", between(make_model(FlagDiT), config(), EVEN)
    yield "samples of different sizes", between(make_model(), config(), LISTED)
    yield "as an argument", between(make_model(), config(), EVEN, attend=RingAttend())


def ring_alone(world):
    """Of the attention itself: a mask that leaves some processes without any key."""
    torch.manual_seed(2)
    query, key, value = (torch.randn(2, 4 * world, heads, 8) for heads in (4, 2, 2))
    mask = torch.rand(2, 1, 4 * world, 4 * world) < 0.5
    mask[0, ..., 4:] = False
    mask[..., 0] = True
    expected = fused_attend(query, key, value, mask=mask, scale=0.7)
    own = slice(4 * dist.get_rank(), 4 * dist.get_rank() + 4)
    found = RingAttend()(query[:, own], key[:, own], value[:, own], mask=mask[:, :, own], scale=0.7)
    yield "masked", distance([found], [expected[:, own]])


def cached(world):
    """A step cache decides alike for all processes, whichever was enabled first."""

    def draw(model):
        x = torch.randn(2, 4, 8, 12, generator=torch.Generator().manual_seed(3))
        text = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(4))
        for step in range(STEPS):
            time = torch.tensor(step / STEPS)
            with model.step_context(step, steps=STEPS, time=time):
                x = x + model(x, time.expand(2), text).sample[:, :4] / STEPS
        return x

    cache = MagCacheConfig(threshold=1.0, num_inference_steps=STEPS, mag_ratios=[0.99] * STEPS)
    model = make_model()
    exact = draw(model)
    model.enable_cache(cache)
    expected = draw(model)
    assert distance([expected], [exact]) > 1e-3
    model.enable_parallelism(config=ContextParallelConfig(ulysses_degree=world))
    yield "cache, then parallelism", distance([draw(model)], [expected])
    model.disable_cache()
    model.enable_cache(cache)
    yield "parallelism, then cache", distance([draw(model)], [expected])


def guidance(world, folder):
    """Halves of a guided pair on two processes, each of which is two that share the tokens."""

    def draw(**named):
        generator = torch.Generator().manual_seed(7)
        return pipeline(
            "a cat",
            negative_prompt="a dog",
            num_inference_steps=3,
            generator=generator,
            output_type="latent",
            **named,
        ).images

    pipeline = LuminaPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    randomise(pipeline.transformer)
    expected, unguided = draw(), draw(guidance_scale=1.0)
    mesh = init_device_mesh(
        "cpu", (2, 1, world // 2), mesh_dim_names=("guidance", "ring", "ulysses")
    )
    pipeline.enable_guidance_parallelism(mesh["guidance"].get_group())
    if world > 2:
        config = ContextParallelConfig(ulysses_degree=2, ulysses_anything=True, mesh=mesh)
        pipeline.transformer.enable_parallelism(config=config)
    yield "guided", distance([draw()], [expected])
    if world == 2:
        yield "unguided", distance([draw(guidance_scale=1.0)], [unguided])
        yield from guidance_of_media(pipeline)


def guidance_of_media(pipeline):
    """The same of point clouds and of speech."""

    def make(media, words, **named):
        media.set_progress_bar_config(disable=True)
        generator = torch.Generator().manual_seed(7)
        steps = {"num_inference_steps": 3, "generator": generator}
        return torch.from_numpy(media(words, **steps, **named).media[0])

    parts = {name: pipeline.components[name] for name in ("text_encoder", "tokenizer", "scheduler")}
    points = make_model(**find_modality("points").network(Path(), ()))
    sound = find_modality("speech").network(Path(), (64,)) | {"num_classes": len(VOICES)}
    vocoder = randomise(SpectralVocoder(width=16, depth=1, inner_width=16))
    wanted = [
        (lumina.LuminaPointCloudPipeline(points, **parts), "a cat", {"points": 256}),
        (
            lumina.LuminaSpeechPipeline(make_model(FlagDiT, **sound), parts["scheduler"], vocoder),
            "a cat",
            {"negative_prompt": "two dogs", "output_type": "mel"},
        ),
    ]
    for media, words, named in wanted:
        expected = make(media, words, **named)
        media.enable_guidance_parallelism()
        yield type(media).__name__, distance([make(media, words, **named)], [expected])


def work(rank, world, folder, checkpoint):
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store{world}", rank=rank, world_size=world
    )
    cases = {
        "ulysses": ulysses(world),
        "ring": ring(world),
        "ring attention": ring_alone(world),
        "cache": cached(world),
        "guidance": guidance(world, checkpoint),
    }
    with torch.no_grad():
        found = {f"{part}, {name}": error for part in cases for name, error in cases[part]}
    Path(folder, f"{world}-{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


def main(folder, checkpoint):
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    context = multiprocessing.get_context("fork")
    for world in (2, 4):
        workers = [
            context.Process(target=work, args=(rank, world, folder, checkpoint))
            for rank in range(world)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        if any(worker.exitcode for worker in workers):
            sys.exit(f"a process of {world} failed")


if __name__ == "__main__":
    main(*sys.argv[1:])
