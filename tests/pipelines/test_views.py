"""Ways to look at a picture, and that each can be undone."""

import pytest
import torch

from lumina import LuminaError
from lumina.pipelines.views import check_view, find_view
from lumina.types import Size

NAMES = [
    "identity",
    "flip-x",
    "flip-y",
    "rotate90",
    "rotate180",
    "rotate270",
    "negative",
    "permute:7",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_view_is_undone(name):
    view, picture = find_view(name), torch.randn(2, 3, 16, 16)
    assert torch.equal(view.undo(view.see(picture)), picture)
    assert torch.equal(view.see(view.undo(picture)), picture)


@pytest.mark.parametrize("name", NAMES)
def test_a_view_of_noise_is_noise_of_the_same_strength(name):
    noise = torch.randn(1, 4, 16, 16)
    torch.testing.assert_close(find_view(name).see(noise).norm(), noise.norm())


@pytest.mark.parametrize("name", NAMES)
def test_a_view_of_an_enlarged_picture_is_the_view_enlarged(name):
    view, picture = find_view(name), torch.randn(1, 3, 8, 8)

    def enlarge(x):
        return x.repeat_interleave(2, 2).repeat_interleave(2, 3)

    assert torch.equal(view.see(enlarge(picture)), enlarge(view.see(picture)))


def test_four_quarters_are_a_whole_turn():
    quarter, picture = find_view("rotate90"), torch.randn(1, 3, 8, 8)
    twice = quarter.see(quarter.see(picture))
    assert torch.equal(twice, find_view("rotate180").see(picture))
    assert torch.equal(quarter.see(twice), find_view("rotate270").see(picture))


def test_left_and_right_change_places():
    picture = torch.tensor([[[[1.0, 2.0]]]])
    assert find_view("flip-x").see(picture).flatten().tolist() == [2.0, 1.0]
    assert torch.equal(find_view("flip-y").see(picture), picture)


def test_a_permutation_moves_whole_parts_and_is_told_by_its_seed():
    picture = torch.arange(16.0).view(1, 1, 4, 4)
    moved = find_view("permute:7").see(picture)
    assert not torch.equal(moved, picture)
    assert sorted(moved.flatten().tolist()) == picture.flatten().tolist()
    assert torch.equal(moved, find_view("permute:7").see(picture))
    assert not torch.equal(moved, find_view("permute:8").see(picture))


@pytest.mark.parametrize(
    ("name", "size", "says"),
    [
        ("rotate90", Size(64, 128), "another size"),
        ("permute:1", Size(48, 48), "multiples of 32"),
        ("negative", Size(64, 64), "view of pixels"),
    ],
)
def test_a_view_that_does_not_fit_latents_is_refused(name, size, says):
    with pytest.raises(LuminaError, match=says):
        check_view(find_view(name), size, scale=8, on_pixels=False)


def test_a_view_that_does_not_exist_is_refused_with_the_nearest():
    with pytest.raises(LuminaError, match="did you mean 'rotate180'"):
        find_view("rotate18")
    with pytest.raises(LuminaError, match="no number"):
        find_view("permute:cat")
