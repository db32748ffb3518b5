"""Processes that share a network train it as one process does."""

import pytest
import torch

from lumina.backbones.parallel import share_tokens
from lumina.errors import LuminaError
from lumina.training.sharding import Share


def assert_close(found, expected, *, tolerance):
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, atol=tolerance, rtol=tolerance)


@pytest.fixture(scope="module")
def alone(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    return {double: run(folder / str(double), 1, double=double) for double in (True, False)}


@pytest.mark.parametrize(
    ("processes", "settings"),
    [
        (2, {}),
        (4, {"replicas": 2}),
        (2, {"context_parallel": 2, "context_parallel_by": "ring"}),
        (4, {"context_parallel": 2, "context_parallel_by": "ulysses", "replicas": 2}),
    ],
    ids=["2", "4 in 2 replicas", "2 that share tokens", "2 x 2 that share tokens, in 2 replicas"],
)
def test_processes_end_with_the_weights_of_one(run, tmp_path, alone, processes, settings):
    weights, losses = run(tmp_path, processes, double=True, **settings)
    assert losses == pytest.approx(alone[True][1], rel=1e-5)
    assert_close(weights, alone[True][0], tolerance=1e-5)


def test_processes_have_the_losses_of_one(run, tmp_path, alone):
    _, losses = run(tmp_path, 2)
    assert losses == pytest.approx(alone[False][1], rel=1e-5)


def test_what_four_processes_saved_two_go_on_with(run, tmp_path, alone):
    run(tmp_path, 4, double=True, steps=20, save_minutes=0.0, keep_states=20)
    for state in sorted((tmp_path / "states").iterdir())[10:]:
        for file in state.iterdir():
            file.unlink()
        state.rmdir()
    weights, losses = run(tmp_path, 2, double=True, save_minutes=0.0, keep_states=20)
    assert len(losses) == 20
    assert_close(weights, alone[True][0], tolerance=1e-5)


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
