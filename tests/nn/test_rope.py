import pytest
import torch
from diffusers.models.embeddings import apply_rotary_emb, get_2d_rotary_pos_embed_lumina

from lumina.nn import rope
from lumina.nn.extrapolation import RopeScaling
from lumina.nn.rope import crop_rope_table, grid_positions, rope_table, rotate


@pytest.mark.parametrize(("linear", "ntk"), [(1.0, 1.0), (1.6, 1.0), (1.0, 2.3), (0.5, 1.0)])
def test_two_axes_give_the_table_of_diffusers(linear, ntk):
    theirs = get_2d_rotary_pos_embed_lumina(72, 384, 384, linear_factor=linear, ntk_factor=ntk)
    positions = grid_positions(rows=384, cols=384)
    ours = rope_table(positions, channels=(0, 36, 36), scaling=RopeScaling(linear=linear, ntk=ntk))
    torch.testing.assert_close(ours, crop_rope_table(theirs, rows=384, cols=384), atol=1e-6, rtol=0)


def test_columns_run_fastest_and_frames_slowest():
    positions = grid_positions(frames=2, rows=2, cols=3)
    assert positions[:4].tolist() == [[0, 0, 0], [0, 0, 1], [0, 0, 2], [0, 1, 0]]
    assert positions[6].tolist() == [1, 0, 0]


@pytest.mark.parametrize("channels", [(8, 8, 8), (4, 8, 12), (0, 12, 12)])
def test_scores_depend_on_the_distance_between_tokens_alone(channels):
    torch.manual_seed(0)
    query, key = torch.randn(2, 1, 1, 1, 24)

    def score(query_at, key_at):
        table = rope_table(torch.tensor([query_at, key_at]), channels=channels)
        return (rotate(query, table[:1]) * rotate(key, table[1:])).sum()

    near = score([0.0, 1.0, 2.0], [3.0, 1.0, 7.0])
    far = score([10.0, 21.0, 2.0], [13.0, 21.0, 7.0])
    torch.testing.assert_close(near, far, atol=1e-4, rtol=0)


def test_axes_take_turns_until_their_channels_are_used_up():
    steps = torch.eye(3)
    turned = rope_table(steps, channels=(2, 4, 6))[..., 1].abs() > 0
    assert [axis.nonzero().flatten().tolist() for axis in turned] == [[0], [1, 3], [2, 4, 5]]


def test_rotation_equals_diffusers():
    torch.manual_seed(0)
    x = torch.randn(2, 15, 3, 8)
    theirs = get_2d_rotary_pos_embed_lumina(8, 3, 5).flatten(0, 1)[None]
    ours = rope_table(grid_positions(rows=3, cols=5), channels=(0, 4, 4))
    torch.testing.assert_close(rotate(x, ours), apply_rotary_emb(x, theirs, use_real=False))


def test_each_sample_can_have_its_own_positions():
    torch.manual_seed(0)
    x = torch.randn(2, 5, 3, 8)
    tables = torch.stack([rope_table(torch.rand(5, 2) * 9, channels=(4, 4)) for _ in range(2)])
    separate = torch.cat([rotate(x[i : i + 1], tables[i]) for i in range(2)])
    torch.testing.assert_close(rotate(x, tables), separate)


def test_complex_product_equals_its_real_parts():
    torch.manual_seed(0)
    x = torch.randn(2, 6, 3, 8)
    table = rope_table(grid_positions(rows=2, cols=3), channels=(0, 4, 4))
    parts = rope._rotate_parts(x.unflatten(-1, (-1, 2)), table.unsqueeze(-3)).flatten(-2)
    torch.testing.assert_close(rotate(x, table), parts)


def test_a_real_table_scales_without_turning():
    factors = torch.randn(2, 2, 3)
    x = torch.randn(1, 4, 1, 6)
    expected = x * factors.flatten(0, 1).repeat_interleave(2, dim=-1)[None, :, None]
    torch.testing.assert_close(rotate(x, crop_rope_table(factors, rows=2, cols=2)), expected)


def test_a_grid_larger_than_the_table_is_refused():
    with pytest.raises(ValueError, match="covers 4 x 4 patches, but the latents have 5 x 2"):
        crop_rope_table(torch.randn(4, 4, 2), rows=5, cols=2)
