"""Processes that share tokens learn as one does; `ecosystem/test_parallel.py` is about drawing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusers import ContextParallelConfig, ParallelConfig

from lumina import LuminaError, NextDiT
from lumina.backbones.parallel import share_tokens
from lumina.nn.attention import fused_attend

SCRIPT = Path(__file__).with_name("shared_tokens.py")
CASES = ("next_dit", "flag_dit", "samples of different sizes", "checkpoints")


@pytest.fixture(scope="module")
def errors(tmp_path_factory):
    """How far each process is from one alone, for each case: 2 processes, and then 4."""
    folder = tmp_path_factory.mktemp("processes")
    result = subprocess.run(
        [sys.executable, SCRIPT, folder],
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
@pytest.mark.parametrize("way", ["ulysses", "ring"])
@pytest.mark.parametrize("case", CASES)
def test_loss_and_gradients_of_processes_add_up_to_those_of_one(errors, way, case, world):
    assert all(found[f"{way}, {case}"] <= 1e-10 for found in errors[world])


def make_model():
    return NextDiT(hidden_size=48, num_attention_heads=6, num_layers=1, cross_attention_dim=32)


def test_processes_that_make_no_groups_are_refused():
    with pytest.raises(LuminaError, match="1 processes do not divide into groups of 2"):
        share_tokens(make_model(), torch.device("cpu"), processes=2, way="ring")


def test_attention_that_would_see_a_part_of_the_tokens_is_refused():
    model = make_model()
    config = ContextParallelConfig(ring_degree=2)
    # As `enable_parallelism` leaves it, for which there would have to be two processes.
    model._parallel_config = ParallelConfig(context_parallel_config=config)
    with pytest.raises(LuminaError, match="sees a part of them"):
        model(torch.randn(1, 4, 4, 4), torch.rand(1), torch.randn(1, 5, 32), attend=fused_attend)
