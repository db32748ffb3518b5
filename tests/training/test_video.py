"""Clips from data to files: trained, exported, loaded, sampled and written by the command."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import FirstBlockCacheConfig
from PIL import Image

import lumina
from lumina import LuminaError, LuminaVideoPipeline
from lumina.catalog import find
from lumina.cli import main
from lumina.media import read_record
from lumina.media.video import read_last_frames
from lumina.pipelines import checks
from lumina.training.flow import FlowObjective
from lumina.training.planning import plan
from lumina.training.recipes import FlowRecipe
from lumina.training.trainer import train

WORLD = {"kind": "world", "world": "motion", "sizes": ["32x32x3"], "examples": 6}


@pytest.fixture(scope="module")
def recipe(tiny_folder, tmp_path_factory):
    made = FlowRecipe(
        out=str(tmp_path_factory.mktemp("video")),
        modality="video",
        autoencoder=str(tiny_folder),
        text_encoder=str(tiny_folder),
        data=(WORLD,),
        crops={"side": 32},
        width=24,
        depth=2,
        heads=3,
        kv_heads=1,
        multiple_of=16,
        batch_size=4,
        steps=2,
        device="cpu",
        preview_every=2,
        preview_steps=2,
        usual_steps=3,
        usual_guidance=2.5,
        save_dtype="float32",
    )
    made.check()
    return made


@pytest.fixture(scope="module")
def folder(recipe):
    return train(recipe)


@pytest.fixture(scope="module")
def pipeline(folder):
    pipeline = lumina.load(folder, dtype="float32")
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(1)
    for weight in pipeline.transformer.parameters():
        weight.data += 0.1 * torch.randn(weight.shape, generator=generator)
    return pipeline


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_plan_counts_clips(recipe):
    lines = plan(recipe)
    assert any("32x32x3: 6 examples" in line for line in lines)


def test_a_run_draws_what_it_is_heading_for(recipe, folder):
    assert (folder.parent / "step-000002.png").exists()


def test_clips_have_the_usual_size_and_rate(pipeline):
    (clip,) = pipeline("a dog", num_inference_steps=2, generator=seeded()).media
    assert clip.shape == (3, 32, 32, 3)
    assert clip.dtype == np.uint8
    assert pipeline.file_facts == {"frame_rate": 8.0}


def test_what_suits_a_model_goes_where_it_goes(recipe, folder, pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path)
    saved = lumina.load(tmp_path, dtype="float32")
    parts = LuminaVideoPipeline.from_pipe(pipeline)
    for one in (pipeline, saved, parts):
        one.set_progress_bar_config(disable=True)
        one("a dog", output_type="latent")
        assert (one.num_timesteps, one.guidance_scale) == (3, 2.5)
        one("a dog", num_inference_steps=1, guidance_scale=1.0, output_type="latent")
        assert (one.num_timesteps, one.guidance_scale) == (1, 1.0)
    usual = {"size": "32x32", "frames": 3, "steps": 3, "guidance": 2.5}
    assert find(folder).defaults == find(tmp_path).defaults == usual
    with pytest.raises(LuminaError, match="usual_steps is for other media than pictures"):
        replace(recipe, modality="image", usual_steps=5).check()


def test_clips_do_not_depend_on_their_company(pipeline):
    options = {"num_inference_steps": 2, "output_type": "latent", "frames": 4}
    both = pipeline(["a dog", "a cat"], generator=[seeded(1), seeded(2)], **options).media
    alone = pipeline("a cat", generator=[seeded(2)], **options).media
    assert torch.allclose(both[1:], alone, atol=1e-4)


def test_frames_of_a_longer_clip_are_nearer_unless_some_are_known(pipeline):
    def apart(frames, hints=None):
        return pipeline._positions(torch.zeros(2, 4, frames, 4, 4), hints)["rope"].linear[0]

    trained = pipeline.config["trained_frames"]  # the run wrote it
    assert [apart(trained * times) for times in (1, 2, 3)] == [1.0, 2.0, 3.0]
    assert apart(1) == 1.0
    assert apart(2 * trained, torch.zeros(2, 5, 2 * trained, 4, 4)) == 1.0
    pipeline.register_to_config(trained_frames=0)  # not known
    assert apart(2 * trained) == 1.0
    pipeline.register_to_config(trained_frames=trained)


def test_known_frames_stay_and_matter(pipeline):
    picture = Image.new("RGB", (32, 32), "red")
    options = {"num_inference_steps": 2, "output_type": "latent"}
    told = pipeline("a dog", generator=seeded(), first_frames=[picture], **options).media
    free = pipeline("a dog", generator=seeded(), **options).media
    known = pipeline.scaling.scale(pipeline.codec.encode([np.asarray(picture)[None]]).mean[0])
    assert torch.allclose(told[0, :, :1], known, atol=1e-5)
    assert not torch.allclose(told[:, :, 1:], free[:, :, 1:], atol=1e-3)


def test_several_clips_may_begin_with_the_same_frames(pipeline):
    given = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    options = {"num_inference_steps": 1, "num_videos_per_prompt": 2, "return_dict": False}
    (clips,) = pipeline("a dog", first_frames=given, **options)
    assert np.array_equal(clips[0][:2], clips[1][:2])
    assert not np.array_equal(clips[0][2:], clips[1][2:])


def test_a_transition_is_from_one_prompt_to_the_other(pipeline):
    options = {"num_inference_steps": 1, "output_type": "latent", "frames": 8}
    ends = [pipeline(p, generator=seeded(), **options).media for p in ("a dog", "a cat")]
    whole = pipeline("a dog", to_prompt="a cat", generator=seeded(), **options).media
    # With one step each frame follows one velocity, of its own prompt at both ends.
    assert torch.allclose(whole[:, :, :2], ends[0][:, :, :2], atol=1e-4)
    assert torch.allclose(whole[:, :, -2:], ends[1][:, :, -2:], atol=1e-4)
    same = pipeline("a dog", to_prompt="a dog", generator=seeded(), **options).media
    assert torch.allclose(same, ends[0], atol=1e-4)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"frames": 0}, "out of range"),
        ({"frames": 129}, "out of range"),
        ({"width": 40}, "multiples of 16"),
        ({"width": 0}, "width is 0"),
        ({"first_frames": [Image.new("RGB", (32, 32))] * 3}, "3 pictures are known of 3"),
        ({"first_frames": []}, "0 pictures are known of 3"),
        ({"first_frames": [Image.new("RGB", (32, s)) for s in (32, 16)]}, "32x16 pixels"),
        ({"extrapolation": "ntk"}, "no effect in LuminaVideoPipeline"),
        ({"first_frames": [Image.new("RGB", (16, 32))]}, "16x32 pixels"),
        ({"to_prompt": "a cat", "num_videos_per_prompt": 2}, "one transition"),
        ({"output_type": "pil"}, "allowed: np, latent"),
        ({"num_videos_per_prompt": 0}, "num_videos_per_prompt is 0"),
        ({"to_prompt": ""}, "to_prompt is '', which says nothing"),
        ({"to_prompt": "a cat", "first_frames": [Image.new("RGB", (32, 32))]}, "cannot both"),
        (
            {"to_prompt": "a cat", "callback_on_step_end_tensor_inputs": ["prompt_embeds"]},
            "a transition has features of two prompts",
        ),
        ({"frames": 1, "to_prompt": "a cat"}, "no room for what to_prompt asks for"),
    ],
)
def test_what_cannot_be_made_is_refused(pipeline, options, reason):
    def never(*_):
        pytest.fail("steps were taken first")

    with pytest.raises(LuminaError, match=reason):
        pipeline("a dog", num_inference_steps=1, callback_on_step_end=never, **options)


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.full((32, 32, 3), 0.9), "of float64, which is no picture"),
        (np.zeros((32, 32, 4), np.uint8), r"array \(32, 32, 4\)"),
        (np.zeros((32, 32), np.uint8), r"array \(32, 32\) of uint8"),
    ],
)
def test_arrays_that_are_no_bytes_of_colors_are_refused(array, reason):
    checks.pictures("known", [np.zeros((32, 32, 3), np.uint8)])
    with pytest.raises(LuminaError, match=reason):
        checks.pictures("known", [array])


def test_a_transition_has_no_step_cache(pipeline):
    pipeline.transformer.enable_cache(FirstBlockCacheConfig(threshold=1.0))
    try:
        with pytest.raises(LuminaError, match="a transition asks for velocities"):
            pipeline("a dog", to_prompt="a cat", num_inference_steps=1)
    finally:
        pipeline.transformer.disable_cache()


def test_each_prompt_keeps_its_negative_however_many_clips_it_has(pipeline):
    options = {"num_inference_steps": 2, "output_type": "latent"}
    both = pipeline(
        ["a dog", "a cat"],
        negative_prompt=["red", "blue"],
        num_videos_per_prompt=2,
        generator=[seeded(number) for number in range(4)],
        **options,
    ).media
    alone = pipeline("a cat", negative_prompt="blue", generator=seeded(3), **options).media
    assert torch.allclose(both[3:], alone, atol=1e-4)


def test_first_frames_are_seen_upright_and_on_white(pipeline):
    clear = Image.new("RGBA", (32, 32), (255, 0, 0, 0))
    white = Image.new("RGB", (32, 32), "white")
    options = {"num_inference_steps": 1, "output_type": "latent"}
    one, other = (
        pipeline("a dog", generator=seeded(), first_frames=[frame], **options).media
        for frame in (clear, white)
    )
    assert torch.equal(one, other)


def test_media_have_no_preset(pipeline):
    with pytest.raises(LuminaError, match="LuminaVideoPipeline has no preset"):
        lumina.LuminaVideoPipeline(**pipeline.components, preset="original")


@pytest.mark.parametrize("ending", ["mp4", "gif"])
def test_the_command_writes_clips_with_their_record(folder, tmp_path, capsys, ending):
    path = tmp_path / f"clip.{ending}"
    words = ["generate", "--model", str(folder), "a dog", "--frames", "4", "--steps", "2"]
    words += ["--dtype", "float32"]  # whose last bits show in no pixel
    assert main([*words, "--seed", "3", "-o", str(path)]) == 0
    record = read_record(path)
    assert record["modality"] == "video"
    assert record["request"]["frames"] == 4
    if ending == "mp4":
        assert read_last_frames(path, 9, rate=8).shape == (4, 32, 32, 3)
    again = tmp_path / f"again.{ending}"
    assert main(["generate", "--from", str(path), "-o", str(again)]) == 0
    assert read_record(again) == record
    # Products of matrices may differ in their last bits by where weights lie in memory. Five pixels
    # that differ by 1 made H.264 differ by up to 15 in some, and by 0.8 in the mean.
    clips = [read_last_frames(file, 9, rate=8).astype(int) for file in (path, again)]
    difference = np.abs(clips[0] - clips[1])
    assert difference.mean() <= 1 if ending == "mp4" else difference.max() <= 3
    capsys.readouterr()
    assert main(["show", str(path)]) == 0
    assert json.loads(capsys.readouterr().out)["request"]["prompt"] == "a dog"


def test_a_clip_is_gone_on_with(folder, tmp_path, capsys):
    words = ["generate", "--model", str(folder), "--steps", "1", "--seed", "1"]
    first, second = tmp_path / "first.mp4", tmp_path / "second.mp4"
    assert main([*words, "a dog", "-o", str(first)]) == 0
    assert main([*words, "a dog", "--frames", "4", "--first", str(first), "-o", str(second)]) == 0
    assert "the last 2 of the first frames are taken" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["generate", "a dog", "-o", "x.wav"], "does not end in"),
        (["generate", "a dog", "-o", "x.png"], "hint: --grid and --vary put"),
        (["generate", "a dog", "-o", "x.png"], "models of pictures, points,"),
        (["generate", "a dog", "--seconds", "3"], ""),
        (["edit", "x.png", "a dog"], "needs a model of pictures"),
        (["generate", "a dog", "--two-stage"], "has no meaning"),
        (["generate", "a dog", "--first", "missing.png"], "cannot read"),
        (["generate", "a dog", "--first", "missing.png", "--frames", "1"], "has no room"),
        (["generate", "a dog", "--to-prompt", "a cat", "--frames", "1"], "has no room"),
    ],
)
def test_the_command_refuses_what_clips_cannot_be(
    folder, tmp_path, monkeypatch, capsys, words, reason
):
    monkeypatch.chdir(tmp_path)
    try:
        code = main([*words, "--model", str(folder)])
    except SystemExit as stop:
        code = stop.code
    assert code not in (0, None)
    assert reason in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_sources_of_another_modality_are_refused(recipe):
    import dataclasses

    drawings = {"kind": "shapes", "pictures": 4, "side": 32}
    with pytest.raises(LuminaError, match="the modality image"):
        FlowObjective(dataclasses.replace(recipe, data=(drawings,)))
