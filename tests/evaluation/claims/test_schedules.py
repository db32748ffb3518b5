import math

import pytest
import torch

from lumina.evaluation.claims.schedules import evaluations_for, relative_distance, search


def test_evaluations_lie_between_those_tried():
    errors = {count: 1 / count for count in (4, 8, 16, 32)}  # first order, exact on log axes
    assert evaluations_for(errors, 0.05) == pytest.approx(20)


def test_the_fewest_tried_may_be_enough():
    assert evaluations_for({4: 0.01, 8: 0.001}, 0.05) == 4


def test_what_never_gets_there_takes_infinitely_many():
    assert evaluations_for({4: 0.5, 8: 0.3}, 0.05) == math.inf


@pytest.mark.parametrize(("order", "needed"), [(1, 40.0), (2, 9.0), (1, 5.0)])
def test_the_search_brackets_the_target(order, needed):
    def measure(steps):
        return 0.05 * (needed / steps) ** order

    errors = search(measure, evaluations=1, order=order, target=0.05, most=64)
    assert evaluations_for(errors, 0.05) == pytest.approx(needed)


def test_the_search_gives_up_on_what_is_too_far_away():
    tried = []

    def measure(steps):
        tried.append(steps)
        return 10 / steps

    errors = search(measure, evaluations=1, order=1, target=0.05, most=48)
    assert evaluations_for(errors, 0.05) == math.inf
    assert tried == [8]


def test_steps_of_several_evaluations_are_counted_by_evaluations():
    errors = search(lambda steps: 0.4 / steps, evaluations=4, order=1, target=0.05, most=64)
    assert all(count % 4 == 0 for count in errors)
    assert evaluations_for(errors, 0.05) == pytest.approx(32)


def test_distance_is_relative_to_the_reference():
    reference = torch.full((2, 3), 4.0)
    assert relative_distance(reference * 1.05, reference) == pytest.approx(0.05, rel=1e-4)
