import pytest
import torch

from lumina.errors import UnknownNameError
from lumina.nn.attention import fused_attend
from lumina.nn.context_drop import drop_in_blocks, pool_grid, pooled_attend


def tokens(rows, cols, heads=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, rows * cols, heads, 8, generator=generator)


def test_windows_are_averaged_and_those_at_the_end_over_what_is_left():
    pooled = pool_grid(tokens(3, 5), grid=(3, 5)).unflatten(1, (2, 3))
    picture = tokens(3, 5).unflatten(1, (3, 5))
    torch.testing.assert_close(pooled[:, 0, 1], picture[:, :2, 2:4].mean((1, 2)))
    torch.testing.assert_close(pooled[:, 1, 2], picture[:, 2, 4])


def test_a_window_of_one_is_attention_itself():
    query, key, value = (tokens(4, 4, heads, seed) for seed, heads in enumerate((4, 2, 2)))
    attend = pooled_attend((4, 4), window=1)
    torch.testing.assert_close(
        attend(query, key, value, scale=0.4), fused_attend(query, key, value, scale=0.4)
    )


def test_where_all_of_a_window_are_alike_nothing_is_lost():
    query = tokens(4, 6)
    small = torch.randn(2, 2, 3, 2, 8)
    alike = small.repeat_interleave(2, 1).repeat_interleave(2, 2).flatten(1, 2)
    expected = fused_attend(query, alike, alike)
    torch.testing.assert_close(pooled_attend((4, 6))(query, alike, alike), expected)


def test_a_mask_is_refused():
    query = tokens(2, 2)
    with pytest.raises(ValueError, match="mask"):
        pooled_attend((2, 2))(query, query, query, mask=torch.ones(2, 1, 1, 4, dtype=torch.bool))


def test_fewer_and_fewer_blocks_drop_as_noise_gets_less():
    def dropping(mode, time):
        attends = drop_in_blocks(mode, [fused_attend] * 8, time=time)
        return None if attends is None else [attend is not None for attend in attends]

    assert dropping("time-aware", 0.0) == dropping("all", 0.7) == [True] * 8
    assert dropping("time-aware", 0.5) == [False] * 4 + [True] * 4
    assert dropping("time-aware", 1.0) == [False] * 8
    assert dropping("none", 0.5) is None
    with pytest.raises(UnknownNameError, match="time-aware"):
        dropping("timeaware", 0.0)
