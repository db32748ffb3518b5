import numpy as np
import pytest
import torch

from lumina.backbones.next_dit import NextDiT
from lumina.evaluation.claims.components import Seen, look
from lumina.evaluation.claims.extrapolation import CONDITIONS
from lumina.evaluation.claims.shapes import Sampler, is_like, is_one, smallest_area
from lumina.worlds.shapes import CLASSES, COLORS, SHAPES, draw_shape, paint_shape


@pytest.fixture(scope="module")
def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = NextDiT(
            sample_size=16,
            in_channels=3,
            hidden_size=32,
            num_layers=2,
            num_attention_heads=2,
            multiple_of=32,
            learn_sigma=False,
            num_classes=CLASSES,
            rope_theta=100.0,
        )
        for weight in network.parameters():
            if not weight.any():
                torch.nn.init.normal_(weight, std=0.3)
    return network.eval()


@pytest.mark.parametrize("scale", [1, 2])
def test_painted_shapes_are_found_to_be_one_of_their_kind(scale):
    rng = np.random.default_rng(0)
    for label in range(CLASSES):
        picture = paint_shape(draw_shape(rng, label), 64 * scale)
        seen = look(picture, smallest=smallest_area(64), kind=SHAPES[label // len(COLORS)])
        assert is_one(seen)
        assert is_like(seen)


def test_another_shape_is_one_but_not_the_one_asked_for():
    seen = Seen(objects=1, size=0.3, likeness=0.5, sharpness=1.0)
    assert is_one(seen)
    assert not is_like(seen)


def test_every_condition_draws_another_picture_on_a_larger_canvas(network):
    sampler = Sampler(network, steps=2)
    pictures = [
        sampler.draw(torch.tensor([0]), [0], scale=2, condition=condition)
        for condition in CONDITIONS
    ]
    assert all(picture.shape == (1, 32, 32, 3) for picture in pictures)
    assert len({picture.tobytes() for picture in pictures}) == len(CONDITIONS)


def test_a_picture_depends_on_its_seed_alone(network):
    sampler = Sampler(network, steps=2)
    draw = sampler.draw
    both = draw(torch.tensor([1, 2]), [5, 6], scale=1, condition=CONDITIONS[0])
    alone = draw(torch.tensor([2]), [6], scale=1, condition=CONDITIONS[0])
    assert abs(both[1].astype(int) - alone[0].astype(int)).mean() < 2  # bfloat16
