"""Laws of attention across the pictures of a batch."""

import pytest
import torch

from lumina.nn.attention import plain_attend
from lumina.nn.shared_attention import frame_tokens, share_attention

PICTURES, TOKENS = 3, 6


@pytest.fixture
def rows():
    """Queries, keys and values of two groups of pictures, with grouped heads."""
    source = torch.Generator().manual_seed(5)
    shapes = [(2 * PICTURES, TOKENS, heads, 8) for heads in (4, 2, 2)]
    return [torch.randn(shape, generator=source) for shape in shapes]


def test_a_whole_weight_is_as_if_shared_tokens_were_there_so_often(rows):
    tokens = torch.tensor([0, 4])
    found = share_attention(PICTURES, tokens, sharing=2.0)(*rows, scale=0.3)
    query, key, value = rows
    for row in range(2 * PICTURES):
        first = row // PICTURES * PICTURES
        others = [other for other in range(first, first + PICTURES) if other != row]
        seen = [
            torch.cat(
                [x[row : row + 1], *[x[other : other + 1, tokens] for other in others * 2]], 1
            )
            for x in (key, value)
        ]
        expected = plain_attend(query[row : row + 1], *seen, scale=0.3)
        torch.testing.assert_close(found[row : row + 1], expected)


def test_hardly_any_weight_is_attention_to_own_tokens(rows):
    found = share_attention(PICTURES, torch.arange(TOKENS), sharing=1e-30)(*rows)
    torch.testing.assert_close(found, plain_attend(*rows))


def test_the_only_source_sees_itself_alone(rows):
    shared = share_attention(PICTURES, torch.arange(TOKENS), sharing=3.0, sources=1)
    found, alone = shared(*rows), plain_attend(*rows)
    torch.testing.assert_close(found[::PICTURES], alone[::PICTURES])
    assert not torch.allclose(found[1], alone[1], atol=1e-3)
    changed = [x.clone() for x in rows]
    changed[2][1] += 1
    torch.testing.assert_close(shared(*changed)[2], found[2])
    changed[2][0] += 1
    assert not torch.allclose(shared(*changed)[2], found[2], atol=1e-3)


def test_groups_do_not_see_each_other(rows):
    shared = share_attention(PICTURES, torch.arange(TOKENS), sharing=1.0)
    halves = [x[PICTURES:] for x in rows]
    torch.testing.assert_close(shared(*rows)[PICTURES:], shared(*halves))


def test_hidden_tokens_cannot_be_shared(rows):
    with pytest.raises(ValueError, match="mask"):
        share_attention(PICTURES, torch.arange(TOKENS), sharing=1.0)(
            *rows, mask=torch.ones(2 * PICTURES, 1, 1, TOKENS, dtype=torch.bool)
        )


def test_the_frame_of_a_grid_is_all_but_its_inside():
    assert frame_tokens(3, 4).tolist() == [0, 1, 2, 3, 4, 7, 8, 9, 10, 11]
    assert frame_tokens(2, 2).tolist() == [0, 1, 2, 3]
    assert frame_tokens(1, 5).tolist() == [0, 1, 2, 3, 4]
