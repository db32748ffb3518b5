"""Sounds, clips and clouds of one's own, from files to what is trained on."""

import numpy as np
import pytest

from lumina import LuminaError
from lumina.media.ply import write_ply
from lumina.media.sound import write_sound
from lumina.modalities import MODALITIES, find_modality
from lumina.training.data.decoding import BrokenPictureError
from lumina.training.data.sources import OF_FILES, MediaSource, read_source
from lumina.training.planning import plan
from lumina.training.recipes import FlowRecipe
from lumina.training.trainer import train

RNG = np.random.default_rng(0)


def source_of(folder, **settings):
    source = read_source({"kind": "media", "path": str(folder), **settings})
    assert isinstance(source, MediaSource)
    source.check()
    return source


@pytest.fixture
def sounds(tmp_path):
    pytest.importorskip("soundfile")
    (tmp_path / "deep").mkdir()
    for name, seconds, rate in (("a.wav", 1.0, 16_000), ("deep/b.flac", 0.2, 48_000)):
        wave = 0.5 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate)) / rate)
        write_sound(tmp_path / name, wave.astype(np.float32), {}, sample_rate=rate)
    (tmp_path / "a.txt").write_text("A Tone\na hum")
    (tmp_path / "deep/b.json").write_text('{"caption": "a beep", "loss_weight": 2}')
    (tmp_path / ".hidden.wav").write_bytes(b"")
    (tmp_path / "cover.png").write_bytes(b"")
    return tmp_path


def test_files_come_at_each_size_with_what_stands_beside_them(sounds):
    examples, report = source_of(sounds, sizes=["16", "32"]).find()
    assert [one.key for one in examples] == [
        "16 a.wav",
        "16 deep/b.flac",
        "32 a.wav",
        "32 deep/b.flac",
    ]
    assert [one.origin for one in examples[::2]] == ["a.wav", "a.wav"]
    assert examples[0].captions.every() == ("a tone", "a hum")
    assert (examples[1].captions.every(), examples[1].loss_weight) == (("a beep",), 2)
    assert (report.found, report.used) == (4, 4)


def test_sounds_are_cut_or_followed_by_silence_at_one_rate(sounds):
    (long, short), _ = source_of(sounds, sizes=["32"]).find()
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(32 * 256) / 16_000)
    assert long.medium.open() == pytest.approx(tone, abs=1e-3)
    beep = short.medium.open()
    assert beep.shape == (32 * 256,)
    assert beep[400:2800] == pytest.approx(tone[400:2800], abs=1e-2)
    assert not beep[3200:].any()


def test_files_that_are_no_sounds_are_broken(sounds):
    (sounds / "fake.wav").write_bytes(b"\x89PNG\r\n")
    (sounds / "empty.flac").write_bytes(b"")
    write_sound(sounds / "none.wav", np.zeros(0, np.float32), {})
    examples, report = source_of(sounds, sizes=["16"], caption="a hum").find()
    assert [name for name, _ in report.broken] == ["empty.flac", "fake.wav", "none.wav"]
    assert "fake.wav is not a sound" in report.broken[1].reason
    assert len(examples) == report.used == 2


def test_files_that_are_no_clips_are_broken(tmp_path):
    pytest.importorskip("av")
    (tmp_path / "a.mp4").write_bytes(b"not a clip")
    examples, report = source_of(tmp_path, of="video", sizes=["32x32x4"], caption="a").find()
    assert [name for name, _ in report.broken] == ["a.mp4"]
    assert not examples


def test_a_missing_library_of_files_is_told(sounds, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(LuminaError, match="need the package 'soundfile'"):
        source_of(sounds, sizes=["16"])


def test_another_file_has_another_digest(sounds):
    (one, other), _ = source_of(sounds, sizes=["32"]).find()
    before = one.medium.digest()
    assert before != other.medium.digest()
    (sounds / "a.wav").write_bytes((sounds / "deep/b.flac").read_bytes())
    assert one.medium.digest() == other.medium.digest()


def test_clips_are_the_middle_of_frames_at_eight_a_second(tmp_path):
    pytest.importorskip("av")
    from lumina.media.video import write_mp4

    clip = np.zeros((13, 32, 64, 3), np.uint8)
    clip[:, :, 16:48] = 15 * np.arange(13)[:, None, None, None]  # brighter each frame
    write_mp4(tmp_path / "a.mp4", clip, {}, frame_rate=24)
    (one,), _ = source_of(tmp_path, of="video", sizes=["32x32x4"], caption="light").find()
    frames = one.medium.open()
    assert frames.shape == (4, 32, 32, 3)
    assert frames.mean((1, 2, 3)) == pytest.approx([0, 45, 90, 135], abs=6)
    (long,), _ = source_of(tmp_path, of="video", sizes=["32x32x6"], caption="light").find()
    with pytest.raises(BrokenPictureError, match="has 5 frames, 8 a second, and 6 are needed"):
        long.medium.open()


def test_clouds_fill_a_box_of_side_one(tmp_path):
    points = RNG.uniform((10, 0, -3), (14, 2, -2), (600, 3)).astype(np.float32)
    write_ply(tmp_path / "a.ply", points, {})
    (one,), _ = source_of(tmp_path, of="points", sizes=["256"], caption="a brick").find()
    cloud = one.medium.open()
    assert cloud.shape == (256, 3)
    assert np.abs(cloud).max() <= 0.5
    assert cloud[:, 0].max() - cloud[:, 0].min() == pytest.approx(1, abs=0.05)
    assert cloud[:, 1].max() - cloud[:, 1].min() == pytest.approx(0.5, abs=0.05)
    few = source_of(tmp_path, of="points", sizes=["601"], caption="a brick").find().report
    assert "600 points, and 601 are needed" in few.broken[0].reason


def test_modalities_of_files_are_those_that_read_them():
    read = [name for name in MODALITIES if find_modality(name).endings]
    assert sorted(read) == sorted(OF_FILES)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({}, "frames of 16 ms"),
        ({"of": "video", "sizes": ["64x64"]}, "width x height x frames"),
        ({"of": "smell", "sizes": ["1"]}, "of"),
        ({"sizes": ["many"]}, "size is 'many'"),
    ],
)
def test_what_no_file_can_be_is_refused(tmp_path, settings, reason):
    with pytest.raises(LuminaError, match=reason):
        source_of(tmp_path, **settings)


def test_a_run_on_ones_own_clouds(tmp_path, tiny_folder):
    data = tmp_path / "data"
    data.mkdir()
    for number in range(4):
        write_ply(data / f"{number}.ply", RNG.normal(size=(300, 3)).astype(np.float32), {})
    (data / "bad.ply").write_text("ply, or not")
    table = {"kind": "media", "of": "points", "path": str(data), "sizes": ["256"]}
    recipe = FlowRecipe(
        out=str(tmp_path / "run"),
        modality="points",
        text_encoder=str(tiny_folder),
        data=({**table, "caption": "a heap"},),
        width=24,
        depth=1,
        heads=3,
        kv_heads=1,
        multiple_of=16,
        batch_size=2,
        steps=1,
        device="cpu",
        preview_steps=1,
        prompts=("a heap",),
        validation=0.0,
    )
    recipe.check()
    told = "\n".join(plan(recipe))
    assert "5 found, 4 used" in told
    assert "1 broken: bad.ply" in told
    assert (train(recipe) / "model_index.json").is_file()
