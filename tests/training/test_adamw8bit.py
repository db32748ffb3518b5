import pytest
import torch
from torch import nn

from lumina.training.adamw8bit import MEAN, SQUARE, AdamW8bit, pack, unpack


def values(shape, code, seed=0):
    """Numbers of many magnitudes, of both signs where codes have one."""
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.randn(shape, generator=generator) ** 5
    return numbers if code.dtype.is_signed else numbers.square()


@pytest.mark.parametrize("code", [MEAN, SQUARE], ids=["mean", "square"])
@pytest.mark.parametrize("shape", [(3, 5), (4, 512)])
def test_a_number_comes_back_within_one_code(code, shape):
    numbers = values(shape, code)
    codes, scales = pack(numbers, code, step=3)
    found = unpack(codes, scales, code)
    largest = numbers.abs().unflatten(1, (-1, shape[1] // scales.shape[1])).amax(-1, keepdim=True)

    def root(x):
        return (x.abs().unflatten(1, (-1, shape[1] // scales.shape[1])) / largest) ** (
            1 / code.root
        )

    # The smallest squares are raised to the first code.
    assert (root(found) - root(numbers)).abs().max() <= 1.001 / code.largest
    assert (found.sign() == numbers.sign())[found != 0].all()


@pytest.mark.parametrize("code", [MEAN, SQUARE], ids=["mean", "square"])
def test_rounding_is_fair_over_steps(code):
    numbers = values((2, 64), code)
    roots = torch.stack(
        [
            unpack(*pack(numbers, code, step=step), code).abs() ** (1 / code.root)
            for step in range(400)
        ]
    )
    exact = numbers.abs() ** (1 / code.root)
    is_large = exact > 2 * exact.amax(1, keepdim=True) / code.largest
    step = exact.amax(1, keepdim=True) / code.largest
    assert (((roots.mean(0) - exact) / step).abs()[is_large] < 0.02).all()


def test_no_positive_square_becomes_zero_and_zeros_stay():
    numbers = torch.tensor([[1.0, 1e-30, 0.0, 1e-9]])
    for step in range(20):
        found = unpack(*pack(numbers, SQUARE, step=step), SQUARE)
        assert (found[0, [0, 1, 3]] > 0).all()
        assert found[0, 2] == 0
    assert not unpack(*pack(torch.zeros(2, 3), MEAN, step=1), MEAN).any()


def regress(optimizer_of, steps=80):
    """Losses of a network that learns a function."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1)
    )
    data = torch.randn(128, 4)
    target = data.sin().sum(1, keepdim=True)
    optimizer, losses = optimizer_of(module.parameters()), []
    for _ in range(steps):
        loss = (module(data) - target).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def test_it_learns_as_adamw_does():
    settings = {"lr": 3e-3, "betas": (0.9, 0.99), "weight_decay": 0.01}
    exact = regress(lambda weights: torch.optim.AdamW(weights, **settings))
    coded = regress(lambda weights: AdamW8bit(list(weights), **settings))
    assert exact[-1] < 0.2 * exact[0]
    assert coded[-1] == pytest.approx(exact[-1], rel=0.25)


def test_vectors_are_updated_as_by_adamw():
    settings = {"lr": 0.1, "betas": (0.9, 0.99), "weight_decay": 0.1}
    one, other = (nn.Parameter(torch.linspace(-1, 1, 7)) for _ in range(2))
    optimizers = [torch.optim.AdamW([one], **settings), AdamW8bit([other], **settings)]
    for step in range(5):
        for weight, optimizer in zip((one, other), optimizers, strict=True):
            weight.grad = torch.sin(torch.arange(7.0) + step)
            optimizer.step()
    torch.testing.assert_close(other, one)


def test_states_take_little_more_than_two_bytes_of_a_number():
    weight = nn.Parameter(torch.randn(64, 512))
    optimizer = AdamW8bit([weight], lr=1e-3)
    weight.grad = torch.randn(64, 512)
    optimizer.step()
    assert sum(tensor.nbytes for tensor in optimizer.state[weight].values()) < 2.05 * 64 * 512
