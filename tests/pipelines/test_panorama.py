"""Pictures of any size through windows, and pictures whose edges meet."""

import pytest
import torch

from lumina import LuminaError, LuminaPanoramaPipeline, LuminaPipeline
from lumina.pipelines.images import Evaluations
from lumina.pipelines.panorama import list_windows


@pytest.fixture
def panoramas(ours):
    pipeline = LuminaPanoramaPipeline.from_pipe(ours)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.mark.parametrize("wraps", ["none", "x", "both"])
@pytest.mark.parametrize("overlap", [0.25, 0.5, 0.8])
def test_windows_cover_the_canvas_and_overlap_as_much_as_asked(wraps, overlap):
    windows = list_windows((8, 30), (8, 10), overlap=overlap, wraps=wraps)
    seen = torch.zeros(8, 30)
    for rows, cols in windows:
        seen[rows[:, None], cols] += 1
        assert (len(rows), len(cols)) == (8, 10)
    assert seen.min() >= 1
    starts = sorted({int(cols[0]) for _, cols in windows})
    assert max(b - a for a, b in zip(starts, starts[1:], strict=False)) <= 10 * (1 - overlap) + 1
    if wraps != "none":
        assert seen.min() >= 2 or overlap < 0.5
        assert 30 - starts[-1] <= 10 * (1 - overlap) + 1


def test_a_window_that_is_the_canvas_is_text_to_image(panoramas, ours, draw, assert_same):
    size = {"width": 64, "height": 64}
    assert_same(draw(panoramas, **size), draw(ours, **size))
    wide = {"width": 96, "height": 48}
    assert_same(draw(panoramas, window=(96, 48), **wide), draw(ours, **wide))


def test_away_from_the_others_a_window_without_overlap_is_a_picture(
    panoramas, ours, draw, assert_same
):
    noise = torch.randn(1, 4, 8, 16, generator=torch.Generator().manual_seed(3))
    both = draw(panoramas, width=128, height=64, overlap=0.0, latents=noise)
    assert_same(both[..., :8], draw(ours, latents=noise[..., :8]))
    assert_same(both[..., 8:], draw(ours, latents=noise[..., 8:]))


@pytest.mark.parametrize(("wraps", "shift"), [("x", (0, 4)), ("both", (4, 8))])
def test_a_picture_that_wraps_has_no_first_column(panoramas, draw, assert_same, wraps, shift):
    """Noise that is moved around makes the same picture, moved as far."""
    noise = torch.randn(1, 4, 8, 16, generator=torch.Generator().manual_seed(3))
    size = {"width": 128, "height": 64, "wraps": wraps}
    still = draw(panoramas, latents=noise, **size)
    moved = draw(panoramas, latents=noise.roll(shift, (2, 3)), **size)
    assert_same(moved, still.roll(shift, (2, 3)))


def test_decoded_edges_meet(panoramas):
    """They are decoded as the middle one of three copies side by side."""
    x = torch.randn(8, 4, 8, 16, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        whole = panoramas._decode(x.repeat(1, 1, 1, 3))[..., 128:256]
        wrapped, cut = panoramas._decode_wrapped(x, "x"), panoramas._decode(x)
    assert wrapped.shape == cut.shape
    assert (wrapped - whole).square().mean() < 0.1 * (cut - whole).square().mean()


def test_several_prompts_are_drawn_side_by_side(panoramas, draw, assert_same):
    def generators(*seeds):
        return [torch.Generator().manual_seed(seed) for seed in seeds]

    size = {"width": 128, "height": 64}
    both = draw(panoramas, ["a cat", "a dog"], generator=generators(1, 2), **size)
    assert_same(both[1:], draw(panoramas, "a dog", generator=generators(2), **size))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"wraps": "y"}, "none, x, both"),
        ({"overlap": 1.0}, "overlap"),
        ({"overlap": 0.0, "wraps": "x"}, "do not overlap"),
        ({"window": (256, 64)}, "does not fit"),
    ],
)
def test_what_makes_no_sense_is_refused(panoramas, draw, arguments, says):
    with pytest.raises(LuminaError, match=says):
        draw(panoramas, **{"width": 128, "height": 64} | arguments)


def test_it_becomes_a_plain_pipeline_and_back(panoramas):
    plain = LuminaPipeline.from_pipe(panoramas)
    assert LuminaPanoramaPipeline.from_pipe(plain).transformer is panoramas.transformer


def test_evaluations_are_those_of_all_windows(panoramas, draw):
    draw(panoramas, width=128, height=64, overlap=0.0)
    assert panoramas.evaluations == Evaluations(pairs=2 * 2)


def test_a_window_of_nothing_is_refused(panoramas, draw):
    with pytest.raises(LuminaError, match="a window of 0x0 pixels shows nothing"):
        draw(panoramas, width=128, height=64, window=(0, 0))
