import shutil

import pytest
import torch

from lumina.backbones.named import build_backbone
from lumina.errors import LuminaError
from lumina.training.data.dataset import Stages
from lumina.training.flow import find_data, make_batches
from lumina.training.planning import estimate_memory, plan
from lumina.training.recipes import FlowRecipe
from lumina.training.starting import make_network
from lumina.training.trainer import train

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


def test_quantized_weights_take_less(recipe, tiny_folder):
    settings = {"start_from": str(tiny_folder), "lora_rank": 2, "precision": "bf16"}
    sizes = [memory(recipe(quantize=kind, **settings)).weights for kind in ("", "int8", "nf4")]
    assert sizes[0] > sizes[1] > sizes[2]


@pytest.mark.gpu
@pytest.mark.parametrize("quantize", ["", "nf4"])
def test_adapters_of_the_2b_network_take_the_memory_that_the_plan_says(
    recipe, tiny_folder, tmp_path, quantize
):
    if quantize:
        pytest.importorskip("bitsandbytes")
    folder = tmp_path / "model"
    shutil.copytree(tiny_folder, folder)
    shutil.rmtree(folder / "transformer")
    network = build_backbone("next-dit-2b", cross_attention_dim=16).to(torch.bfloat16)
    network.save_pretrained(folder / "transformer")
    del network
    settings = recipe(
        data=({"kind": "shapes", "pictures": 4, "side": 1024},),
        crops={"side": 1024},
        start_from=str(folder),
        lora_rank=16,
        quantize=quantize,
        precision="bf16",
        checkpoint_activations=True,
        batch_size=1,
        steps=2,
        device="cuda",
    )
    expected = memory(settings).total
    torch.cuda.reset_peak_memory_stats()
    train(settings)
    found = torch.cuda.max_memory_allocated()
    assert found < 24 * 2**30
    assert found == pytest.approx(expected, rel=0.1)
