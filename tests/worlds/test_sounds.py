from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from lumina.errors import LuminaError
from lumina.worlds.sound_judge import SoundJudge
from lumina.worlds.sound_names import NAMES, name_sound
from lumina.worlds.soundfont import DRUMS, SAMPLE_RATE, Note, play
from lumina.worlds.sounds import KINDS, Brief, draw_brief, render, write
from lumina.worlds.sounds_world import Played, SoundWorld
from lumina.worlds.vocabulary import LANGUAGES

pytestmark = pytest.mark.usefixtures("soundfont")


DITHER = 4 / 32768  # fluidsynth adds noise of about one step of its 16 bits


def strongest_hertz(waveform):
    spectrum = np.abs(np.fft.rfft(waveform * np.hanning(len(waveform))))
    return spectrum.argmax() * SAMPLE_RATE / len(waveform)


def test_a_key_sounds_at_its_frequency():
    waveform = play([Note(0.1, 1.0, 69, 73)], 1.2)  # a flute
    assert waveform.shape == (round(1.2 * SAMPLE_RATE),)
    assert strongest_hertz(waveform) == pytest.approx(440, rel=0.03)


def test_notes_begin_when_they_say():
    waveform = play([Note(0.7, 0.2, 56, DRUMS)], 1.5)
    loud = np.flatnonzero(np.abs(waveform) > 0.2 * np.abs(waveform).max())
    assert loud[0] / SAMPLE_RATE == pytest.approx(0.7, abs=0.02)


def test_the_same_notes_sound_the_same_whatever_was_played_before():
    notes = [Note(0.0, 0.5, 60, 0), Note(0.3, 0.5, 67, 40)]
    first = play(notes, 1.0)
    play([Note(0.0, 2.0, 30, 30)], 0.5)
    assert np.abs(play(notes, 1.0) - first).max() < DITHER


def test_threads_that_play_at_once_do_not_mix_their_sounds():
    programs = (0, 24, 40, 56, 65, 73, 19, 11)
    tunes = [[Note(0.05 * i, 0.2, 50 + 2 * i, each)] for i, each in enumerate(programs)]
    alone = [play(tune, 0.5) for tune in tunes]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda tune: play(tune, 0.5), tunes))
    assert np.abs(np.array(together) - np.array(alone)).max() < DITHER


def test_silence_comes_of_no_notes():
    play([Note(0.0, 2.0, 60, 19)], 0.5)
    assert np.abs(play([], 0.3)).max() < DITHER


@pytest.mark.parametrize("name", list(KINDS))
def test_every_kind_is_heard_and_told(name):
    rng = np.random.default_rng(1)
    waveform = render(Brief(name), rng, seconds=2.0)
    assert 0.35 < np.abs(waveform).max() <= 0.96
    assert write(Brief(name))
    assert "{" not in write(Brief(name, 3), rng)


def test_captions_tell_number_and_register():
    assert write(Brief("piano", 3)) == "a piano plays three notes"
    assert write(Brief("piano", 1, "low")) == "a piano plays a low note"
    assert write(Brief("gunshot", 2)) == "two gunshots"
    assert write(Brief("cowbell")) == "a cowbell"


def test_other_languages_name_every_kind():
    world = SoundWorld(foreign=True)
    assert set(NAMES) == set(LANGUAGES) - {"en"}
    for language in NAMES:
        assert len({name_sound(kind, language) for kind in KINDS}) == len(KINDS)
    captions = world.captions(Played(Brief("violin", 2), 0))
    assert {"Geige", "バイオリン", "скрипка"} < set(captions)
    assert not set(SoundWorld().captions(Played(Brief("violin", 2), 0))) & set(captions[-13:])


def test_low_notes_are_lower_than_high_ones():
    rng = np.random.default_rng(2)
    low, high = (
        strongest_hertz(render(Brief("flute", 1, register), rng, seconds=2.0))
        for register in ("low", "high")
    )
    assert high > 1.2 * low


def test_training_never_draws_what_is_held_out():
    rng = np.random.default_rng(0)
    assert not any(draw_brief(rng).is_held_out for _ in range(500))
    assert not any(Brief(name).is_held_out for name in KINDS)


def test_a_judge_names_sounds_that_it_never_heard(tmp_path):
    names = ("pipe organ", "snare drum", "helicopter")

    def clips(seed, count):
        rng = np.random.default_rng(seed)
        return {n: [render(Brief(n), rng, seconds=2.0) for _ in range(count)] for n in names}

    judge = SoundJudge.fit(clips(0, 8))
    judge.save(tmp_path / "judge.safetensors")
    again = SoundJudge.load(tmp_path / "judge.safetensors")
    for name, waveforms in clips(1, 3).items():
        for waveform in waveforms:
            verdict = judge.judge(waveform)
            assert verdict.name == name
            assert again.judge(waveform).name == name
            assert 0 <= verdict.margin <= 1


def test_a_missing_judge_is_named(tmp_path):
    with pytest.raises(LuminaError, match="no judge"):
        SoundJudge.load(tmp_path / "judge.safetensors")


@pytest.mark.parametrize("kind", [name for name, kind in KINDS.items() if kind.is_steady])
def test_what_is_steady_never_falls_silent(kind):
    """A key that is pressed again while it is down is not let go with the first press."""
    for seed in range(3):
        waveform = render(Brief(kind), np.random.default_rng(seed), seconds=9.0)
        seconds = np.abs(waveform).reshape(18, -1).max(1)
        assert seconds.min() > 0.02 * seconds.max()
