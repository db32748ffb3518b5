import pytest
import torch

from lumina import FlagDiT, NextDiT
from lumina.backbones.next_dit import StepCache

TINY = {
    "sample_size": 8,
    "hidden_size": 48,
    "num_layers": 3,
    "num_attention_heads": 6,
    "num_kv_heads": 2,
    "multiple_of": 16,
    "cross_attention_dim": 32,
}

pytestmark = pytest.mark.compile


class Graphs(list):
    """A backend that runs what it is given, and keeps it."""

    def __call__(self, graph, _):
        self.append(graph)
        return graph.forward


@pytest.fixture(params=[NextDiT, FlagDiT])
def model(request):
    torch._dynamo.reset()
    torch.manual_seed(0)
    model = request.param(**TINY)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.2)
    return model


def make_inputs(rows=4, cols=6):
    torch.manual_seed(1)
    mask = torch.ones(2, 7)
    mask[1, 4:] = 0
    return {
        "hidden_states": torch.randn(2, 4, 2 * rows, 2 * cols),
        "timestep": torch.tensor([0.2, 0.9]),
        "encoder_hidden_states": torch.randn(2, 7, 32),
        "encoder_mask": mask,
    }


@torch.no_grad()
def test_blocks_are_one_graph_and_another_where_the_text_is_cached(model):
    inputs, graphs = make_inputs(), Graphs()
    expected = model(**inputs).sample
    model.compile_repeated_blocks(fullgraph=True, backend=graphs)
    torch.testing.assert_close(model(**inputs).sample, expected, atol=1e-5, rtol=1e-5)
    assert len(graphs) == 1
    torch._dynamo.reset()
    graphs.clear()
    cache = StepCache()
    for _ in range(3):
        found = model(**inputs, cache=cache).sample
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert len(graphs) == 2  # filling the cache, and reading it


@torch.no_grad()
def test_other_sizes_need_no_other_graphs_if_it_is_said_that_they_come(model):
    graphs = Graphs()
    sizes = [(4, 6), (3, 5)]
    expected = [model(**make_inputs(*size)).sample for size in sizes]
    model.compile_repeated_blocks(fullgraph=True, dynamic=True, backend=graphs)
    for size, sample in zip(sizes, expected, strict=True):
        found = model(**make_inputs(*size)).sample
        torch.testing.assert_close(found, sample, atol=1e-5, rtol=1e-5)
    assert len(graphs) <= 2


@pytest.mark.parametrize("model", [NextDiT], indirect=True)
@torch.no_grad()
def test_the_compiler_of_pytorch_makes_the_same_of_the_blocks(model):
    inputs = make_inputs()
    expected = model(**inputs).sample
    model.compile_repeated_blocks(fullgraph=True)
    torch.testing.assert_close(model(**inputs).sample, expected, atol=1e-5, rtol=1e-5)


def test_gradients_go_through_compiled_blocks(model):
    inputs = make_inputs()
    model(**inputs).sample.square().mean().backward()
    weights = [weight for weight in model.parameters() if weight.grad is not None]
    expected = [weight.grad for weight in weights]
    model.zero_grad()
    model.compile_repeated_blocks(fullgraph=True, backend=Graphs())
    model(**inputs).sample.square().mean().backward()
    for weight, gradient in zip(weights, expected, strict=True):
        torch.testing.assert_close(weight.grad, gradient, atol=1e-5, rtol=1e-4)
