"""Laws of attention across the pictures of a batch."""

import pytest
import torch

from lumina.nn.attention import plain_attend
from lumina.nn.shared_attention import frame_tokens, share_tokens, share_words

PICTURES, TOKENS = 3, 6


@pytest.fixture
def rows():
    """Queries, keys and values of two groups of pictures, with grouped heads."""
    source = torch.Generator().manual_seed(5)
    shapes = [(2 * PICTURES, TOKENS, heads, 8) for heads in (4, 2, 2)]
    return [torch.randn(shape, generator=source) for shape in shapes]


def test_a_whole_weight_is_as_if_shared_tokens_were_there_so_often(rows):
    tokens = torch.tensor([0, 4])
    found = share_tokens(PICTURES, tokens, sharing=2.0)(*rows, scale=0.3)
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
    found = share_tokens(PICTURES, torch.arange(TOKENS), sharing=1e-30)(*rows)
    torch.testing.assert_close(found, plain_attend(*rows))


def test_the_only_source_sees_itself_alone(rows):
    shared = share_tokens(PICTURES, torch.arange(TOKENS), sharing=3.0, sources=1)
    found, alone = shared(*rows), plain_attend(*rows)
    torch.testing.assert_close(found[::PICTURES], alone[::PICTURES])
    assert not torch.allclose(found[1], alone[1], atol=1e-3)
    changed = [x.clone() for x in rows]
    changed[2][1] += 1
    torch.testing.assert_close(shared(*changed)[2], found[2])
    changed[2][0] += 1
    assert not torch.allclose(shared(*changed)[2], found[2], atol=1e-3)


def test_groups_do_not_see_each_other(rows):
    shared = share_tokens(PICTURES, torch.arange(TOKENS), sharing=1.0)
    halves = [x[PICTURES:] for x in rows]
    torch.testing.assert_close(shared(*rows)[PICTURES:], shared(*halves))


def test_hidden_tokens_cannot_be_shared(rows):
    with pytest.raises(ValueError, match="mask"):
        share_tokens(PICTURES, torch.arange(TOKENS), sharing=1.0)(
            *rows, mask=torch.ones(2 * PICTURES, 1, 1, TOKENS, dtype=torch.bool)
        )


def test_words_are_not_shared_without_saying_with_whom(texts):
    with pytest.raises(ValueError, match="mask"):
        share_words(PICTURES, FRAME, sharing=1.0)(*texts[:3])


def test_the_frame_of_a_grid_is_all_but_its_inside():
    assert frame_tokens(3, 4).tolist() == [0, 1, 2, 3, 4, 7, 8, 9, 10, 11]
    assert frame_tokens(2, 2).tolist() == [0, 1, 2, 3]
    assert frame_tokens(1, 5).tolist() == [0, 1, 2, 3, 4]


@pytest.fixture
def texts():
    """Queries of a 3 x 3 grid, of 2 groups of 3 pictures; own words, then those of the first."""
    source = torch.Generator().manual_seed(6)
    query, key, value = (
        torch.randn(shape, generator=source) for shape in ((6, 9, 4, 8), (6, 5, 2, 8), (6, 5, 2, 8))
    )
    key, value = (
        torch.cat([x, x[::PICTURES].repeat_interleave(PICTURES, 0)], 1) for x in (key, value)
    )
    mask = torch.ones(6, 1, 1, 10, dtype=torch.bool)
    mask[..., 4] = mask[..., 9] = False
    return query, key, value, mask


FRAME = frame_tokens(3, 3)


def test_words_that_the_frame_of_the_first_picture_attends_to_are_shared(texts):
    query, key, value, mask = texts
    middle, frame = 4, FRAME
    query[0, middle], query[0, frame] = 3 * key[0, 0].repeat_interleave(2, 0), 0
    query[0, frame] = 3 * key[0, 2].repeat_interleave(2, 0)
    found = share_words(PICTURES, frame, sharing=2.0)(query, key, value, mask=mask, scale=1.0)
    # The word 2 comes twice more, and the word 0, which the middle attends to, does not.
    seen = [torch.cat([x[1:2, :4], x[1:2, 7:8], x[1:2, 7:8]], 1) for x in (key, value)]
    expected = plain_attend(query[1:2], *seen, scale=1.0)
    torch.testing.assert_close(found[1:2], expected, atol=2e-2, rtol=0)


@pytest.mark.parametrize("sharing", [0.0, 5.0])
def test_who_does_not_see_the_words_of_the_first_attends_to_its_own(texts, sharing):
    query, key, value, mask = texts
    if sharing:
        mask[..., 5:] = False
    found = share_words(PICTURES, FRAME, sharing=sharing)(query, key, value, mask=mask)
    alone = plain_attend(query, key[:, :5], value[:, :5], mask=mask[..., :5])
    torch.testing.assert_close(found, alone)


def test_a_picture_that_is_all_frame_shares_no_words(texts):
    query, key, value, mask = texts
    found = share_words(PICTURES, torch.arange(9), sharing=5.0)(query, key, value, mask=mask)
    alone = plain_attend(query, key[:, :5], value[:, :5], mask=mask[..., :5])
    torch.testing.assert_close(found, alone, atol=1e-3, rtol=1e-3)
