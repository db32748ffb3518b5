"""Speech from data to files: trained, exported, loaded, sampled and written by the command."""

import shutil

import numpy as np
import pytest
import torch

import lumina
from lumina import LuminaError
from lumina.cli import main
from lumina.media import read_record
from lumina.media.sound import read_sound
from lumina.modalities.sound.spectral import SpectralVocoder
from lumina.modalities.speech import HINTS
from lumina.pipelines.speech import REST
from lumina.spelling import VOICES, count_frames
from lumina.training.flow import FlowObjective
from lumina.training.recipes import FlowRecipe
from lumina.training.sound_clips import Shares, SoundClips
from lumina.training.trainer import train
from lumina.worlds.speaking import SPEAKERS

pytest.importorskip("soundfile")
pytestmark = pytest.mark.skipif(
    not all(shutil.which(speaker.program) for speaker in SPEAKERS.values()),
    reason="espeak-ng and flite are not installed",
)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    vocoder = tmp_path_factory.mktemp("speech-parts") / "vocoder"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        SpectralVocoder(width=16, depth=1, inner_width=16).save_pretrained(vocoder)
    made = FlowRecipe(
        out=str(tmp_path_factory.mktemp("speech")),
        modality="speech",
        backbone="flag-dit",
        autoencoder=str(vocoder),
        classes=len(VOICES),
        data=(
            {
                "kind": "world",
                "world": "speech",
                "sizes": ["128"],
                "examples": 4,
                "settings": {"longest": 96},
            },
        ),
        width=24,
        depth=2,
        heads=3,
        kv_heads=1,
        multiple_of=16,
        batch_size=2,
        steps=2,
        device="cpu",
        preview_every=2,
        preview_steps=1,
        prompts=("the red cat",),
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


def say(pipeline, text="the red cat", **options):
    options = {"num_inference_steps": 1, "output_type": "mel", "generator": seeded()} | options
    return pipeline(text, **options).media[0]


def test_training_tells_letters_and_voices_together_or_not_at_all(recipe):
    batch = FlowObjective(recipe).batch(0)
    assert batch.hints.shape == (2, HINTS, 128)
    for hints, label in zip(batch.hints, batch.condition, strict=True):
        assert hints.any() == (label < len(VOICES))


@pytest.mark.parametrize("voice", VOICES)
def test_sounds_are_as_long_as_their_letters_say_and_a_rest(pipeline, voice):
    (sound,) = pipeline("the red cat sits", voice, 1.1, num_inference_steps=1).media
    frames = count_frames("the red cat sits", voice, speed=1.1) + REST
    assert sound.shape == (frames * 256,)
    assert np.abs(sound).max() <= 1


def test_text_voice_seed_and_guidance_have_an_effect(pipeline):
    usual = say(pipeline)
    assert np.array_equal(usual, say(pipeline))
    changes = (
        {"text": "the red act"},  # of the same length
        {"generator": seeded(1)},
        {"guidance_scale": 1.0},
        {"negative_prompt": "the red hat"},
    )
    for change in changes:
        assert not np.allclose(usual, say(pipeline, **change)), change
    others = (say(pipeline, voice=voice) for voice in VOICES[1:])
    assert all(other.shape != usual.shape or not np.allclose(usual, other) for other in others)


def test_sounds_do_not_depend_on_their_company(pipeline):
    both = pipeline(
        ["the red cat", "two"], num_inference_steps=2, generator=[seeded(1), seeded(2)]
    ).media
    alone = pipeline("two", num_inference_steps=2, generator=seeded(2)).media
    assert np.array_equal(both[1], alone[0])


def test_each_text_may_have_its_own_negative_prompt(pipeline):
    texts, away = ["the red cat", "two"], ["the red hat", ""]
    options = {"num_inference_steps": 1, "generator": [seeded(1), seeded(2)], "output_type": "mel"}
    both = pipeline(texts, negative_prompt=away, **options).media
    assert np.array_equal(both[0], say(pipeline, generator=seeded(1), negative_prompt=away[0]))
    assert np.array_equal(both[1], say(pipeline, "two", generator=seeded(2)))
    with pytest.raises(ValueError, match="batch size 1"):
        pipeline(texts, negative_prompt=["the red hat"], **options)


def test_a_callback_may_end_guidance_and_stop(pipeline):
    def end(pipeline, index, timestep, tensors):
        pipeline._guidance_scale = 1.0

    ended = say(pipeline, num_inference_steps=2, callback_on_step_end=end)
    assert pipeline.evaluations == (1, 1)
    assert not np.allclose(ended, say(pipeline, num_inference_steps=2))

    def stop(pipeline, index, timestep, tensors):
        pipeline._interrupt = True

    said = pipeline(["two", "two"], num_inference_steps=2, callback_on_step_end=stop).media
    assert len(said) == 1
    assert len(pipeline(["two", "two"], num_inference_steps=1).media) == 2


def test_a_callback_is_given_what_it_asks_for(pipeline):
    given = []

    def record(pipeline, index, timestep, tensors):
        given.append(list(tensors))

    for names in (None, ["latents"], []):
        say(pipeline, callback_on_step_end=record, callback_on_step_end_tensor_inputs=names)
    assert given == [["latents"], ["latents"], []]
    with pytest.raises(ValueError, match="prompt_embeds"):
        say(pipeline, callback_on_step_end_tensor_inputs=["prompt_embeds"])


def test_each_sound_may_be_guided_differently(pipeline):
    options = {"num_inference_steps": 1, "output_type": "mel"}
    alone = [
        pipeline("two", guidance_scale=scale, generator=seeded(), **options).media[0]
        for scale in (1.0, 5.0)
    ]
    sources = [seeded(), seeded()]
    both = pipeline(["two"] * 2, guidance_scale=[1.0, 5.0], generator=sources, **options).media
    np.testing.assert_array_equal(both, alone)
    assert not np.allclose(*alone)


def test_what_suits_a_model_is_taken_where_nothing_else_is_asked_for(pipeline):
    pipeline("two", output_type="mel")
    assert (pipeline.num_timesteps, pipeline.guidance_scale) == (16, 3.0)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"text": "7 cats"}, "figures"),
        ({"voice": "dog"}, "unknown voice"),
        ({"speed": 2.0}, "out of range"),
        ({"generator": [seeded(), seeded()]}, "2 generators for 1"),
        ({"output_type": "pil"}, "output_type"),
        ({"num_sounds_per_prompt": 0}, "num_sounds_per_prompt is 0"),
        ({"guidance_scale": [1.0, 2.0]}, "2 guidance scales for 1"),
    ],
)
def test_what_cannot_be_said_is_refused(pipeline, options, reason):
    with pytest.raises(LuminaError, match=reason):
        say(pipeline, **options)


