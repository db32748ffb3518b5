import numpy as np
import pytest
from PIL import Image

from lumina.types import Size
from lumina.worlds.grounds import KINDS, Ground, paint_ground

COLORS = ((200, 30, 90), (40, 160, 100))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(5))
def test_a_ground_has_no_color_beyond_mixtures_of_its_two(kind, seed):
    pixels = np.asarray(paint_ground(Ground(kind, COLORS, seed), Size(40, 30)), float)
    low, high = np.array(COLORS, float)
    shares = (pixels - low) @ (high - low) / ((high - low) ** 2).sum()
    assert shares.min() >= -0.01
    assert shares.max() <= 1.01
    assert np.abs(pixels - low - shares[..., None] * (high - low)).max() <= 1  # rounding


@pytest.mark.parametrize("kind", KINDS)
def test_a_ground_is_the_same_at_any_size(kind):
    ground = Ground(kind, COLORS, 3)
    small = paint_ground(ground, Size(144, 96))
    large = paint_ground(ground, Size(576, 384)).resize(small.size, Image.Resampling.BOX)
    difference = np.abs(np.asarray(small, float) - np.asarray(large, float))
    assert difference.mean() < 6  # edges fall on other pixels


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "plain"])
def test_seeds_differ(kind):
    one, other = (paint_ground(Ground(kind, COLORS, seed), Size(32, 32)) for seed in (0, 1))
    assert np.any(np.asarray(one) != np.asarray(other))
