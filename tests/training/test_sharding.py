"""Processes that share a network train it as one process does."""

import pytest
import torch

from lumina.backbones.parallel import share_tokens
from lumina.errors import LuminaError
from lumina.training.sharding import Share


def assert_close(found, expected, *, tolerance):
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, atol=tolerance, rtol=tolerance)


def assert_same(found, expected):
    (weights, losses), (right, usual) = found, expected
    assert losses == pytest.approx(usual, rel=1e-5)
    assert_close(weights, right, tolerance=1e-5)


RING = {"context_parallel": 2, "context_parallel_by": "ring"}
ULYSSES = {"context_parallel": 2, "context_parallel_by": "ulysses"}


def test_processes_train_as_one_does_and_two_go_on_with_what_four_began(run, tmp_path):
    double = {"double": True}
    shared = {
        "sharded": (2, double),
        "ring": (2, double | RING),
        "replicas": (4, double | {"replicas": 2} | ULYSSES),
        "half": (4, double | {"stop_after": 4}),
        "whole": (2, double | {"out": str(tmp_path / "half")}),
    }
    # With one start, which takes longer than the training. Nothing is forked after the last two.
    alone = {"alone": (0, double), "single alone": (0, {})}
    found = run(tmp_path, shared | {"single": (2, {})} | alone)
    assert (tmp_path / "half" / "states" / "step-00000004").exists()
    for name in shared:
        assert_same(found[name], found["alone"])
    assert found["single"][1] == pytest.approx(found["single alone"][1], rel=1e-5)


def test_a_network_without_tokens_cannot_share_them():
    with pytest.raises(LuminaError, match="Linear has no tokens that processes could share"):
        share_tokens(torch.nn.Linear(2, 2), torch.device("cpu"), processes=2, way="ring")


def test_a_share_is_a_part_of_a_batch_and_all_shares_are_the_whole():
    rows = torch.arange(12)
    parts = [rows[Share(number, 3).of(12)] for number in range(3)]
    assert torch.equal(torch.cat(parts), rows)
    with pytest.raises(LuminaError, match="13 samples cannot be shared evenly by 3"):
        Share(0, 3).of(13)


def test_a_process_alone_has_the_whole_batch():
    batch = (torch.arange(5),)
    assert Share().take(batch) is batch