@pytest.mark.parametrize("ending", ["wav", "flac"])
def test_the_command_writes_speech_with_its_record(folder, tmp_path, ending):
    path, again = tmp_path / f"speech.{ending}", tmp_path / f"again.{ending}"
    words = ["generate", "--model", str(folder), "The red cat sits.", "--voice", "man"]
    words += ["--speed", "1.2", "--steps", "1", "--seed", "3", "--spectrogram", "-o", str(path)]
    assert main(words) == 0
    frames = count_frames("the red cat sits", "man", speed=1.2) + REST
    assert read_sound(path).shape == (frames * 256,)
    record = read_record(path)
    assert record["modality"] == "speech"
    assert record["request"]["voice"] == "man"
    assert path.with_suffix(".png").exists()
    assert main(["generate", "--from", str(path), "-o", str(again)]) == 0
    assert np.array_equal(read_sound(again), read_sound(path))


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["99 cats"], "figures"),
        (["ein Käfer"], "cannot be said"),
        (["a cat", "--voice", "dog"], "voice"),
        (["a cat", "--speed", "3"], "out of range"),
        (["a cat", "--seconds", "2"], "has no meaning"),
        (["a cat", "--negative", "12"], "figures"),
    ],
)
def test_the_command_refuses_what_cannot_be_said(folder, tmp_path, capsys, words, reason):
    path = tmp_path / "speech.wav"
    assert main(["generate", "--model", str(folder), *words, "-o", str(path)]) == 1
    assert reason in capsys.readouterr().err
    assert not path.exists()


def test_vocoders_hear_speech_where_they_are_to():
    clips = SoundClips(2, Shares(speech=1.0), seed=0).clips
    assert all(len(clip) > 8000 for clip in clips)
