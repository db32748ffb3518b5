"""Laws of composition, with tiny networks whose weights are all random."""

import pytest
import torch
from PIL import Image

from lumina import LuminaError
from lumina.pipelines.compose import LuminaComposePipeline
from lumina.pipelines.pictures import as_pixels, encode_pixels
from lumina.pipelines.regions import Region, cover_all, grid_regions
from lumina.pipelines.text_to_image import LuminaPipeline
from lumina.types import Size

SIZE = Size(96, 64)
HALVES = [Region("a cat", (0, 0, 48, 64)), Region("a dog", (48, 0, 48, 64))]


@pytest.fixture
def compose(ours):
    pipeline = LuminaComposePipeline.from_pipe(ours)

    def compose(regions, prompt="", *, seed=7, **arguments):
        usual = {
            "width": SIZE.width,
            "height": SIZE.height,
            "num_inference_steps": 2,
            "output_type": "latent",
            "generator": torch.Generator().manual_seed(seed),
        }
        return pipeline(regions, prompt, **usual | arguments).images

    return compose


@pytest.fixture
def blank(ours):
    """Latents of a plain picture, by its color."""

    def blank(color):
        return encode_pixels(ours.vae, as_pixels([Image.new("RGB", SIZE, color)], SIZE))

    return blank


