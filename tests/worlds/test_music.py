from dataclasses import replace

import numpy as np
import pytest

from lumina.worlds.music import (
    FORMS,
    INSTRUMENTS,
    MODES,
    PITCHES,
    TEMPI,
    Tune,
    compose,
    draw_tune,
    write_tune,
)
from lumina.worlds.music_hearing import hear, key_of, tempo_of
from lumina.worlds.music_judge import judge_tune, pitch_share
from lumina.worlds.sound_judge import usual_judge

RATE = 16_000
SCALE = Tune("rising scale", "piano", key=2, mode="minor", tempo=120)


def plucked(pitches, beat, seconds):
    """Notes that fade, each with four partials, without any soundfont."""
    wave = np.zeros(round(seconds * RATE))
    for number, chord in enumerate(pitches):
        start = round((0.05 + number * beat) * RATE)
        times = np.arange(min(round(0.85 * beat * RATE), len(wave) - start)) / RATE
        for pitch in chord:
            hertz = 440 * 2 ** ((pitch - 69) / 12)
            for partial in range(1, 5):
                tone = np.sin(2 * np.pi * hertz * partial * times) / partial
                fading = np.exp(-3 * times) * np.clip((times[-1] - times) / 0.05, 0, 1)
                wave[start : start + len(times)] += 0.1 * tone * fading
    return wave.astype(np.float32)


def performed(tune, seed=0, beats=7):
    notes = compose(tune, np.random.default_rng(seed), beats=beats)
    return notes, plucked(notes, tune.beat, 0.2 + beats * tune.beat)


@pytest.mark.parametrize("form", FORMS)
def test_pieces_stay_in_their_key_and_begin_on_its_first_pitch(form):
    for seed in range(20):
        tune = replace(draw_tune(np.random.default_rng(seed)), form=form)
        notes = compose(tune, np.random.default_rng(seed), beats=9)
        assert len(notes) == 9
        assert {pitch % 12 for chord in notes for pitch in chord} <= set(tune.scale)
        assert notes[0][0] % 12 == tune.key


def test_scales_go_the_way_they_say():
    rising = [pitches[0] for pitches in compose(SCALE, np.random.default_rng(0), beats=8)]
    assert np.diff(rising).tolist() == [2, 1, 2, 2, 1, 2, 2]
    falling = replace(SCALE, form="falling scale")
    back = [pitches[0] for pitches in compose(falling, np.random.default_rng(0), beats=8)]
    assert back == rising[::-1]


def test_captions_tell_everything():
    caption = write_tune(SCALE)
    assert caption == "a rising scale in D minor on a piano at 120 beats per minute"
    for seed in range(20):
        told = write_tune(SCALE, np.random.default_rng(seed))
        assert all(word in told for word in ("D minor", "piano", "120", "rising scale"))


def test_training_never_draws_what_is_held_out():
    rng = np.random.default_rng(0)
    assert not any(draw_tune(rng).is_held_out for _ in range(300))
    every = [
        [Tune("melody", instrument, key, mode, 80) for key in range(12) for mode in MODES]
        for instrument in INSTRUMENTS
    ]
    shares = [np.mean([tune.is_held_out for tune in tunes]) for tunes in every]
    assert 0.05 < np.mean(shares) < 0.15
    assert min(shares) > 0


def test_no_form_and_no_tempo_of_what_is_held_out_is_trained_on():
    rng = np.random.default_rng(0)
    asked = draw_tune(rng, is_held_out=True)
    for form in FORMS:
        for tempo in TEMPI:
            assert replace(asked, form=form, tempo=tempo).is_held_out


@pytest.mark.parametrize("tempo", [80, 120, 180])
def test_the_tempo_is_heard_within_two_percent(tempo):
    tune = replace(SCALE, tempo=tempo)
    _, wave = performed(tune)
    assert tempo_of(hear(wave).starts) == pytest.approx(tempo, rel=0.02)


def test_a_missed_note_does_not_change_the_tempo():
    assert tempo_of(np.array([0.0, 0.5, 1.0, 2.0, 2.5])) == pytest.approx(120)


def test_pitches_are_heard_within_a_fifth_of_a_semitone():
    notes, wave = performed(SCALE)
    assert np.abs(hear(wave).pitches - [chord[0] for chord in notes]).max() < 0.2


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("mode", list(MODES))
def test_the_key_is_heard(form, mode):
    for key in (0, 5, 10):
        tune = Tune(form, "piano", key, mode, 120)
        _, wave = performed(tune, seed=key)
        heard = hear(wave)
        assert key_of(heard, is_chords=form == "chords")[0] == key, PITCHES[key]
        if form != "melody":  # some have none of the notes by which modes differ
            assert key_of(heard, is_chords=form == "chords")[1] == mode
        assert pitch_share(heard, tune, beats=7) == 1.0


def test_a_scale_of_another_key_has_wrong_pitches():
    _, wave = performed(SCALE)
    other = replace(SCALE, key=3)
    assert pitch_share(hear(wave), other, beats=7) < 0.2


def test_a_piece_that_stops_early_keeps_neither_tempo_nor_key_nor_all_pitches():
    _, wave = performed(SCALE)
    whole = judge_tune(wave, SCALE, instruments=usual_judge("music"))
    assert (whole.pitch, whole.tempo, whole.key) == (1.0, True, True)
    assert [type(part) for part in whole] == [bool, float, bool, bool]  # which JSON can hold
    wave[len(wave) // 2 :] = 0
    half = judge_tune(wave, SCALE, instruments=usual_judge("music"))
    assert half.pitch == pytest.approx(4 / 7, abs=0.15)
    assert not half.tempo
    assert not half.key


def test_silence_has_no_notes_and_no_instrument():
    silence = np.zeros(2 * RATE, np.float32)
    assert len(hear(silence).starts) == 0
    for name in INSTRUMENTS:
        tune = replace(SCALE, instrument=name)
        verdict = judge_tune(silence, tune, instruments=usual_judge("music"))
        assert verdict == (False, 0.0, False, False)


def test_a_first_note_that_is_late_is_the_first_beat():
    notes = compose(SCALE, np.random.default_rng(0), beats=9)
    first, others = ([notes[0], *[()] * 8], [(), *notes[1:]])
    late, rest = (plucked(part, SCALE.beat, 0.2 + 9 * SCALE.beat) for part in (first, others))
    heard = hear(np.roll(late, round(0.045 * RATE)) + rest)
    assert len(heard.starts) == 9
    assert pitch_share(heard, SCALE, beats=9) == 1.0
