"""A run by the workers of a Ray cluster, as torchrun starts it on machines of one's own."""

import os
from pathlib import Path
from typing import Any

from lumina.errors import LuminaError, refuse_missing_library
from lumina.training.recipes import Recipe


def train_on_ray(recipe: Recipe, *, workers: int, gpus: int = 0) -> Path:
    """Run a recipe to its last step by Ray workers, which all see the same folders.

    The cluster is the one that the process has joined, or that RAY_ADDRESS names; without either
    Ray starts one on this machine. Each worker is a process as those of torchrun: a run may stop
    under one and go on under the other, by another number of processes.

    Args:
        recipe: What to run.
        workers: How many processes train together.
        gpus: How many GPUs each of them has: 0 or 1.

    Returns:
        The folder with the last weights.

    Raises:
        LuminaError: If Ray is not installed, the workers have too many GPUs, or one failed.
    """
    if gpus not in (0, 1):
        raise LuminaError(
            f"each worker would have {gpus} GPUs, and it trains on one or none",
            hint="--ray counts the workers: as many as there are GPUs, with --gpus 1",
        )
    refuse_missing_library("ray", extra="ray")
    import ray
    from ray.train import RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchTrainer

    was_joined = ray.is_initialized()
    out = Path(recipe.out).resolve()
    out.mkdir(parents=True, exist_ok=True)
    trainer = TorchTrainer(
        _work,
        train_loop_config={"recipe": recipe, "folder": str(Path.cwd())},
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=gpus == 1),
        run_config=RunConfig(name="ray", storage_path=str(out)),
    )
    try:
        trainer.fit()
    except TrainingFailedError as error:
        raise LuminaError(f"the run on Ray failed: {_reason(error)}") from error
    finally:
        if not was_joined:
            ray.shutdown()
    return out / "last"


def _reason(error: Exception) -> str:
    """What a worker refused, in its words; else all that Ray says."""
    failures = getattr(error, "worker_failures", None) or {0: error}
    told = str(next(iter(failures.values()))).strip()
    _, ours, refusal = told.rpartition("\nlumina.errors.")
    return refusal.partition(": ")[2] if ours else told


def _work(settings: dict[str, Any]) -> None:
    """What each worker does; Ray has joined it with the others."""
    import ray.train.torch
    import torch

    from lumina.training.trainer import train

    os.chdir(settings["folder"])  # Ray starts workers elsewhere, and a recipe has relative paths
    device = ray.train.torch.get_device()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    train(settings["recipe"])
