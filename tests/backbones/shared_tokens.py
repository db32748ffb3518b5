"""Losses and gradients of processes that share tokens, and of each alone: for `test_parallel.py`.

Imports once, and forks before any computation, which is much faster than to start each process.
"""

import json
import multiprocessing
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from lumina import FlagDiT, NextDiT
from lumina.backbones.parallel import share_tokens
from lumina.flow.path import flow_loss

TINY = {
    "sample_size": 8,
    "hidden_size": 32,
    "num_layers": 2,
    "num_attention_heads": 4,
    "num_kv_heads": 2,
    "multiple_of": 16,
    "cross_attention_dim": 16,
}


def make_model(kind, **config):
    torch.manual_seed(0)
    model = kind(**TINY | config).double()
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.2)
    return model


def loss(model, shapes):
    generator = torch.Generator().manual_seed(1)

    def draw(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    data, noise = ([draw(4, *shape) for shape in shapes] for _ in range(2))
    if len(set(shapes)) == 1:
        data, noise = torch.stack(data), torch.stack(noise)
    text, mask = draw(len(shapes), 6, 16), torch.ones(len(shapes), 6)
    mask[-1, 4:] = 0

    def velocity(x, times):
        return model(x, times, text, mask, return_dict=False)[0]

    times = draw(len(shapes)).sigmoid()
    return flow_loss(velocity, noise, data, times).mean()


def gradients(model):
    return {name: w.grad for name, w in model.named_parameters() if w.grad is not None}


def distance(kind, way, shapes, world, *, checkpoint=False, **config):
    """How far loss and gradients of all processes are from those of one, relative to these."""
    alone = make_model(kind, **config)
    expected = loss(alone, shapes)
    expected.backward()
    together = make_model(kind, **config)
    if checkpoint:
        together.enable_gradient_checkpointing()
    share_tokens(together, torch.device("cpu"), processes=world, way=way)
    found = loss(together, shapes)
    found.backward()
    errors = [(found - expected).abs().item()]
    parts = gradients(together)
    wholes = gradients(alone)
    assert parts.keys() == wholes.keys()
    # A bias of all keys of a text changes no weight of attention: its gradient is rounding alone.
    least = 1e-6 * max(whole.abs().max() for whole in wholes.values())
    for name, whole in wholes.items():
        dist.all_reduce(parts[name])
        errors.append(((parts[name] - whole).abs().max() / whole.abs().max().clamp(least)).item())
    return max(errors)


EVEN = ((8, 12), (8, 12))
LISTED = ((8, 12), (4, 6))


def cases(world):
    for way in ("ulysses", "ring"):
        yield f"{way}, next_dit", distance(NextDiT, way, EVEN, world)
        yield f"{way}, flag_dit", distance(FlagDiT, way, EVEN, world)
        yield f"{way}, samples of different sizes", distance(NextDiT, way, LISTED, world)
        yield f"{way}, checkpoints", distance(NextDiT, way, EVEN, world, checkpoint=True)


def work(rank, world, folder):
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store{world}", rank=rank, world_size=world
    )
    Path(folder, f"{world}-{rank}.json").write_text(json.dumps(dict(cases(world))))
    dist.destroy_process_group()


def main(folder):
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    context = multiprocessing.get_context("fork")
    for world in (2, 4):
        workers = [
            context.Process(target=work, args=(rank, world, folder)) for rank in range(world)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        if any(worker.exitcode for worker in workers):
            sys.exit(f"a process of {world} failed")


if __name__ == "__main__":
    main(*sys.argv[1:])
