"""Laws of regions: texts count by their share, and shares add up to one everywhere."""

import pytest
import torch

from lumina.nn.attention import plain_attend
from lumina.nn.regional import attend_regions, coarsen, keep_outside, part_picture


@pytest.fixture
def draw():
    source = torch.Generator().manual_seed(3)
    return lambda *shape: torch.randn(shape, generator=source)


def test_each_token_attends_to_the_texts_of_its_region_by_their_weights(draw):
    query, key, value = draw(2, 6, 4, 8), draw(2, 3 * 5, 2, 8), draw(2, 3 * 5, 2, 8)
    mask = torch.rand(2, 1, 1, 15, generator=torch.Generator().manual_seed(0)) > 0.3
    mask[..., ::5] = True
    weights = torch.rand(3, 6, generator=torch.Generator().manual_seed(1))
    found = attend_regions(weights)(query, key, value, mask=mask, scale=0.3)
    expected = torch.zeros_like(query)
    for text, weight in enumerate(weights):
        own = slice(5 * text, 5 * text + 5)
        taken = plain_attend(query, key[:, own], value[:, own], mask=mask[..., own], scale=0.3)
        expected += weight[:, None, None] * taken
    torch.testing.assert_close(found, expected)


def test_the_same_text_everywhere_is_plain_attention_to_it(draw):
    query, key, value = draw(1, 6, 2, 8), draw(1, 5, 2, 8), draw(1, 5, 2, 8)
    weights = torch.rand(4, 6, generator=torch.Generator().manual_seed(1)).softmax(0)
    found = attend_regions(weights)(query, key.repeat(1, 4, 1, 1), value.repeat(1, 4, 1, 1))
    torch.testing.assert_close(found, plain_attend(query, key, value))


@pytest.mark.parametrize("border", [0, 1, 6, 40])
def test_parts_of_each_pixel_add_up_to_one(border):
    masks = torch.rand(3, 20, 30, generator=torch.Generator().manual_seed(2)) > 0.6
    parts = part_picture(masks, border=border)
    assert parts.shape == (4, 20, 30)
    assert (parts >= 0).all()
    torch.testing.assert_close(parts.sum(0), torch.ones(20, 30))
    torch.testing.assert_close(coarsen(parts, 10).sum(0), torch.ones(2, 3))


def test_the_later_region_lies_over_the_earlier():
    masks = torch.zeros(2, 4, 4, dtype=torch.bool)
    masks[0, :3], masks[1, 1:] = True, True
    parts = part_picture(masks, border=0)
    assert parts[:, :, 0].argmax(0).tolist() == [1, 2, 2, 2]


def test_a_border_reaches_half_of_its_width_to_either_side():
    masks = torch.zeros(1, 1, 40, dtype=torch.bool)
    masks[..., 20:] = True
    share = part_picture(masks, border=8)[1, 0]
    assert (share[:16] == 0).all()
    assert (share[16:24].diff() > 0).all()
    assert (share[24:] == 1).all()


def test_no_text_of_the_whole_shows_between_regions_that_touch():
    masks = torch.zeros(2, 8, 8, dtype=torch.bool)
    masks[0, :, :4], masks[1, :, 4:] = True, True
    assert (part_picture(masks, border=6)[0] == 0).all()


def test_regions_fade_inside_of_themselves_where_nothing_else_is():
    masks = torch.zeros(2, 1, 60, dtype=torch.bool)
    masks[0, :, 20:40], masks[1, :, 40:] = True, True
    parts = keep_outside(part_picture(masks, border=8))
    torch.testing.assert_close(parts.sum(0), torch.ones(1, 60))
    assert (parts >= 0).all()
    assert (parts[0, 0, :20] == 1).all()
    assert (parts[0, 0, 20:23] > 0).all()
    assert (parts[0, 0, 24:] == 0).all()
    torch.testing.assert_close(parts[1, 0, 30:40], parts[2, 0, 40:50].flip(0))
    assert (parts[1, 0, 40:43] > 0).all()
