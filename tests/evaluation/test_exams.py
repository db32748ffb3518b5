import json

import numpy as np
import pytest

from lumina.checkpoints.folder import MADE_BY, worlds_of
from lumina.errors import LuminaError
from lumina.evaluation.clips import CUT, OTHER_SIZES, ClipExam, steps_at
from lumina.evaluation.exams import Outcome, by_language
from lumina.evaluation.sounds import SoundExam
from lumina.evaluation.tunes import TuneExam
from lumina.types import Size
from lumina.worlds.motion import DIRECTIONS, FRAMES, Clip, paint_clip
from lumina.worlds.motion_judge import JUMP
from lumina.worlds.music import FORMS, INSTRUMENTS
from lumina.worlds.sounds import KINDS
from lumina.worlds.vocabulary import LANGUAGES


@pytest.fixture(scope="module")
def clips():
    return ClipExam({"size": "96x96", "frames": 8})


@pytest.fixture(scope="module")
def tunes():
    return TuneExam({"seconds": 4.096})


@pytest.fixture(scope="module")
def sounds():
    return SoundExam({"seconds": 3.072})


def known(exam, wishes):
    """What was asked for, with what a perfect model makes of it."""
    return [(wish, made) for wish in wishes if (made := exam.example(wish)) is not None]


def measured(exam, made):
    lines = exam.measure([Outcome(wish, exam.judge(wish, medium)) for wish, medium in made])
    return {(line.section, line.what): line.value for line in lines}


def shuffled(made, by):
    """Each wish with what another of its section asked for."""
    sections = dict.fromkeys(wish.section for wish, _ in made)
    groups = [[pair for pair in made if pair[0].section == section] for section in sections]
    return [
        (group[number][0], group[(number + by) % len(group)][1])
        for group in groups
        for number in range(len(group))
    ]


@pytest.fixture(scope="module")
def painted(font, clips):
    return known(clips, clips.plan(full=False, names=12, languages=["fr"]))


def test_true_clips_are_right_in_every_way(clips, painted):
    found = measured(clips, painted)
    del found["first frame", "thing"]
    assert set(found.values()) == {1.0}
    # What spins is upright in the first frame alone, which was given, and not looked at.
    known = [one for one in painted if one[0].section == "first frame"]
    upright = [one for one in known if one[0].brief.kind != "spin"]
    assert len(upright) >= 3
    assert measured(clips, upright)["first frame", "thing"] == 1.0


def test_clips_of_nothing_have_nothing_right_but_their_color(clips, painted):
    found = measured(clips, [(wish, np.full_like(made, 255)) for wish, made in painted])
    right = {what for (_, what), value in found.items() if value}
    assert not right - {"background", "no cut"}  # nothing becomes nothing without a cut


def test_a_model_whose_clips_cannot_be_twice_as_long_is_refused():
    with pytest.raises(LuminaError, match="65 frames, and .* twice as many"):
        ClipExam({"size": "64x64", "frames": 65})


def test_clips_of_other_prompts_are_wrong(clips, painted):
    found = measured(clips, shuffled(painted, 1))
    assert found["continuation", "thing"] == 0
    for section in ("English", "held out", "twice as long", "first frame"):
        assert found[section, "thing"] == 0
        assert found[section, "kind of motion"] == 0


def test_a_frame_that_is_given_back_counts_for_nothing(clips, painted):
    """What goes on from it with another thing is wrong, and jumps."""
    known = [pair for pair in painted if pair[0].section == "first frame"]
    others = [
        np.concatenate([true[:1], other[1:]])
        for (_, true), (_, other) in zip(known, known[1:] + known[:1], strict=True)
    ]
    found = measured(clips, [(wish, clip) for (wish, _), clip in zip(known, others, strict=True)])
    assert found["first frame", "thing"] == 0
    assert found["first frame", "no jump"] < 0.5


