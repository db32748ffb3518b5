"""Laws of networks whose data are sequences, points or frames, not pictures."""

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from lumina.backbones.flag_dit import FlagDiT
from lumina.backbones.next_dit import NextDiT
from lumina.nn.rope import grid_positions, rope_table


def network(kind: type = NextDiT, **settings) -> NextDiT | FlagDiT:
    torch.manual_seed(0)
    made = kind(
        **{
            "sample_size": 8,
            "in_channels": 4,
            "hidden_size": 32,
            "num_layers": 2,
            "num_attention_heads": 2,
            "multiple_of": 16,
            "cross_attention_dim": 8,
            "learn_sigma": False,
        }
        | settings
    ).eval()
    for weight in made.parameters():
        weight.data = torch.randn_like(weight) * 0.2
    return made


@torch.no_grad()
def ask(model, data: Tensor | list[Tensor]) -> Tensor | list[Tensor]:
    count = len(data)
    generator = torch.Generator().manual_seed(5)
    text = torch.randn(count, 3, 8, generator=generator)
    times = torch.linspace(0.2, 0.9, count)
    return model(data, times, text, torch.ones(count, 3), return_dict=False)[0]


def test_one_frame_is_a_picture():
    model = network(rope_axes=(4, 6, 6))
    picture = torch.randn(2, 4, 4, 6)
    assert torch.allclose(ask(model, picture[:, :, None])[:, :, 0], ask(model, picture), atol=1e-6)


def test_one_row_without_patches_is_a_sequence():
    model = network(patch_size=1, rope_axes=(0, 0, 16))
    sequence = torch.randn(2, 4, 7)
    assert torch.allclose(
        ask(model, sequence[:, :, None])[:, :, 0], ask(model, sequence), atol=1e-6
    )


def test_points_have_no_order():
    model = network(patch_size=1, rope_axes=(0, 0, 0))
    points, order = torch.randn(2, 4, 9), torch.randperm(9)
    assert torch.allclose(
        ask(model, points[:, :, order]), ask(model, points)[:, :, order], atol=1e-5
    )


def test_frames_have_an_order():
    model = network(rope_axes=(4, 6, 6))
    clip, order = torch.randn(1, 4, 3, 4, 4), torch.tensor([2, 0, 1])
    assert not torch.allclose(
        ask(model, clip[:, :, order]), ask(model, clip)[:, :, order], atol=1e-3
    )


@pytest.mark.parametrize("kind", [NextDiT, FlagDiT])
def test_clips_of_different_lengths_in_one_batch_do_not_see_each_other(kind):
    extra = {"rope_axes": (4, 6, 6)} if kind is NextDiT else {"has_frame_token": True}
    model = network(kind, **extra)
    clips = [torch.randn(4, frames, 4, 4) for frames in (1, 3)]
    together = ask(model, clips)
    generator = torch.Generator().manual_seed(5)
    text = torch.randn(2, 3, 8, generator=generator)
    for number, (clip, found) in enumerate(zip(clips, together, strict=True)):
        time = torch.linspace(0.2, 0.9, 2)[number : number + 1]
        with torch.no_grad():
            alone = model(
                clip[None], time, text[number : number + 1], torch.ones(1, 3), return_dict=False
            )[0]
        assert torch.allclose(alone[0], found, atol=1e-5)


def test_only_the_velocity_comes_out():
    model = network(in_channels=9, out_channels=4)
    assert ask(model, torch.randn(2, 9, 4, 4)).shape == (2, 4, 4, 4)


def turns(frames: int, **settings) -> Float[Tensor, "n half 2"]:
    positions = grid_positions(frames=frames, rows=3, cols=5)
    return rope_table(positions, channels=(0, 16, 16), **settings)


def test_lending_keeps_fast_rotations_of_rows_and_columns():
    lent, own = turns(1, lent=8), turns(1)
    assert torch.equal(lent[:, :-4], own[:, :-4])
    assert torch.equal(lent[:, -4:, 0], torch.ones(15, 4))  # the first frame turns nothing


def test_lent_channels_turn_by_frames_alone():
    table = turns(4, lent=8).unflatten(0, (4, 15))
    assert torch.equal(table[:, :, -4:], table[:, :1, -4:].expand_as(table[:, :, -4:]))
    angles = torch.atan2(table[1, 0, -4:, 1], table[1, 0, -4:, 0])
    assert torch.allclose(angles, 100.0 ** -(torch.arange(4) / 4), atol=1e-6)


@pytest.mark.parametrize(
    ("axes", "lent"), [((0, 8, 8), 6), ((4, 6, 6), 4), ((0, 8, 8), 20), ((0, 8, 8), -4)]
)
def test_channels_that_cannot_be_lent_are_refused(axes, lent):
    with pytest.raises(ValueError, match="cannot lend"):
        network(rope_axes=axes, rope_lent=lent)
