"""Runs of a tiny Next-DiT, alone or by several processes: what tests of sharing launch.

The argument has the settings of runs, each with the number of processes that are forked for it.
With 0 there is one that was started already, or as many as torchrun started.
"""

import json
import multiprocessing
import os
import signal
import socket
import sys
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import NamedTuple

import torch
from safetensors.torch import save_file

from lumina.backbones.next_dit import NextDiT
from lumina.flow.path import flow_loss
from lumina.settings import setting
from lumina.training.recipes import TASKS, Recipe
from lumina.training.sharding import processes
from lumina.training.trainer import train


class Rows(NamedTuple):
    data: torch.Tensor
    noise: torch.Tensor
    times: torch.Tensor
    text: torch.Tensor


class Network:
    stop_after = 0  # steps, as if asked to by a signal; 0 for never

    def __init__(self, recipe):
        self.recipe = recipe
        self.module = NextDiT(
            sample_size=8,
            hidden_size=24,
            num_layers=2,
            num_attention_heads=6,
            num_kv_heads=3,
            multiple_of=16,
            cross_attention_dim=16,
        )
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for weight in self.module.parameters():
                weight.copy_(0.2 * torch.randn(weight.shape, generator=generator))
        if recipe.double:
            self.module.double()

    def to(self, device):
        self.module.to(device)

    def batch(self, number, share):
        generator = torch.Generator().manual_seed(number)
        shapes = ((8, 4, 8, 8), (8, 4, 8, 8), (8,), (8, 5, 16))
        dtype = torch.float64 if self.recipe.double else torch.float32
        parts = [torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes]
        return share.take(Rows(parts[0], parts[1], parts[2].sigmoid(), parts[3]))

    def loss(self, batch, step):
        if step + 1 == self.stop_after:
            signal.raise_signal(signal.SIGTERM)

        def velocity(x, t):
            return self.module(x, t, batch.text, return_dict=False)[0][:, :4]

        return flow_loss(velocity, batch.noise, batch.data, batch.times).mean(), {}

    def validate(self):
        return {}

    def preview(self, folder, step):
        (folder / f"preview-{step}").touch()

    def export(self, folder):
        folder.mkdir(exist_ok=True)
        self.module.separate_queries()
        save_file(self.module.state_dict(), folder / "weights.safetensors")


@dataclass(frozen=True, kw_only=True)
class NetworkRecipe(Recipe):
    task = "network"

    double: bool = setting(False, "compute in float64")

    def make_objective(self):
        return Network(self)


TASKS["network"] = NetworkRecipe


def make_recipe(**settings) -> NetworkRecipe:
    defaults = {"steps": 8, "warmup": 2, "decay": 0.0, "batch_size": 8, "device": "cpu"}
    defaults |= {"preview_every": 8, "log_every": 8, "learning_rate": 1e-3}
    return NetworkRecipe(**defaults | settings)


def main() -> None:
    """Train by each of some settings."""
    for count, settings in json.loads(sys.argv[1]):
        fork(count, settings) if count else work(settings)


def work(settings) -> None:
    """Train in this process, and in others that were started beside it."""
    Network.stop_after = settings.pop("stop_after", 0)
    stops = suppress(KeyboardInterrupt) if Network.stop_after else nullcontext()
    with processes(torch.device("cpu")), stops:
        train(make_recipe(**settings))


def fork(count: int, settings) -> None:
    """Train in so many processes, which is much faster than to start and import each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count)}
    context = multiprocessing.get_context("fork")
    workers = [
        context.Process(target=_work, args=(rank, address, settings)) for rank in range(count)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if any(worker.exitcode for worker in workers):
        sys.exit("a process failed")


def _work(rank: int, address, settings) -> None:
    os.environ |= address | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    work(settings)


if __name__ == "__main__":
    main()