def test_a_transition_has_both_things_and_no_cut(clips, painted):
    turns = [pair for pair in painted if pair[0].section == "transition"]
    assert len({wish.arguments["to_prompt"] for wish, _ in turns}) > 1
    first = [(wish, np.repeat(made[:1], len(made), axis=0)) for wish, made in turns]
    found = measured(clips, first)
    assert found["transition", "thing at first"] == 1
    assert found["transition", "thing at last"] == 0
    cut = [(w, np.repeat(made[[0, -1]], len(made) // 2, axis=0)) for w, made in turns]
    found = measured(clips, cut)
    assert found["transition", "thing at first"] == found["transition", "thing at last"] == 1
    assert found["transition", "no cut"] == 0


@pytest.mark.usefixtures("font")
def test_a_clip_that_begins_again_has_a_jump_where_it_does():
    """Such as one whose second half is the first one once more."""
    clip = Clip("🍎", "move", "right", 0.2, (0.3, 0.5), 0.45)
    once, longer = (paint_clip(clip, Size(96, 96), count) for count in (FRAMES, 2 * FRAMES))
    assert max(steps_at(longer, FRAMES)) < 1.5
    moved, changed = steps_at(np.concatenate([once, once]), FRAMES)
    assert moved > JUMP
    assert changed > CUT


@pytest.mark.usefixtures("font")
def test_a_thing_that_becomes_another_has_a_jump():
    apple, pear = (
        paint_clip(Clip(thing, "spin", "clockwise", 0.25, extent=0.6), Size(96, 96))
        for thing in ("🍎", "🍐")
    )
    assert steps_at(np.concatenate([apple, pear]), FRAMES)[1] > CUT


def test_held_out_clips_are_those_that_training_leaves_out(clips):
    plan = clips.plan(full=False, names=None, languages=LANGUAGES[1:])
    held_out = [wish.brief.is_held_out for wish in plan if wish.section == "held out"]
    assert len(held_out) == 60
    assert all(held_out)
    others = [wish for wish in plan if wish.section not in ("held out", "transition")]
    assert not any(wish.brief.is_held_out for wish in others)
    assert {wish.language for wish in plan} == set(LANGUAGES)


def test_each_kind_of_motion_has_all_of_the_other_sizes(clips):
    plan = clips.plan(full=False, names=None, languages=())
    asked = [wish for wish in plan if wish.section == "other sizes"]
    pairs = {(wish.brief.kind, wish.arguments["width"], wish.arguments["height"]) for wish in asked}
    assert len(pairs) == len(DIRECTIONS) * len(OTHER_SIZES) == len(asked)


@pytest.mark.usefixtures("soundfont")
def test_true_sounds_are_heard_and_those_of_other_prompts_are_not(sounds):
    plan = sounds.plan(full=False, names=len(KINDS), languages=())
    made = [(wish, medium) for wish, medium in known(sounds, plan) if wish.section == "English"]
    held_out = known(sounds, plan[: len(KINDS) + 4])[-4:]
    right, wrong = (measured(sounds, [*one, *held_out]) for one in (made, shuffled(made, 5)))
    assert right["English", "top-1"] > 0.9
    assert wrong["English", "top-1"] < 0.1


@pytest.mark.usefixtures("soundfont")
def test_long_sounds_last_or_end_and_those_that_begin_again_do_not(sounds):
    plan = sounds.plan(full=False, names=len(KINDS), languages=())
    needed = [wish for wish in plan if wish.section in ("English", "held out")]
    made = known(sounds, [*needed, *(wish for wish in plan if wish.section == "ten seconds")])
    right = measured(sounds, made)
    assert right["ten seconds", "top-1"] > 0.9
    assert right["ten seconds", "notes and hits end"] == 1
    assert right["ten seconds", "what is steady lasts"] == 1
    again = [
        (wish, np.concatenate([medium[: len(medium) // 3], 0 * medium[: len(medium) // 3]] * 2))
        for wish, medium in made
    ]
    wrong = measured(sounds, again)
    assert wrong["ten seconds", "what is steady lasts"] == 0
    silent = measured(sounds, [(wish, 0 * medium) for wish, medium in made])
    assert silent["ten seconds", "top-1"] == silent["English", "top-1"] == 0
    assert silent["ten seconds", "what is steady lasts"] == 0
    assert silent["ten seconds", "notes and hits end"] == 0
    backwards = measured(sounds, [(wish, medium[::-1]) for wish, medium in made])
    assert backwards["ten seconds", "notes and hits end"] < 0.1


def test_each_kind_of_sound_is_asked_for_as_often(sounds):
    plan = sounds.plan(full=False, names=None, languages=())
    english = [wish.brief.kind for wish in plan if wish.section == "English"]
    assert {english.count(kind) for kind in KINDS} == {3}
    assert all(wish.brief.is_held_out for wish in plan if wish.section == "held out")
    plain = [wish for wish in plan if wish.section == "guidance"]
    assert [wish.brief for wish in plain] == [wish.brief for wish in plan[: len(KINDS)]]
    assert {wish.arguments["guidance_scale"] for wish in plain} == {1.0}


@pytest.mark.usefixtures("soundfont")
def test_true_pieces_are_heard_and_those_of_other_prompts_are_not(tunes):
    made = known(tunes, tunes.plan(full=False, names=16, languages=["ja"]))
    right, wrong = measured(tunes, made), measured(tunes, shuffled(made, 3))
    for what in ("instrument", "pitch", "tempo", "key"):
        assert right["English", what] > 0.9
        assert right["ten seconds", what] > 0.9
    assert wrong["English", "instrument"] < 0.2
    assert wrong["English", "key"] < 0.3


def test_pieces_are_asked_for_in_all_languages(tunes):
    plan = tunes.plan(full=False, names=None, languages=LANGUAGES[1:])
    assert {wish.language for wish in plan} == set(LANGUAGES)
    for section in ("English", "held out", "ten seconds", "languages"):
        asked = [wish.brief for wish in plan if wish.section == section]
        assert {tune.form for tune in asked} == set(FORMS)
        assert {tune.instrument for tune in asked} == set(INSTRUMENTS)
    assert all(wish.brief.is_held_out == (wish.section == "held out") for wish in plan)


def test_shares_of_languages_are_counted_apart(tunes):
    plan = tunes.plan(full=False, names=16, languages=["fr", "ja"])
    wishes = [wish for wish in plan if wish.section == "languages"]
    outcomes = [Outcome(wish, wish.language == "fr") for wish in wishes]
    lines = by_language(outcomes, lambda one: one.verdict, "tempo")
    assert [(line.what, line.value) for line in lines] == [("tempo, fr", 1.0), ("tempo, ja", 0.0)]


def test_the_worlds_of_a_model_are_those_of_its_record(tmp_path):
    assert worlds_of(tmp_path) == []
    data = [{"kind": "world", "world": "music"}, {"kind": "folder", "path": "x"}]
    (tmp_path / MADE_BY).write_text(json.dumps({"recipe": {"data": data}}))
    assert worlds_of(tmp_path) == ["music"]
