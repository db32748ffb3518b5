import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from diffusers import ContextParallelConfig, FirstBlockCacheConfig, ParallelConfig

from lumina import LuminaError, LuminaPipeline, NextDiT
from lumina.nn.attention import fused_attend
from lumina.nn.ring import RingAttend

PROCESSES = Path(__file__).with_name("processes.py")


@pytest.fixture(scope="module")
def errors(tmp_path_factory, tiny_folder):
    """How far each process is from one alone, for each case: 2 processes, and then 4."""
    folder = tmp_path_factory.mktemp("processes")
    result = subprocess.run(
        [sys.executable, PROCESSES, folder, tiny_folder],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return {
        world: [json.loads((folder / f"{world}-{rank}.json").read_text()) for rank in range(world)]
        for world in (2, 4)
    }


@pytest.mark.parametrize("world", [2, 4])
@pytest.mark.parametrize("part", ["ulysses", "ring", "ring attention", "cache", "guidance"])
def test_processes_together_equal_one(errors, part, world):
    for found in errors[world]:
        cases = {name: error for name, error in found.items() if name.startswith(f"{part},")}
        assert cases
        assert all(error <= 1e-5 for error in cases.values()), cases


@pytest.fixture(scope="module")
def one_process(tmp_path_factory):
    store = tmp_path_factory.mktemp("alone") / "store"
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"ulysses_degree": 4}, "6 heads cannot be split"),
        ({"ring_degree": 2, "ring_anything": True}, "even parts"),
        ({"ring_degree": 2, "ulysses_degree": 2}, "one of these ways at a time.*one of them to 4"),
    ],
)
def test_what_cannot_be_shared_is_refused(config, reason):
    model = NextDiT(hidden_size=48, num_attention_heads=6, num_layers=1, cross_attention_dim=32)
    with pytest.raises(LuminaError, match=f"(?s){reason}"):
        model.enable_parallelism(config=ContextParallelConfig(**config))


@pytest.mark.parametrize("way", ["ulysses_degree", "ring_degree"])
def test_tokens_that_do_not_divide_among_processes_are_refused(way):
    model = NextDiT(hidden_size=48, num_attention_heads=6, num_layers=1, cross_attention_dim=32)
    config = ContextParallelConfig(**{way: 2})
    # As `enable_parallelism` leaves it, for which there would have to be two processes.
    model._parallel_config = ParallelConfig(context_parallel_config=config)
    with pytest.raises(LuminaError, match="9 tokens do not divide evenly among 2 processes"):
        model(torch.randn(1, 4, 6, 6), torch.rand(1), torch.randn(1, 5, 32))


def test_a_cache_that_decides_by_tokens_does_not_go_with_sharing_them():
    model = NextDiT(hidden_size=48, num_attention_heads=6, num_layers=2, cross_attention_dim=32)
    model.enable_cache(FirstBlockCacheConfig())
    with pytest.raises(LuminaError, match="hint: disable_cache"):
        model.enable_parallelism(config=ContextParallelConfig(ulysses_degree=2))


@pytest.mark.usefixtures("one_process")
def test_a_ring_of_one_attends_as_pytorch_does_and_has_its_gradients():
    # More than have their scores in memory at a time.
    query = torch.randn(2, 1500, 4, 8, dtype=torch.float64)
    key, value = torch.randn(2, 2, 1500, 2, 8, dtype=torch.float64)
    weights = torch.randn_like(query)

    def attend_and_differentiate(attend):
        leaves = [part.clone().requires_grad_() for part in (query, key, value)]
        values = attend(*leaves, scale=0.7)
        return [values, *torch.autograd.grad((values * weights).sum(), leaves)]

    found, expected = map(attend_and_differentiate, (RingAttend(), fused_attend))
    for part, other in zip(found, expected, strict=True):
        torch.testing.assert_close(part, other)


@pytest.mark.usefixtures("one_process")
def test_guidance_is_for_two_processes(tiny_folder):
    pipeline = LuminaPipeline.from_pretrained(tiny_folder)
    with pytest.raises(ValueError, match="2 processes, and the group has 1"):
        pipeline.enable_guidance_parallelism()
