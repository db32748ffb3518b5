import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL

from lumina.modalities import MODALITIES, Codec, Modality, find_modality
from lumina.modalities.image import ImageCodec, to_bytes, to_pixels
from lumina.modalities.video import MODALITY, VideoCodec, tell_frames


def clip(frames=3, side=64, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (frames, side, side, 3), np.uint8)


def codec(tiny_folder):
    vae = AutoencoderKL.from_pretrained(tiny_folder, subfolder="vae").eval()
    return VideoCodec(vae), ImageCodec(vae)


def test_each_modality_keeps_the_protocol(tiny_folder):
    for name in MODALITIES:
        assert isinstance(find_modality(name), Modality)
    assert isinstance(codec(tiny_folder)[0], Codec)


def test_frames_are_pictures_each_by_itself(tiny_folder):
    video, image = codec(tiny_folder)
    clips = [clip(seed=0), clip(seed=1)]
    found = video.encode(clips)
    alone = image.encode(list(clips[1]))
    assert torch.allclose(found.mean[1].transpose(0, 1), alone.mean, atol=1e-5)
    assert torch.allclose(found.std[1].transpose(0, 1), alone.std, atol=1e-5)
    decoded = video.decode(found.mean)
    assert np.abs(decoded[1].astype(int) - np.stack(image.decode(alone.mean))).max() <= 1


def test_bytes_survive_as_pixels():
    frames = list(clip())
    assert np.array_equal(to_bytes(to_pixels(frames)), np.stack(frames))


def test_hints_tell_the_first_frames_and_no_others():
    latents = torch.randn(4, 5, 2, 3)
    hints = tell_frames(latents, 2)
    assert torch.equal(hints[:4, :2], latents[:, :2])
    assert not hints[:4, 2:].any()
    assert torch.equal(hints[4, :, 0, 0], torch.tensor([1.0, 1, 0, 0, 0]))


def test_training_tells_some_clips_and_at_most_half_of_one():
    latents = torch.randn(4, 6, 2, 2)
    generator = torch.Generator().manual_seed(0)
    known = [MODALITY.draw_hints(latents, generator)[4, :, 0, 0].sum() for _ in range(200)]
    assert {int(count) for count in known} == {0, 1, 2, 3}
    assert 0.15 < sum(count > 0 for count in known) / 200 < 0.35


def test_training_never_tells_all_of_a_picture():
    picture, generator = torch.randn(4, 1, 2, 2), torch.Generator().manual_seed(0)
    assert not any(MODALITY.draw_hints(picture, generator).any() for _ in range(50))


def test_without_hints_nothing_is_known():
    x = torch.randn(2, 4, 3, 2, 2)
    read = MODALITY.enter(x, torch.zeros(2), None)
    assert torch.equal(read[:, :4], x)
    assert not read[:, 4:].any()
    assert read.shape[1] == 9


@pytest.mark.parametrize("frames", [1, 8, 9, 15, 16, 17])
def test_at_most_eight_frames_are_shown(frames):
    shown = MODALITY.show(clip(frames, side=100))
    assert shown.width // 100 == -(-frames // -(-frames // 8)) <= 8