@pytest.mark.parametrize("windows_until", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("options", [{}, {"guidance_scale": 1.0}, {"negative_prompt": "a dog"}])
def test_one_region_that_covers_all_is_text_to_image(
    ours, compose, draw, assert_same, windows_until, options
):
    plain = draw(ours, "a cat", width=SIZE.width, height=SIZE.height, **options)
    whole = Region("a cat", (0, 0, *SIZE))
    assert_same(compose([whole], windows_until=windows_until, **options), plain)


def test_the_pictures_of_a_call_are_those_of_single_calls(compose, assert_same):
    generators = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
    for options in ({}, {"windows_until": 0.0}):
        generators = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
        both = compose(HALVES, num_images_per_prompt=2, generator=generators, **options)
        for number, seed in enumerate((1, 2)):
            assert_same(both[number : number + 1], compose(HALVES, seed=seed, **options))


def test_windows_without_a_border_are_pictures_of_their_own(ours, compose, draw, assert_same):
    noise = torch.randn(1, 4, 8, 12, generator=torch.Generator().manual_seed(7))
    latents = compose(
        [Region("a cat", (0, 0, 48, 64)), Region("a dog", (64, 32, 32, 32))], border=0
    )
    cat = draw(ours, "a cat", width=48, height=64, latents=noise[..., :6])
    dog = draw(ours, "a dog", width=32, height=32, latents=noise[..., 4:, 8:])
    assert_same(latents[..., :6], cat)
    assert_same(latents[..., 4:, 8:], dog)


def test_a_region_of_any_size_is_cut_from_a_whole_picture_of_its_own(ours, compose, draw):
    noise = torch.randn(1, 4, 8, 12, generator=torch.Generator().manual_seed(7))
    pixels = compose([Region("a cat", (16, 8, 28, 20))], border=0, output_type="pt")
    cat = draw(
        ours,
        "a cat",
        width=32,
        height=32,
        latents=noise[..., 1:5, 2:6],
        output_type="pt",
    )
    torch.testing.assert_close(pixels[..., 8:28, 16:44], cat[..., :20, :28], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("windows_until", [0.0, 1.0])
def test_outside_of_regions_the_background_is_kept_exactly(compose, blank, windows_until):
    region = Region("a cat", (0, 0, 32, 32))
    for options, color in (({}, "white"), ({"background": "#204060"}, "#204060")):
        latents = compose([region], border=0, windows_until=windows_until, **options)
        torch.testing.assert_close(latents[..., 4:], blank(color)[..., 4:], atol=1e-5, rtol=1e-5)
        assert not torch.allclose(latents[..., :4, :4], blank(color)[..., :4, :4], atol=1e-2)


def test_a_picture_can_be_the_background(compose, blank):
    picture = Image.new("RGB", SIZE, "green")
    region = Region("a cat", (0, 0, 32, 32))
    named = compose([region], background="green")
    torch.testing.assert_close(compose([region], background=picture), named)


def test_a_prompt_draws_what_is_outside(compose, blank):
    region = Region("a cat", (0, 0, 32, 32))
    meadow, sea = (compose([region], prompt, border=0) for prompt in ("a meadow", "the sea"))
    for other in (sea, blank("white")):
        assert not torch.allclose(meadow[..., 4:], other[..., 4:], atol=1e-2)
    assert torch.equal(
        compose([region], "a meadow", background="white", border=0)[..., 4:],
        compose([region], border=0)[..., 4:],
    )


def test_no_pixel_outside_of_regions_is_changed(compose):
    picture = Image.new("RGB", SIZE, "green")
    pixels = compose(
        [Region("a cat", (16, 16, 32, 32))], background=picture, output_type="pt", border=8
    )
    changed = (pixels[0] - as_pixels([picture], SIZE)[0] / 2 - 0.5).abs().amax(0) > 1e-6
    rows, cols = changed.nonzero().T
    assert (rows.min(), rows.max(), cols.min(), cols.max()) == (16, 47, 16, 47)


def test_regions_that_all_ask_for_the_same_are_one(compose, assert_same):
    same = [Region("a cat", region.box) for region in HALVES]
    whole = Region("a cat", (0, 0, *SIZE))
    found, expected = (compose(some, "a cat", windows_until=0.0) for some in (same, [whole]))
    assert_same(found, expected)


def test_each_prompt_changes_its_own_window_alone(compose):
    first = compose(HALVES, border=0)
    second = compose([HALVES[0], Region("a red apple", HALVES[1].box)], border=0)
    assert torch.equal(first[..., :6], second[..., :6])
    assert not torch.allclose(first[..., 6:], second[..., 6:], atol=1e-2)


def test_masks_are_regions_of_any_shape(compose):
    left = Image.new("L", SIZE, 0)
    left.paste(255, (0, 0, 48, 64))
    masked = [Region("a cat", mask=left), HALVES[1]]
    torch.testing.assert_close(compose(masked), compose(HALVES))


def test_a_grid_has_its_prompts_row_after_row():
    regions = grid_regions(2, 2, ["a", "b", "c", "d"], SIZE)
    covered = cover_all(regions, SIZE)
    assert (covered.sum(0) == 1).all()
    corners = [covered[:, y, x].long().argmax().item() for y in (0, -1) for x in (0, -1)]
    assert [regions[number].prompt for number in corners] == ["a", "b", "c", "d"]
    assert cover_all(grid_regions(3, 7, ["a"] * 21, (100, 50)), Size(100, 50)).sum(0).eq(1).all()


def test_pipelines_share_their_parts_in_both_directions(ours):
    there = LuminaComposePipeline.from_pipe(ours)
    back = LuminaPipeline.from_pipe(there)
    assert there.transformer is back.transformer is ours.transformer


@pytest.mark.parametrize(
    ("regions", "options", "words"),
    [
        ([], {}, "no regions"),
        ([Region("a cat", (64, 0, 48, 64))], {}, "does not lie in"),
        ([Region("a cat", (0, -8, 48, 64))], {}, "does not lie in"),
        ([Region("a cat", (0, 0, 0, 64))], {}, "does not lie in"),
        ([HALVES[0], Region("a dog", (0, 0, *SIZE))], {}, "nothing of it is seen"),
        ([Region("a cat", mask=Image.new("L", (64, 64), 255))], {}, "64x64"),
        ([Region("a cat", mask=Image.new("L", SIZE, 0))], {}, "nothing of the mask"),
        (HALVES, {"border": -1}, "border is -1"),
        (HALVES, {"windows_until": 1.5}, "out of range"),
        (HALVES, {"background": "nocolor"}, "unknown color"),
        (HALVES, {"background": Image.new("RGB", (8, 8))}, "8x8"),
        (HALVES, {"negative_prompt": ["a", "b"]}, "give one text"),
    ],
)
def test_what_cannot_be_composed_is_refused(compose, regions, options, words):
    with pytest.raises(LuminaError, match=words):
        compose(regions, **options)


def test_a_region_has_one_place():
    with pytest.raises(LuminaError, match="no place"):
        Region("a cat")
    with pytest.raises(LuminaError, match="two places"):
        Region("a cat", (0, 0, 8, 8), Image.new("L", SIZE))
    with pytest.raises(LuminaError, match="3 prompts for a grid of 2 rows"):
        grid_regions(2, 2, ["a", "b", "c"], SIZE)


def test_a_size_that_does_not_divide_into_patches_is_refused(compose):
    with pytest.raises(ValueError, match="divisible by 16"):
        compose([Region("a cat", (0, 0, 8, 8))], width=100)
