"""Feed-forward networks of which each token or sample uses a few."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lumina.nn.layers import FeedForward


class MixtureOfExperts(nn.Module):
    """Experts chosen by a router that reads the tokens, or the time of each sample.

    Args:
        width: Width of the tokens.
        inner_width: Inner width of each expert.
        experts: How many there are.
        chosen: How many are used, each weighted by the softmax over the chosen alone.
        router_width: Width of what the router reads.

    Raises:
        ValueError: If more are to be used than there are.

    Source:
        `MoeLayer` in Next-DiT-MoE/models of the original code.
    """

    def __init__(
        self, width: int, *, inner_width: int, experts: int, chosen: int, router_width: int
    ):
        super().__init__()
        if not 1 <= chosen <= experts:
            raise ValueError(f"{chosen} of {experts} experts cannot be chosen")
        self.chosen = chosen
        self.experts = nn.ModuleList(
            FeedForward(width, inner_width=inner_width) for _ in range(experts)
        )
        self.gate = nn.Linear(router_width, experts, bias=False)

    def forward(
        self,
        x: Float[Tensor, "b n d"],
        route: Float[Tensor, "b #n r"],
        balance: list[Tensor] | None = None,
    ) -> Float[Tensor, "b n d"]:
        """Sum of what the chosen experts make of each token.

        Args:
            x: Tokens.
            route: What the router reads: one row for each token, or for each sample.
            balance: Gets how unevenly the experts are used, see `balance_loss`.
        """
        scores = self.gate(route)
        best, chosen = scores.topk(self.chosen, dim=-1)
        weights = best.softmax(-1, dtype=torch.float32).to(x.dtype)
        if balance is not None:
            balance.append(balance_loss(scores, chosen))
        rows, slots = x.flatten(0, 1), self.chosen
        weights = weights.expand(*x.shape[:2], slots).flatten(0, 1)
        chosen = chosen.expand(*x.shape[:2], slots).flatten(0, 1)
        output = torch.zeros_like(rows)
        for number, expert in enumerate(self.experts):
            row, slot = (chosen == number).nonzero(as_tuple=True)
            # One row more, since torchao's int8 layers fail on none. To leave out an expert
            # without rows would be a branch that no compiler follows, and a gradient missing.
            made = expert(nn.functional.pad(rows[row], (0, 0, 0, 1)).unsqueeze(0))[0, :-1]
            output.index_add_(0, row, made * weights[row, slot].unsqueeze(-1))
        return output.view_as(x)


def balance_loss(
    scores: Float[Tensor, "*batch e"], chosen: Int[Tensor, "*batch k"]
) -> Float[Tensor, ""]:
    """How unevenly experts are used: 1 if all are used alike, their number if one is used alone.

    Source:
        Switch Transformers, arXiv:2101.03961, equation 4, over all chosen experts.
    """
    experts = scores.shape[-1]
    shares = torch.bincount(chosen.flatten(), minlength=experts) / chosen.numel()
    probabilities = scores.float().softmax(-1).flatten(0, -2).mean(0)
    return experts * (shares * probabilities).sum()
