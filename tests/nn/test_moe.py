import pytest
import torch

from lumina.nn.layers import FeedForward
from lumina.nn.moe import MixtureOfExperts, balance_loss


def make_mixture(**settings):
    torch.manual_seed(0)
    defaults = {"inner_width": 12, "experts": 4, "chosen": 2, "router_width": 6}
    return MixtureOfExperts(8, **defaults | settings)


@torch.no_grad()
def test_experts_that_are_all_alike_are_one_network():
    mixture = make_mixture()
    one = FeedForward(8, inner_width=12)
    for expert in mixture.experts:
        expert.load_state_dict(one.state_dict())
    x, route = torch.randn(3, 5, 8), torch.randn(3, 5, 6)
    torch.testing.assert_close(mixture(x, route), one(x))


@pytest.mark.parametrize("tokens", [1, 5])
@torch.no_grad()
def test_the_output_is_the_weighted_sum_of_the_best_experts(tokens):
    mixture = make_mixture()
    x, route = torch.randn(3, 5, 8), torch.randn(3, tokens, 6)
    scores = mixture.gate(route).expand(3, 5, 4)
    best, chosen = scores.topk(2, dim=-1)
    every = torch.stack([expert(x) for expert in mixture.experts], dim=-1)  # (b, n, d, e)
    picked = every.gather(-1, chosen.unsqueeze(-2).expand(3, 5, 8, 2))
    expected = (picked * best.softmax(-1).unsqueeze(-2)).sum(-1)
    torch.testing.assert_close(mixture(x, route), expected)


def test_gradients_reach_the_router_and_the_chosen_experts():
    mixture = make_mixture(experts=2, chosen=2)
    mixture(torch.randn(1, 5, 8), torch.randn(1, 5, 6)).square().sum().backward()
    assert all(weight.grad is not None and weight.grad.any() for weight in mixture.parameters())


def test_balance_is_one_for_even_use_and_the_number_of_experts_for_one_alone():
    even = torch.eye(4) * 100
    torch.testing.assert_close(balance_loss(even, even.topk(1).indices), torch.tensor(1.0))
    alone = torch.tensor([[100.0, 0, 0, 0]]).expand(6, 4)
    torch.testing.assert_close(balance_loss(alone, alone.topk(1).indices), torch.tensor(4.0))


def test_balance_losses_are_collected_where_they_are_asked_for():
    mixture, found = make_mixture(), []
    mixture(torch.randn(1, 5, 8), torch.randn(1, 5, 6), found)
    assert len(found) == 1
    found[0].backward()
    assert mixture.gate.weight.grad.any()


@pytest.mark.parametrize("chosen", [0, 5])
def test_more_experts_than_there_are_cannot_be_chosen(chosen):
    with pytest.raises(ValueError, match="of 4 experts"):
        make_mixture(chosen=chosen)
