from collections import Counter
from dataclasses import asdict
from itertools import groupby

import pytest

from lumina.evaluation.trials import BASE, FULL, QUICK, SIZES, Counts, plan, shuffled
from lumina.worlds.captions import Brief, write

COMBINED = ("color", "place", "pairs")
SMALL = Counts(names=10, per_language=3, combinations=20, per_size=4)


@pytest.fixture(scope="module")
def things(patterns):
    return list(patterns)


@pytest.fixture(scope="module")
def trials(things):
    return plan(things, SMALL, languages=["es", "ja"])


def section(trials, name):
    return [trial for trial in trials if trial.section == name]


def test_a_plan_is_the_same_each_time(things, trials):
    assert plan(things, SMALL, languages=["es", "ja"]) == trials


def test_a_plan_stays_the_same_over_versions():
    # Published numbers can only be compared if they are of the same pictures.
    assert shuffled(list("abcdef"), "en") == list("dacfbe")


def test_every_section_comes_in_its_turn_and_size(trials):
    counts = {name: len(list(group)) for name, group in groupby(trials, lambda t: t.section)}
    assert counts == {
        "retrieval": 10,
        "languages": 2 * 3,
        "color": 20,
        "place": 20,
        "pairs": 20,
        "sizes": 7 * 4,
    }


def test_the_pictures_of_a_section_have_seeds_of_their_own(trials):
    groups = Counter((t.section, t.language, t.size) for t in trials)
    for key, count in groups.items():
        seeds = [t.seed for t in trials if (t.section, t.language, t.size) == key]
        assert seeds == list(range(count))


@pytest.mark.parametrize("name", COMBINED)
def test_every_combination_is_held_out_of_training(things, name):
    drawn = section(plan(things, Counts(combinations=200), languages=[]), name)
    assert len(drawn) == 200
    assert all(trial.brief.is_held_out for trial in drawn)


def test_a_combination_has_what_its_section_is_about(trials):
    for trial in section(trials, "color"):
        assert trial.brief.background
        assert trial.brief.place is trial.brief.relation is None
    for trial in section(trials, "place"):
        assert trial.brief.place
    for trial in section(trials, "pairs"):
        first, second = trial.brief.things
        assert first != second
        assert trial.brief.relation


@pytest.mark.parametrize("name", ["place", "pairs"])
def test_some_places_and_pairs_come_on_a_color(things, name):
    drawn = section(plan(things, Counts(combinations=100), languages=[]), name)
    assert 30 < sum(trial.brief.background is not None for trial in drawn) < 70


def test_names_come_alone_and_once(trials):
    named = [trial.brief for trial in section(trials, "retrieval")]
    assert len(set(named)) == len(named)
    assert all(brief == Brief((brief.things[0],)) for brief in named)


def test_no_more_is_named_than_there_is(things):
    whole = plan(things, FULL, languages=["fr"])
    for name in ("retrieval", "languages"):
        assert Counter(t.brief.things[0] for t in section(whole, name)) == Counter(things)


def test_every_language_names_other_things(trials):
    chosen = {
        language: [
            t.brief.things[0] for t in section(trials, "languages") if t.language == language
        ]
        for language in ("es", "ja")
    }
    assert chosen["es"] != chosen["ja"]


def test_prompts_are_in_their_language(trials):
    for trial in trials:
        assert trial.prompt == write(trial.brief, trial.language)
        assert trial.language == "en" or trial.section == "languages"


def test_every_size_draws_the_same_names_which_the_usual_size_drew_too(trials):
    named = [trial.brief for trial in section(trials, "retrieval")]
    for size in SIZES:
        drawn = [trial.brief for trial in section(trials, "sizes") if trial.size == size]
        assert drawn == named[:4]
    assert {t.size for t in trials if t.section != "sizes"} == {BASE}


def test_asking_for_more_keeps_what_was_asked_before(things, trials):
    more = plan(things, SMALL.scaled(2), languages=["es", "ja"])
    assert set(trials) < set(more)


def test_an_order_is_of_the_same_things_and_another_for_each_purpose(things):
    orders = [shuffled(things, purpose) for purpose in ("en", "es", "ja")]
    for order in orders:
        assert sorted(order) == sorted(things)
    assert len({tuple(order) for order in orders}) == 3


def test_scaling_counts_multiplies_them_all():
    assert Counts(100, 10, 60, 20, 200).scaled(0.1) == Counts(10, 1, 6, 2, 20)
    assert QUICK.scaled(1) == QUICK


def test_scaling_counts_leaves_one_of_everything():
    assert set(asdict(FULL.scaled(1e-9)).values()) == {1}
