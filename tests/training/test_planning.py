import pytest
import torch

from lumina.errors import LuminaError
from lumina.training.data.dataset import Stages
from lumina.training.flow import find_data, make_batches
from lumina.training.planning import estimate_memory, plan
from lumina.training.recipes import FlowRecipe
from lumina.training.starting import make_network

SHAPES = {"kind": "shapes", "pictures": 8, "side": 128}


@pytest.fixture
def recipe(tiny_folder, tmp_path):
    """Makes a recipe of a small network, on 64 tokens for each picture."""

    def make(**settings):
        defaults = {"out": str(tmp_path / "run"), "data": (SHAPES,), "crops": {"side": 128}}
        defaults |= {"autoencoder": str(tiny_folder), "text_encoder": str(tiny_folder)}
        defaults |= {"width": 32, "depth": 2, "heads": 4, "kv_heads": 4, "multiple_of": 16}
        return FlowRecipe(**defaults | {"batch_size": 4, "steps": 6} | settings)

    return make


def memory(recipe):
    stages = Stages(find_data(recipe), make_batches(recipe), total=recipe.steps, seed=0)
    with torch.device("meta"):
        network = make_network(recipe, is_empty=True)
    return estimate_memory(recipe, network, stages)


def test_processes_that_share_tokens_each_keep_their_part_of_what_grows_with_tokens(recipe):
    alone, two, four = (memory(recipe(context_parallel=count)) for count in (1, 2, 4))
    assert alone.weights == two.weights == four.weights
    # Of a line through them, the part that does not grow with tokens is the same.
    first, second = (alone.activations - two.activations, two.activations - four.activations)
    assert first == pytest.approx(2 * second, rel=1e-3)
    assert 0.5 < two.activations / alone.activations < 0.7


def test_tokens_that_do_not_divide_are_refused(recipe):
    with pytest.raises(LuminaError, match="the 64 tokens of 128x128 do not divide among 3"):
        memory(recipe(context_parallel=3))


def test_states_of_8_bits_take_a_quarter(recipe):
    exact, coded = (memory(recipe(matrix_optimizer=name)) for name in ("adamw", "adamw8bit"))
    bytes_of_gradient = bytes_of_average = 4
    expected = (bytes_of_gradient + bytes_of_average + 8) * exact.weights / 4
    assert exact.training == pytest.approx(expected, rel=0.01)
    assert coded.training == pytest.approx(10 / 16 * exact.training, rel=0.01)


def test_the_plan_tells_of_data_batches_memory_and_steps(recipe):
    lines = "\n".join(plan(recipe(context_parallel=2)))
    for told in ("data:", "128x128", "first captions:", "M trained", "of activations", "steps: 6"):
        assert told in lines
    assert "memory of each of 2 processes" in lines
