"""Which attention a training step takes."""

from typing import Any

from lumina.nn.attention import float32_attend
from lumina.training.recipes import Recipe
from lumina.types import Attend


def attend_in_training(module: Any, recipe: Recipe) -> Attend | None:
    """What is fast on a CPU; elsewhere, and where tokens are shared, the kernel that is set."""
    device = next(module.parameters()).device
    is_plain = device.type == "cpu" and recipe.context_parallel == 1
    return float32_attend if is_plain else None
