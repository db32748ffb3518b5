import itertools

import pytest
import torch

from lumina.evaluation.claims.context_drop import (
    dropped_share,
    measure_seconds,
    one_thread,
    speedup,
)

TIMES = [(index + 0.5) / 20 for index in range(20)]


def test_all_blocks_drop_or_none():
    assert dropped_share("all", blocks=24, times=TIMES) == 1
    assert dropped_share("none", blocks=24, times=TIMES) == 0


def test_about_half_of_many_blocks_drop_in_the_mean_over_time():
    assert dropped_share("time-aware", blocks=24, times=TIMES) == pytest.approx(0.5, abs=0.05)
    assert dropped_share("time-aware", blocks=2, times=TIMES) == pytest.approx(0.25)


def test_time_saved_is_in_proportion_to_the_blocks_that_drop():
    assert speedup((2.0, 1.0), 1.0) == 2
    assert speedup((2.0, 1.0), 0.5) == pytest.approx(2 / 1.5)
    assert speedup((2.0, 1.0), 0.0) == 1


def test_the_first_run_of_each_kind_is_not_timed():
    ticks = itertools.accumulate([0, 100, 0, 100, 0, 3, 0, 1, 0, 3, 0, 1])
    runs = []
    seconds = measure_seconds(runs.append, repeats=2, clock=lambda: next(ticks))
    assert seconds == (3, 1)
    assert runs == [False, True] * 3


def test_threads_are_as_many_as_before_once_done():
    before = torch.get_num_threads()
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
