import numpy as np
import pytest

from lumina.training.data.interleaving import Interleaving, Turn

WEIGHTS, COSTS = [5.0, 1.0, 0.01, 2.5], [3, 1, 7, 2]


def make(weights=WEIGHTS, costs=COSTS, seed=0):
    return Interleaving(weights, costs, np.random.default_rng(seed))


def test_every_place_is_found_at_once_as_by_walking_to_it():
    merged = make()
    walked = merged.between(0, 5000)
    assert walked == [
        turn for at in range(0, 5000, 37) for turn in merged.between(at, min(at + 37, 5000))
    ]


def test_each_list_is_gone_through_from_its_start_without_gaps():
    turns = make().between(0, 20000)
    for which in range(len(WEIGHTS)):
        indices = [turn.index for turn in turns if turn.which == which]
        assert indices == list(range(len(indices)))
        assert indices


def test_turns_are_in_proportion_to_the_weights_and_evenly_spread():
    turns = [turn.which for turn in make(costs=[1] * 4).between(0, 3000)]
    shares = np.array(WEIGHTS) / sum(WEIGHTS)
    counts = np.cumsum(np.eye(4)[turns], axis=0)
    due = np.arange(1, 3001)[:, None] * shares
    assert np.abs(counts - due).max() < len(WEIGHTS)


def test_a_place_far_away_is_found_as_fast_and_in_order():
    far = 10**12
    turns = make().between(far, far + 100)
    assert turns == make().between(far - 50, far + 100)[-len(turns) :]
    assert len(turns) == pytest.approx(100 / 2.4, abs=4)


def test_one_list_is_itself():
    assert make([3.0], [1]).between(7, 9) == [Turn(0, 7), Turn(0, 8)]
