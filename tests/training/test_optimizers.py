import pytest
import torch
from torch import nn

from lumina.training.optimizers import Muon, make_optimizers, orthogonalize, rate_factor


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(8, 8), (6, 20), (20, 6)])
def test_orthogonalize_pushes_singular_values_near_one(shape, dtype):
    matrix = torch.randn(*shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    values = torch.linalg.svdvals(orthogonalize(matrix).float())
    assert values.min() > 0.6
    assert values.max() < 1.3


def test_orthogonalize_does_not_see_the_scale():
    matrix = torch.randn(5, 7, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(orthogonalize(matrix), orthogonalize(1000 * matrix))


def test_muon_treats_a_convolution_as_the_matrix_of_its_outputs():
    gradient = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(2))
    kernel, matrix = nn.Parameter(torch.ones(4, 3, 3, 3)), nn.Parameter(torch.ones(4, 27))
    kernel.grad, matrix.grad = gradient, gradient.flatten(1)
    for weight in (kernel, matrix):
        Muon([weight], lr=0.1).step()
    torch.testing.assert_close(kernel.flatten(1), matrix)


def test_every_optimizer_lowers_the_loss_of_a_regression():
    for name in ("muon", "adamw", "adamw8bit"):
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 16), nn.Linear(16, 1))
        data = torch.randn(64, 4)
        target = data.sin().sum(1, keepdim=True)
        optimizers = make_optimizers(
            module, learning_rate=1e-2, matrix_optimizer=name, weight_decay=0.0
        )
        losses = []
        for _ in range(60):
            loss = (module(data) - target).square().mean()
            loss.backward()
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
            losses.append(loss.item())
        assert losses[-1] < 0.5 * losses[0], name


def test_rate_rises_over_the_warmup_and_falls_to_zero_at_the_end():
    rates = [rate_factor(step, steps=100, warmup=10, decay=0.5) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9:50] == [1.0] * 41
    assert all(later < earlier for earlier, later in zip(rates[50:], rates[51:], strict=False))
    assert rates[-1] == pytest.approx(1 / 50)
