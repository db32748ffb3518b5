"""Optimizers and learning-rate schedules of a training run."""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lumina.training.adamw8bit import AdamW8bit
from lumina.training.sharding import shared_like, whole

# Coefficients of the quintic Newton-Schulz iteration and the number of rounds.
# Source: Keller Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024).
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
ROUNDS = 5
# A Muon update scaled by this times sqrt(max(rows, columns)) has the root mean square of an AdamW
# update, so that one learning rate serves both.
# Source: Liu et al., "Muon is scalable for LLM training", arXiv:2502.16982, section 2.2.
MATCH_ADAMW = 0.2
BETAS = (0.9, 0.99)
ADAMS: dict[str, Any] = {"adamw": torch.optim.AdamW, "adamw8bit": AdamW8bit}


class Muon(torch.optim.Optimizer):
    """Momentum whose update is made orthogonal; convolutions count as matrices.

    `torch.optim.Muon` takes matrices only; this one flattens the kernels of convolutions.

    Args:
        parameters: Weights with two or more axes.
        lr: Learning rate, on the scale of AdamW's.
        momentum: Nesterov momentum in [0, 1).
        weight_decay: Decoupled decay per step and unit of learning rate.
        dtype: Of the products that make updates orthogonal, which need little precision.
    """

    def __init__(
        self,
        parameters: list[nn.Parameter],
        *,
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        dtype: torch.dtype = torch.float32,
    ):
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.dtype = dtype

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Update every weight that has a gradient."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    exact = torch.promote_types(weight.dtype, torch.float32)
                    self._update(weight, weight.grad.to(exact), group)

    def _update(self, weight: nn.Parameter, gradient: Tensor, group: dict) -> None:
        state = self.state[weight]
        if not state:
            state["momentum"] = torch.zeros_like(gradient)
        state["momentum"].lerp_(gradient, 1 - group["momentum"])
        blend = gradient.lerp(state["momentum"], group["momentum"]).flatten(1)
        scale = MATCH_ADAMW * math.sqrt(max(blend.shape))
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        # Where processes share the matrix, each makes all of it orthogonal and takes its part.
        update = orthogonalize(whole(blend).to(self.dtype)).to(weight.dtype)
        weight.add_(shared_like(update.view(weight.shape), weight), alpha=-group["lr"] * scale)


def orthogonalize(matrix: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows columns"]:
    """Push all singular values of a matrix near 1, keeping its singular vectors."""
    is_tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.mT if is_tall else matrix
    x = x / (x.norm() + 1e-7)
    a, b, c = NEWTON_SCHULZ
    for _ in range(ROUNDS):
        gram = x @ x.mT
        # Sums inside products are rounded once: faster, and more exact in bfloat16.
        factor = torch.addmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.addmm(x, factor, x, beta=a)
    return x.mT if is_tall else x


def make_optimizers(
    module: nn.Module,
    *,
    learning_rate: float,
    matrix_optimizer: str,
    weight_decay: float,
    adam_scale: float = 1.0,
    dtype: torch.dtype = torch.float32,
) -> list[torch.optim.Optimizer]:
    """Optimizers for all trainable weights of a module.

    Args:
        module: What is trained.
        learning_rate: Peak learning rate.
        matrix_optimizer: "muon", "adamw" or "adamw8bit", for hidden matrices; beside Muon,
            embeddings, vectors, first and last layers take AdamW.
        weight_decay: Decoupled weight decay of matrices.
        adam_scale: Learning rate of AdamW relative to that of Muon.
        dtype: Of the products inside Muon.
    """
    hidden, rest = [], []
    for name, weight in module.named_parameters():
        if weight.requires_grad:
            (hidden if _is_hidden(name, weight) else rest).append(weight)
    if matrix_optimizer in ADAMS:
        groups = [
            {"params": hidden, "weight_decay": weight_decay},
            {"params": rest, "weight_decay": 0.0},
        ]
        return [ADAMS[matrix_optimizer](groups, lr=learning_rate, betas=BETAS)]
    optimizers: list[torch.optim.Optimizer] = []
    if hidden:
        optimizers.append(Muon(hidden, lr=learning_rate, weight_decay=weight_decay, dtype=dtype))
    if rest:
        rate = learning_rate * adam_scale
        optimizers.append(torch.optim.AdamW(rest, lr=rate, betas=BETAS, weight_decay=0.0))
    return optimizers


def rate_factor(step: int, *, steps: int, warmup: int, decay: float) -> float:
    """Share of the peak learning rate at a step: warm-up, plateau, then linear decay to zero.

    Args:
        step: Steps already taken.
        steps: Steps of the whole run.
        warmup: Steps of linear warm-up.
        decay: Share of the run, in [0, 1], over which the rate falls to zero.
    """
    rising = min(1.0, (step + 1) / max(1, warmup))
    falling = min(1.0, (steps - step) / max(1.0, decay * steps))
    return rising * falling


def _is_hidden(name: str, weight: nn.Parameter) -> bool:
    outer = ("embed", "conv_in", "conv_out", "norm_out.linear_2", "head")
    return weight.ndim >= 2 and not any(part in name for part in outer)
