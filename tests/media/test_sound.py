import numpy as np
import pytest

from lumina.errors import LuminaError
from lumina.media.sound import (
    LONGEST_SECONDS,
    read_sound,
    read_sound_record,
    resample,
    write_sound,
)

soundfile = pytest.importorskip("soundfile")
RECORD = {"prompt": "ein Klavier spielt „schön“, 琴", "seed": 7, "seconds": 1.5}
TONE = (0.5 * np.sin(np.arange(16_000) * 0.2)).astype(np.float32)


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "A.WAV"])
def test_a_file_gives_back_its_sound_and_its_request(tmp_path, name):
    write_sound(tmp_path / name, TONE, RECORD)
    assert np.abs(read_sound(tmp_path / name) - TONE).max() < 2 / 32768
    assert read_sound_record(tmp_path / name) == RECORD


@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
@pytest.mark.parametrize("letters", [300, 1000, 5000])
def test_a_long_request_of_any_script_comes_back(tmp_path, name, letters):
    signs = np.random.default_rng(0).integers(0x4E00, 0x9FFF, letters)
    record = RECORD | {"prompt": "".join(map(chr, signs))}
    write_sound(tmp_path / name, TONE[:101], record)
    assert read_sound_record(tmp_path / name) == record
    assert len(read_sound(tmp_path / name)) == 101


def test_samples_beyond_the_limit_are_cut_and_do_not_wrap(tmp_path):
    write_sound(tmp_path / "a.wav", 3 * TONE, {})
    assert np.abs(read_sound(tmp_path / "a.wav") - np.clip(3 * TONE, -1, 1)).max() < 2 / 32768


def test_a_file_is_replaced_only_if_asked(tmp_path):
    path = tmp_path / "a.wav"
    write_sound(path, TONE, {"seed": 1})
    with pytest.raises(LuminaError, match="exists"):
        write_sound(path, TONE, {"seed": 2})
    assert read_sound_record(path) == {"seed": 1}
    write_sound(path, TONE, {"seed": 2}, force=True)
    assert read_sound_record(path) == {"seed": 2}
    assert [file.name for file in tmp_path.iterdir()] == ["a.wav"]


def test_an_unknown_ending_is_refused(tmp_path):
    with pytest.raises(LuminaError, match=r"\.ogg"):
        write_sound(tmp_path / "a.ogg", TONE, {})
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(LuminaError, match="cannot write"):
        write_sound(tmp_path / "absent" / "a.wav", TONE, {})


def test_what_is_no_sound_is_refused(tmp_path):
    path = tmp_path / "a.wav"
    with pytest.raises(LuminaError, match="no file"):
        read_sound(path)
    path.write_bytes(b"not a sound at all" * 10)
    for read in (read_sound, read_sound_record):
        with pytest.raises(LuminaError, match="not a sound"):
            read(path)


@pytest.mark.parametrize("samples", [0, int(LONGEST_SECONDS * 100) + 100])
def test_an_empty_and_a_too_long_file_are_refused(tmp_path, samples):
    soundfile.write(tmp_path / "a.wav", np.zeros(samples), 100)
    with pytest.raises(LuminaError, match="seconds long"):
        read_sound(tmp_path / "a.wav")


def test_a_file_of_another_program_has_no_request(tmp_path):
    soundfile.write(tmp_path / "a.wav", TONE, 16_000)
    with pytest.raises(LuminaError, match="does not say"):
        read_sound_record(tmp_path / "a.wav")


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000])
def test_a_tone_keeps_its_frequency_at_every_rate(tmp_path, rate):
    times = np.arange(rate) / rate
    stereo = np.stack([np.sin(2 * np.pi * 1000 * times), np.zeros(rate)], 1)
    soundfile.write(tmp_path / "a.wav", stereo, rate)
    found = read_sound(tmp_path / "a.wav")
    assert len(found) == 16_000
    spectrum = np.abs(np.fft.rfft(found))
    assert spectrum.argmax() == 1000
    assert spectrum.max() / 8000 == pytest.approx(0.5, abs=0.01)


def test_resampling_leaves_out_what_cannot_be_held():
    fast = np.sin(2 * np.pi * 12_000 * np.arange(48_000) / 48_000).astype(np.float32)
    assert np.abs(resample(fast, 48_000)).max() < 1e-3
