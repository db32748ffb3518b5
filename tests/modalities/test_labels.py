import numpy as np
import pytest
import torch

from lumina.modalities.labels import rank, to_tensor


def test_a_picture_of_whole_patches_keeps_every_pixel():
    pixels = np.random.default_rng(0).integers(0, 256, (16, 24, 3), np.uint8)
    tensor = to_tensor(pixels, patch_size=8)
    assert tensor.shape == (3, 16, 24)
    assert np.array_equal(((tensor + 1) * 127.5).round().byte().permute(1, 2, 0).numpy(), pixels)
    assert -1 <= tensor.min() < tensor.max() <= 1


@pytest.mark.parametrize(("rows", "cols"), [(1, 1), (15, 9), (8, 17)])
def test_the_last_row_and_column_fill_up_the_last_patches(rows, cols):
    pixels = np.random.default_rng(0).integers(0, 256, (rows, cols, 3), np.uint8)
    tensor = to_tensor(pixels, patch_size=8)
    assert tensor.shape[1] % 8 == tensor.shape[2] % 8 == 0
    assert tensor.shape[1] - rows < 8
    assert tensor.shape[2] - cols < 8
    last = tensor[:, rows - 1 :, cols - 1 :]
    assert torch.equal(last, last[:, :1, :1].expand_as(last))


def test_guesses_are_ranked_and_their_probabilities_are_those_of_the_logits():
    logits = torch.tensor([[0.0, 2.0, 1.0], [5.0, 0.0, 0.0]])
    ranked = rank(logits, ["a", "b", "c"], top=3)
    assert [guess.label for guess in ranked[0]] == ["b", "c", "a"]
    assert ranked[1][0].label == "a"
    for some in ranked:
        assert sum(guess.probability for guess in some) == pytest.approx(1)
    first, second, _ = ranked[0]
    assert first.probability / second.probability == pytest.approx(np.e)
