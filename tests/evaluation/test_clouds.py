import numpy as np
import pytest

from lumina.evaluation.clouds import QUICK, SIDE, CloudExam
from lumina.evaluation.exams import Outcome
from lumina.evaluation.points import chamfer_among, score_distances
from lumina.worlds.solid_kinds import KINDS
from lumina.worlds.solids import draw_cloud, held_out_solids

pytest.importorskip("trimesh")
pytest.importorskip("scipy")


@pytest.fixture(scope="module")
def exam():
    return CloudExam({})


@pytest.fixture(scope="module")
def wishes(exam):
    """All that is asked for at 256 points."""
    plan = exam.plan(full=False, names=12, languages=())
    return [wish for wish in plan if wish.arguments["points"] == 256]


def measured(exam, wishes, media):
    outcomes = [
        Outcome(wish, exam.judge(wish, medium)) for wish, medium in zip(wishes, media, strict=True)
    ]
    return {line.what: line for line in exam.measure(outcomes)}


def test_true_clouds_of_other_solids_have_the_kind_that_was_asked_for(exam, wishes):
    lines = measured(exam, wishes, [exam.example(wish) for wish in wishes])
    assert lines["kind"].value > 0.9
    assert lines["1-NNA (0.5 is best)"].low < 0.5
    assert lines["1-NNA (0.5 is best)"].count == 24


def test_true_clouds_in_another_order_are_of_wrong_kinds_and_as_true_as_before(exam, wishes):
    """Each cloud is of another kind: none is right, and both sides are as alike as ever."""
    media = [exam.example(wish) for wish in wishes]
    kinds = [wish.brief.kind for wish in wishes]
    turns = [media[turn:] + media[:turn] for turn in range(len(media))]
    other = next(
        turned
        for turn, turned in enumerate(turns)
        if all(one != same for one, same in zip(kinds, kinds[turn:] + kinds[:turn], strict=True))
    )
    right, wrong = measured(exam, wishes, media), measured(exam, wishes, other)
    assert wrong["kind"].value < 0.1
    for what in ("1-NNA (0.5 is best)", "MMD x 1000", "COV (1 is best)"):
        assert wrong[what].value == pytest.approx(right[what].value)


def test_a_perfect_model_is_told_from_true_clouds_half_of_the_time():
    """Whatever the number of clouds: kinds that took turns would give a third with 24 a side."""
    found = []
    for seed in range(12):
        clouds = [
            draw_cloud(solid, 128, np.random.default_rng((seed, side, number)))
            for side in (0, 1)
            for number, solid in enumerate(held_out_solids(24, seed=100 + 2 * seed + side))
        ]
        among = chamfer_among(clouds)
        scores = score_distances(among[:24, :24], among[:24, 24:], among[24:, 24:])
        found.append(scores.nearest.value)
    assert np.mean(found) == pytest.approx(23 / 47, abs=0.08)


def test_noise_is_told_from_true_clouds(exam, wishes):
    rng = np.random.default_rng(0)
    lines = measured(exam, wishes, [rng.uniform(-0.5, 0.5, (256, 3)) for _ in wishes])
    assert lines["1-NNA (0.5 is best)"].value > 0.95


def test_captions_are_of_other_solids_than_those_compared_with(exam):
    plan = exam.plan(full=True, names=None, languages=())
    asked = {wish.brief for wish in plan}
    assert asked.isdisjoint(held_out_solids(SIDE))


@pytest.mark.parametrize("full", [False, True])
def test_a_hundred_clouds_are_on_each_side(exam, full):
    plan = exam.plan(full=full, names=None, languages=["fr", "ja"])
    counts = {n: sum(wish.section == f"{n} points" for wish in plan) for n in QUICK}
    assert counts == (dict.fromkeys(QUICK, SIDE) if full else QUICK)
    spoken = [wish for wish in plan if wish.section == "languages"]
    assert [wish.language for wish in spoken] == ["fr"] * len(KINDS) + ["ja"] * len(KINDS)
    assert spoken[0].prompt == "chaise"


def test_fewer_names_are_fewer_clouds(exam):
    plan = exam.plan(full=False, names=4, languages=["fr"])
    assert [wish.arguments["points"] for wish in plan] == [256] * 4 + [2048] * 4 + [8192] * 2 + [
        256
    ] * 4
