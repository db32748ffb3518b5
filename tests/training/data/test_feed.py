from collections import Counter

import numpy as np
import pytest

from lumina import LuminaError
from lumina.training.data.feed import Batches, Feed
from lumina.types import Size

SQUARE, WIDE, SMALL = (64, 64), (128, 32), (32, 32)
FIRST = [SQUARE] * 20 + [WIDE] * 7 + [SMALL]
SECOND = [WIDE] * 5 + [SQUARE] * 4


@pytest.fixture(scope="module")
def sources(make_placed):
    return [make_placed(FIRST, "first"), make_placed(SECOND, "second")]


@pytest.fixture(params=["one", "packed"])
def feed(request, sources):
    batches = Batches(batch_size=8, shapes=request.param, multiple=4, caption_dropout=0.25)
    return Feed(sources, [3.0, 1.0], batches, seed=5)


def pictures(draws):
    return Counter((draw.source, draw.index, draw.caption) for draw in draws)


def test_a_step_is_the_same_whatever_was_asked_before(feed, sources):
    steps = [feed.batch(step) for step in range(12)]
    again = Feed(sources, [3.0, 1.0], feed._batches, seed=5)
    assert [again.batch(step) for step in reversed(range(12))] == steps[::-1]
    other = Feed(sources, [3.0, 1.0], feed._batches, seed=6)
    assert [other.batch(step) for step in range(12)] != steps


@pytest.mark.parametrize("world", [1, 2, 4])
def test_any_number_of_processes_share_the_same_pictures_and_captions(feed, world):
    for step in (0, 3, 1000):
        parts = [feed.share(step, rank=rank, world=world) for rank in range(world)]
        assert pictures(sum(parts, [])) == pictures(feed.batch(step))
        assert all(parts)


def test_every_example_comes_once_before_any_comes_again(feed):
    seen = Counter()
    for step in range(60):
        for draw in feed.batch(step):
            seen[draw.source, draw.index, draw.placed.crop.size] += 1
    for source, sizes in enumerate((FIRST, SECOND)):
        for size in set(sizes):
            counts = [
                seen[source, index, Size(*size)] for index, s in enumerate(sizes) if s == size
            ]
            assert max(counts) - min(counts) <= 1


def test_each_picture_of_a_step_has_a_place_of_its_own(feed):
    whole = [draw.place for draw in feed.batch(3)]
    assert sorted(whole) == list(range(len(whole)))
    parts = [draw.place for rank in range(2) for draw in feed.share(3, rank=rank, world=2)]
    assert sorted(parts) == sorted(whole)


def test_epochs_come_in_different_orders(sources):
    feed = Feed([sources[1][:5]], [1.0], Batches(batch_size=5), seed=0)
    orders = {tuple(draw.index for draw in feed.batch(step)) for step in range(10)}
    assert len(orders) > 5
    assert all(sorted(order) == list(range(5)) for order in orders)


def test_sources_are_mixed_by_weight(feed):
    drawn = Counter(draw.source for step in range(300) for draw in feed.batch(step))
    assert drawn[0] / drawn.total() == pytest.approx(0.75, abs=0.02)


def test_within_a_source_sizes_come_as_often_as_their_pictures(feed):
    drawn = Counter(
        draw.placed.crop.size
        for step in range(300)
        for draw in feed.batch(step)
        if draw.source == 0
    )
    for size in (SQUARE, WIDE, SMALL):
        share = FIRST.count(size) / len(FIRST)
        assert drawn[Size(*size)] / drawn.total() == pytest.approx(share, abs=0.02)


def test_batches_of_one_shape_have_as_many_pixels_at_any_size(sources):
    feed = Feed(sources, [3.0, 1.0], Batches(batch_size=8, multiple=4), seed=5)
    seen = set()
    for step in range(150):
        (size,) = {draw.placed.crop.size for draw in feed.batch(step)}
        assert len(feed.batch(step)) == feed.count(size)
        seen.add((size, len(feed.batch(step))))
    assert seen == {(Size(*SQUARE), 8), (Size(*WIDE), 8), (Size(*SMALL), 32)}


def test_packed_batches_have_different_sizes_and_stay_within_their_pixels(sources):
    feed = Feed(sources, [3.0, 1.0], Batches(batch_size=8, shapes="packed"), seed=5)
    totals, kinds = [], []
    for step in range(150):
        sizes = [draw.placed.crop.size for draw in feed.batch(step)]
        totals.append(sum(size.width * size.height for size in sizes))
        kinds.append(len(set(sizes)))
    assert max(totals) <= feed.pixels
    assert np.mean(totals) == pytest.approx(feed.pixels * 7 / 8, rel=0.01)
    assert np.mean(kinds) > 1.5


def test_packed_parts_have_about_as_many_pixels(sources):
    feed = Feed(sources, [3.0, 1.0], Batches(batch_size=16, shapes="packed"), seed=5)
    for step in range(50):
        sums = [
            sum(d.placed.crop.size.width * d.placed.crop.size.height for d in part)
            for part in (feed.share(step, rank=rank, world=3) for rank in range(3))
        ]
        assert max(sums) - min(sums) <= SQUARE[0] * SQUARE[1]


def test_as_many_captions_are_left_out_as_asked(feed):
    draws = [draw for step in range(200) for draw in feed.batch(step)]
    assert np.mean([draw.is_dropped for draw in draws]) == pytest.approx(0.25, abs=0.03)
    for draw in draws:
        assert draw.caption in ("", *draw.placed.example.captions.every())
        assert (draw.caption == "") == draw.is_dropped
    forms = Counter(draw.caption.startswith("the ") for draw in draws if draw.caption)
    assert forms[True] / forms.total() == pytest.approx(0.5, abs=0.04)


def test_what_cannot_be_shared_is_refused(sources):
    feed = Feed(sources, [1.0, 1.0], Batches(batch_size=5), seed=0)
    with pytest.raises(LuminaError, match="cannot be shared evenly by 2 processes"):
        feed.share(0, rank=0, world=2)
    with pytest.raises(LuminaError, match="examples for 1 weights"):
        Feed(sources, [1.0], Batches(), seed=0)
    with pytest.raises(LuminaError, match="packed batches of one picture"):
        Feed(sources, [1.0, 1.0], Batches(batch_size=1, shapes="packed"), seed=0)


def test_the_account_names_each_size(sources):
    lines = Feed(sources, [3.0, 1.0], Batches(batch_size=8), seed=0).lines()
    assert len(lines) == 3
    assert lines[-1].startswith("32x32: 1 examples, 2.7% of those drawn, in batches of 32")
