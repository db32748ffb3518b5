import dataclasses

import pytest
import torch

from lumina.backbones.next_dit import NextDiT
from lumina.training.recipes import ShapesRecipe
from lumina.training.trainer import train
from lumina.worlds.shapes import CLASSES


@pytest.fixture
def recipe(tmp_path):
    return ShapesRecipe(
        out=str(tmp_path / "run"),
        steps=2,
        batch_size=8,
        side=16,
        width=16,
        depth=1,
        preview_every=100,
        warmup=0,
    )


def test_the_same_step_gives_the_same_shapes(recipe):
    first, again = (recipe.make_objective().batch(3) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first.data, recipe.make_objective().batch(4).data)


def test_as_many_classes_are_dropped_as_asked(recipe):
    for share in (0.0, 1.0):
        objective = dataclasses.replace(recipe, class_dropout=share).make_objective()
        assert (objective.batch(0).labels == CLASSES).float().mean() == share


def test_a_network_that_says_nothing_has_the_loss_of_the_data(recipe):
    objective = recipe.make_objective()
    batch = objective.batch(0)
    loss, _ = objective.loss(batch, 0)
    assert loss.item() == pytest.approx((batch.data - batch.noise).square().mean().item())


def test_a_run_writes_a_network_that_another_run_takes_up(recipe):
    folder = train(recipe)
    network = NextDiT.from_pretrained(folder, subfolder="transformer")
    assert network.rope_theta == recipe.rope_theta
    longer = dataclasses.replace(recipe, start_from=str(folder)).make_objective()
    for name, weight in network.state_dict().items():
        assert torch.equal(longer.module.state_dict()[name], weight), name
