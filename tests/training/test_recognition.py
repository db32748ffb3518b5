import dataclasses
import math

import numpy as np
import pytest
import torch

from lumina.errors import LuminaError
from lumina.pipelines.recognition import LuminaRecognitionPipeline
from lumina.training.recipes import RecognitionRecipe
from lumina.training.recognition import RecognitionObjective, draw_size
from lumina.training.sharding import Share
from lumina.training.trainer import Run


@pytest.fixture
def recipe(tmp_path):
    return RecognitionRecipe(
        out=str(tmp_path / "run"),
        steps=2,
        batch_size=8,
        side=16,
        patch=4,
        smallest=10,
        largest=30,
        width=24,
        depth=1,
        heads=3,
        unseen=6,
        preview_every=100,
        warmup=0,
    )


@pytest.fixture
def make(gallery):
    def make(recipe):
        return RecognitionObjective(recipe, {"train": gallery, "validation": gallery})

    return make


def test_the_same_step_gives_the_same_pictures(recipe, make):
    first, again, other = (make(recipe).batch(number) for number in (3, 3, 4))
    assert torch.equal(first.labels, again.labels)
    assert all(map(torch.equal, first.pictures, again.pictures))
    assert not torch.equal(first.pictures[0], other.pictures[0])


def test_processes_share_a_batch(recipe, make):
    objective = make(dataclasses.replace(recipe, usual=0.0))
    whole = objective.batch(0)
    parts = [objective.batch(0, Share(number, 2)) for number in range(2)]
    assert torch.equal(torch.cat([part.labels for part in parts]), whole.labels)
    shared = [picture for part in parts for picture in part.pictures]
    assert all(map(torch.equal, shared, whole.pictures))


def test_sizes_are_the_usual_one_as_often_as_asked_and_in_range_else(recipe):
    rng = np.random.default_rng(0)
    mixed = dataclasses.replace(recipe, usual=0.25)
    sizes = [draw_size(rng, mixed) for _ in range(2000)]
    assert np.mean([size == (16, 16) for size in sizes]) == pytest.approx(0.25, abs=0.04)
    others = [size for size in sizes if size != (16, 16)]
    sides = [math.sqrt(size.width * size.height) for size in others]
    aspects = [size.width / size.height for size in others]
    assert min(sides) == pytest.approx(recipe.smallest, rel=0.1)
    assert max(sides) == pytest.approx(recipe.largest, rel=0.1)
    assert max(aspects) == pytest.approx(recipe.aspect, rel=0.15)
    assert np.median(aspects) == pytest.approx(1, abs=0.06)


def test_a_new_network_has_the_loss_of_chance(recipe, make):
    objective = make(recipe)
    loss, figures = objective.loss(objective.batch(0), 0)
    assert loss.item() == pytest.approx(math.log(6), rel=1e-5)
    assert 0 <= figures["top1"] <= 1


@pytest.mark.parametrize("positions", ["rotary", "learned"])
def test_it_learns_pictures_of_any_sizes_by_heart(recipe, make, positions):
    changes = {"steps": 30, "usual": 0.3, "positions": positions, "smoothing": 0.0}
    recipe = dataclasses.replace(recipe, **changes, learning_rate=1e-2, decay=0.0)
    run = Run(recipe, make(recipe))
    batch = run.objective.batch(0)
    losses = [run.update([batch], step)["loss"] for step in range(recipe.steps)]
    assert losses[-1] < 0.3 * losses[0]


def test_a_run_writes_a_pipeline_that_another_run_takes_up(recipe, make, gallery):
    run = Run(recipe, make(recipe))
    run.out.mkdir(parents=True)
    run.go()
    folder = run.export()
    pipeline = LuminaRecognitionPipeline.from_pretrained(folder)
    assert tuple(pipeline.labels) == gallery.names
    longer = make(dataclasses.replace(recipe, start_from=str(folder)))
    for name, weight in pipeline.transformer.state_dict().items():
        assert torch.equal(longer.module.state_dict()[name], weight), name
    assert (run.out / "step-000002.png").is_file()


def test_views_to_validate_on_are_the_same_in_every_run(recipe, make):
    torch.manual_seed(0)
    objective = make(recipe)
    figures = objective.validate()
    assert figures.keys() == {"top1_1x", "top1_2x", "top1_wide"}
    assert objective.validate() == figures


@pytest.mark.parametrize(
    ("settings", "told"),
    [({"smallest": 50, "largest": 40}, "above largest"), ({"width": 100, "heads": 3}, "3 heads")],
)
def test_settings_that_do_not_fit_are_refused(settings, told):
    with pytest.raises(LuminaError, match=told):
        RecognitionRecipe(**settings).check()
