import pytest
import torch

from lumina.evaluation.claims.sandwich import GRID, block_outputs, bound, random_network


@pytest.fixture
def x():
    return torch.randn(1, 4, GRID, GRID, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("gain", [0.5, 8.0])
def test_no_weights_exceed_the_bound_of_sandwich_norms(x, gain):
    network = random_network("sandwich", depth=3, gain=gain, gate=1.0, seed=0)
    seen = block_outputs(network, x)
    assert len(seen) == 4
    for depth, rms in enumerate(seen):
        assert rms <= bound(seen[0], 1.0, depth) * (1 + 1e-5)


def test_plain_norms_grow_with_the_weights(x):
    weak, strong = (
        block_outputs(random_network("plain", depth=2, gain=gain, gate=1.0, seed=0), x)[-1]
        for gain in (1.0, 4.0)
    )
    assert strong > 4 * weak


@pytest.mark.parametrize("kind", ["sandwich", "plain"])
def test_closed_gates_leave_tokens_as_they_are(x, kind):
    seen = block_outputs(random_network(kind, depth=2, gain=1.0, gate=0.0, seed=0), x)
    assert seen == pytest.approx([seen[0]] * 3)
