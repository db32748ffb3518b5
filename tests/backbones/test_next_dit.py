import copy
import itertools
import json

import accelerate
import pytest
import torch
from diffusers.models.embeddings import get_2d_rotary_pos_embed_lumina
from diffusers.models.transformers.lumina_nextdit2d import LuminaNextDiT2DModel
from safetensors.torch import load_file
from torch import nn

from lumina.backbones.next_dit import NextDiT, StepCache
from lumina.nn.attention import fused_attend
from lumina.nn.extrapolation import RopeScaling
from lumina.nn.layers import FeedForward

TINY = {
    "sample_size": 8,
    "hidden_size": 48,
    "num_layers": 2,
    "num_attention_heads": 6,
    "num_kv_heads": 2,
    "multiple_of": 16,
    "cross_attention_dim": 32,
}


def randomise(model):
    """Move every weight off its initial value, so that each changes the output."""
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.2)
    return model


def make_model(**config):
    return randomise(NextDiT(**TINY | config))


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


def make_pair(*, shared_query=True, **config):
    """Diffusers' model and ours, with the same random weights."""
    theirs = randomise(LuminaNextDiT2DModel(**TINY | config))
    if shared_query:
        for block in theirs.layers:
            block.attn2.to_q = copy.deepcopy(block.attn1.to_q)
            block.attn2.norm_q = copy.deepcopy(block.attn1.norm_q)
    ours = NextDiT(**TINY | config)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def assert_equal_networks(theirs, ours, inputs, *, base=None, linear=1.0, ntk=1.0):
    table = get_2d_rotary_pos_embed_lumina(
        theirs.head_dim, 16, 16, linear_factor=linear, ntk_factor=ntk
    )
    scaling = {} if base is None else {"base_sequence_length": base}
    expected = theirs(**inputs, image_rotary_emb=table, cross_attention_kwargs=scaling).sample
    found = {
        "with their table": ours(
            **inputs, image_rotary_emb=table, cross_attention_kwargs=scaling
        ).sample,
        "with its own table": ours(
            **inputs, cross_attention_kwargs=scaling, rope=RopeScaling(linear=linear, ntk=ntk)
        ).sample,
    }
    for sample in found.values():
        # A few float32 roundings of sums that are ordered differently.
        assert (sample - expected).abs().max() <= 2e-6 * expected.abs().max()


@pytest.mark.parametrize("shared_query", [True, False])
@pytest.mark.parametrize(
    "config",
    [
        {},
        {"num_kv_heads": 6},
        {"num_kv_heads": 1, "qk_norm": False},
        {"learn_sigma": False, "ffn_dim_multiplier": 1.5},
    ],
)
@torch.no_grad()
def test_output_equals_diffusers(config, shared_query):
    theirs, ours = make_pair(shared_query=shared_query, **config)
    assert all(block.shares_query == shared_query for block in ours.layers)
    assert_equal_networks(theirs, ours, make_inputs())


@pytest.mark.parametrize(
    ("rows", "cols", "scaling"),
    [
        (4, 4, {}),
        (3, 11, {"base": 16, "linear": 1.4}),
        (12, 2, {"base": 4, "ntk": 1.7}),
        (1, 1, {"base": 16}),
    ],
)
@torch.no_grad()
def test_output_equals_diffusers_at_other_sizes_and_scalings(rows, cols, scaling):
    assert_equal_networks(*make_pair(), make_inputs(rows, cols), **scaling)


@torch.no_grad()
def test_real_tables_and_negative_weights_of_text_work_as_in_diffusers():
    theirs, ours = make_pair(num_attention_heads=3, num_kv_heads=1, hidden_size=24)
    inputs = make_inputs() | {"encoder_mask": torch.randn(2, 7)}
    table = torch.randn(16, 16, 4)
    expected = theirs(**inputs, image_rotary_emb=table, cross_attention_kwargs={}).sample
    found = ours(**inputs, image_rotary_emb=table).sample
    assert (found - expected).abs().max() <= 2e-6 * expected.abs().max()


def test_gradients_equal_those_of_diffusers():
    theirs, ours = make_pair(shared_query=False)
    table = get_2d_rotary_pos_embed_lumina(8, 16, 16)
    inputs = make_inputs()
    theirs(
        **inputs, image_rotary_emb=table, cross_attention_kwargs={}
    ).sample.square().mean().backward()
    ours(**inputs).sample.square().mean().backward()
    expected = {name: weight.grad for name, weight in theirs.named_parameters()}
    for name, weight in ours.named_parameters():
        torch.testing.assert_close(weight.grad, expected[name], atol=1e-5, rtol=1e-4)


def test_default_arguments_build_the_published_width():
    with torch.device("meta"):
        model = NextDiT()
    assert model.layers[0].feed_forward.linear_1.weight.shape == (6144, 2304)
    assert len(model.layers) == 32


@pytest.fixture
def uninitialised_memory_is_not_a_number():
    torch.use_deterministic_algorithms(True)  # also fills what `torch.empty` returns
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("uninitialised_memory_is_not_a_number")
def test_new_models_have_finite_weights_that_all_learn():
    def broken(kind):
        model = kind(**TINY)
        return [name for name, weight in model.named_parameters() if not weight.isfinite().all()]

    assert broken(NextDiT) == []
    assert broken(LuminaNextDiT2DModel) == ["pad_token"]
    model = make_model()
    model(**make_inputs()).sample.square().mean().backward()
    for name, weight in model.named_parameters():
        assert weight.requires_grad == (name != "pad_token")
        assert weight.grad is not None or name == "pad_token", name


def test_default_heads_and_a_missing_attention_argument_work_where_diffusers_fails():
    config = {name: value for name, value in TINY.items() if name != "num_kv_heads"}
    assert NextDiT(**config)(**make_inputs()).sample.shape == (2, 8, 8, 12)
    with pytest.raises(TypeError):
        LuminaNextDiT2DModel(**config)
    table = get_2d_rotary_pos_embed_lumina(8, 16, 16)
    with pytest.raises(TypeError):
        LuminaNextDiT2DModel(**TINY)(**make_inputs(), image_rotary_emb=table)


@torch.no_grad()
def test_grids_of_more_than_384_patches_work():
    model = make_model(num_layers=1)
    inputs = make_inputs(rows=1, cols=400)
    assert model(**inputs).sample.shape == (2, 8, 2, 800)


@torch.no_grad()
def test_a_sample_without_text_takes_nothing_from_it():
    model = make_model()
    inputs = make_inputs()
    inputs["encoder_mask"][0] = 0
    sample = model(**inputs).sample
    other_text = inputs | {"encoder_hidden_states": torch.randn(2, 7, 32)}
    assert sample.isfinite().all()
    torch.testing.assert_close(model(**other_text).sample[0], sample[0])
    assert not torch.allclose(model(**other_text).sample[1], sample[1])


@torch.no_grad()
def test_no_mask_sees_all_text():
    model, inputs = make_model(), make_inputs()
    ones = inputs | {"encoder_mask": torch.ones(2, 7)}
    none = inputs | {"encoder_mask": None}
    torch.testing.assert_close(model(**none).sample, model(**ones).sample)


@torch.no_grad()
def test_cached_text_gives_the_same_output_at_every_step():
    model, inputs, cache = make_model(), make_inputs(), StepCache()
    for time in (0.1, 0.5):
        inputs["timestep"] = torch.full((2,), time)
        expected = model(**inputs).sample
        torch.testing.assert_close(model(**inputs, cache=cache).sample, expected)


@torch.no_grad()
def test_cached_text_is_projected_once():
    model, inputs, cache = make_model(), make_inputs(), StepCache()
    calls = []
    for block in model.layers:
        block.attn2.to_k.register_forward_hook(lambda *_: calls.append(1))
    for _ in range(3):
        model(**inputs, cache=cache)
    assert len(calls) == len(model.layers)


def test_gradients_reach_the_text_with_a_cache_too():
    model, inputs, cache = make_model(), make_inputs(), StepCache()
    with torch.no_grad():
        model(**inputs, cache=cache)
    inputs["encoder_hidden_states"].requires_grad_()
    model(**inputs, cache=cache).sample.square().mean().backward()
    assert model.layers[0].attn2.to_k.weight.grad.abs().max() > 0


@torch.no_grad()
def test_passed_attention_replaces_that_to_tokens_and_that_to_text():
    model, inputs = make_model(), make_inputs()
    sources = []

    def recorded(query, key, value, *, mask=None, scale=None):
        sources.append(key.shape[1])
        return fused_attend(query, key, value, mask=mask, scale=scale)

    sample = model(**inputs, attend=recorded, attend_text=recorded).sample
    assert sources == [24, 7] * 2
    torch.testing.assert_close(sample, model(**inputs).sample)


@torch.no_grad()
def test_a_call_leaves_nothing_on_the_model():
    model, inputs = make_model(), make_inputs()
    before = {name: set(vars(module)) for name, module in model.named_modules()}
    expected = model(**inputs).sample
    scaling = {"base_sequence_length": 4}
    model(**inputs, cross_attention_kwargs=scaling, rope=RopeScaling(linear=2.0), cache=StepCache())
    assert {name: set(vars(module)) for name, module in model.named_modules()} == before
    torch.testing.assert_close(model(**inputs).sample, expected)


@torch.no_grad()
def test_samples_of_a_list_may_each_have_their_own_scaling():
    model, inputs = make_model(), make_inputs()
    small, large = (make_inputs(rows, 6)["hidden_states"] for rows in (4, 8))
    samples = [small[0], large[1]]
    scalings = [RopeScaling(), RopeScaling(linear=2.0, attention=1.3)]
    together = model(**inputs | {"hidden_states": samples}, rope=scalings).sample
    for i, sample in enumerate(samples):
        own = {name: value[i : i + 1] for name, value in inputs.items()}
        alone = model(**own | {"hidden_states": sample[None]}, rope=scalings[i]).sample
        torch.testing.assert_close(together[i], alone[0], rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="zip"):
        model(**inputs | {"hidden_states": samples}, rope=scalings[:1])


class LargestTensor(torch.utils._python_dispatch.TorchDispatchMode):
    """Remember the most elements that any result of an operation had."""

    elements = 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        result = function(*arguments, **(options or {}))
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.untyped_storage().nbytes() // 4)
        return result


@torch.no_grad()
def test_nothing_as_large_as_all_scores_or_diffusers_table_is_made():
    theirs, ours = make_pair(num_layers=1)
    rows, cols = 16, 24
    inputs = make_inputs(rows, cols)
    scores = 2 * 6 * (rows * cols) ** 2
    with LargestTensor() as largest:
        ours(**inputs)
    assert largest.elements < scores / 10
    table = get_2d_rotary_pos_embed_lumina(8, 384, 384)
    with LargestTensor() as largest:
        theirs(**inputs, image_rotary_emb=table, cross_attention_kwargs={})
    assert largest.elements >= scores


@torch.no_grad()
def test_hooks_that_move_weights_see_every_block():
    model, inputs = make_model(), make_inputs()
    expected = model(**inputs).sample
    offloaded = accelerate.cpu_offload(copy.deepcopy(model), execution_device=torch.device("cpu"))
    grouped = copy.deepcopy(model)
    grouped.enable_group_offload(
        onload_device=torch.device("cpu"), offload_type="block_level", num_blocks_per_group=1
    )
    for moved in (offloaded, grouped):
        cache = StepCache()
        for _ in range(2):
            torch.testing.assert_close(moved(**inputs, cache=cache).sample, expected)


@torch.no_grad()
def test_feeding_forward_without_gradients_changes_nothing_but_memory(monkeypatch):
    model, inputs = make_model(), make_inputs()
    with torch.enable_grad():
        expected = model(**inputs).sample.detach()
    torch.testing.assert_close(model(**inputs).sample, expected)
    monkeypatch.setattr(FeedForward, "tokens_at_once", 5)
    torch.testing.assert_close(model(**inputs).sample, expected)


def test_gradient_checkpointing_changes_no_gradient():
    model, inputs = make_model(), make_inputs()
    runs = []
    model.layers[0].register_forward_pre_hook(lambda *_: runs.append(1))
    gradients = []
    for checkpointed in (False, True):
        if checkpointed:
            model.enable_gradient_checkpointing()
        model.zero_grad()
        model(**inputs).sample.square().mean().backward()
        gradients.append([w.grad for w in model.parameters() if w.requires_grad])
    assert len(runs) == 3
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.no_grad()
def test_half_precision_stays_near_float32(dtype):
    model, inputs = make_model(), make_inputs()
    expected = model(**inputs).sample
    half = {name: value.to(dtype) for name, value in inputs.items()}
    sample = model.to(dtype)(**half).sample
    assert sample.dtype == dtype
    # Eight bits of mantissa, through two blocks.
    assert (sample.float() - expected).abs().max() < 0.05 * expected.abs().max()


@torch.no_grad()
def test_text_of_another_type_is_taken():
    model, inputs = make_model(), make_inputs()
    double = inputs | {"encoder_hidden_states": inputs["encoder_hidden_states"].double()}
    torch.testing.assert_close(model(**double).sample, model(**inputs).sample)


@pytest.mark.parametrize("shared_query", [True, False])
def test_a_folder_of_diffusers_loads_and_is_saved_as_one(tmp_path, shared_query):
    theirs, _ = make_pair(shared_query=shared_query)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = NextDiT.from_pretrained(tmp_path / "theirs")
    assert all(block.shares_query == shared_query for block in ours.layers)
    ours.save_pretrained(tmp_path / "ours")
    assert all(block.shares_query == shared_query for block in ours.layers)
    saved = load_file(tmp_path / "ours" / "diffusion_pytorch_model.safetensors")
    torch.testing.assert_close(saved, dict(theirs.state_dict()))
    again = LuminaNextDiT2DModel.from_pretrained(tmp_path / "ours")
    assert again.config.num_kv_heads == 2


def test_a_configuration_that_diffusers_cannot_have_keeps_our_name(tmp_path):
    make_model(rope_axes=(4, 2, 2)).save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["_class_name"] == "NextDiT"
    assert NextDiT.from_pretrained(tmp_path).rope_axes == (4, 2, 2)


def test_a_saved_configuration_names_the_heads_that_diffusers_needs(tmp_path):
    NextDiT(**TINY | {"num_kv_heads": None}).save_pretrained(tmp_path)
    assert LuminaNextDiT2DModel.from_pretrained(tmp_path).config.num_kv_heads == 6


def test_a_new_model_has_one_query_for_both_attentions():
    assert all(block.shares_query for block in NextDiT(**TINY).layers)


def test_loading_separate_queries_into_a_nested_model_keeps_both():
    theirs, _ = make_pair(shared_query=False)
    wrapper = nn.ModuleDict({"model": NextDiT(**TINY)})
    wrapper.load_state_dict({f"model.{name}": w for name, w in theirs.state_dict().items()})
    torch.testing.assert_close(dict(wrapper["model"].state_dict()), dict(theirs.state_dict()))


@torch.no_grad()
def test_separated_queries_can_differ():
    model, inputs = make_model(), make_inputs()
    expected = model(**inputs).sample
    model.separate_queries()
    torch.testing.assert_close(model(**inputs).sample, expected)
    model.layers[0].attn2.to_q.weight.add_(1)
    assert not torch.allclose(model(**inputs).sample, expected)


@torch.no_grad()
def test_a_shared_query_is_computed_once():
    model, calls = make_model(), []
    for block in model.layers:
        for attention in (block.attn1, block.attn2):
            attention.to_q.register_forward_hook(lambda *_: calls.append(1))
    model(**make_inputs())
    assert len(calls) == len(model.layers)


@torch.no_grad()
def test_a_copy_shares_queries_within_itself_alone():
    model = make_model()
    twin = copy.deepcopy(model)
    assert all(block.shares_query for block in twin.layers)
    twin.load_state_dict(randomise(LuminaNextDiT2DModel(**TINY)).state_dict())
    assert all(block.shares_query for block in model.layers)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"hidden_size": 50}, "50 does not divide into 6 heads"),
        ({"num_kv_heads": 4}, "6 heads cannot share 4"),
        ({"hidden_size": 36}, "divisible by 4, got 6"),
        ({"rope_axes": (2, 2, 2)}, "add up to the head width 8"),
        ({"rope_axes": (2, 3, 3)}, "must be 3 even numbers"),
    ],
)
def test_impossible_shapes_are_refused(config, message):
    with pytest.raises(ValueError, match=message):
        NextDiT(**TINY | config)


def test_latents_of_half_a_patch_are_refused():
    inputs = make_inputs() | {"hidden_states": torch.randn(2, 4, 7, 8)}
    with pytest.raises(ValueError, match="7 x 8 do not divide into patches of 2 x 2"):
        make_model()(**inputs)


@torch.no_grad()
def test_three_axes_turn_pictures_too():
    model, inputs = make_model(hidden_size=72, rope_axes=(4, 4, 4)), make_inputs()
    assert model(**inputs).sample.isfinite().all()


@pytest.mark.compile
@torch.no_grad()
def test_it_compiles_into_one_graph_without_complex_numbers():
    model, inputs = make_model(), make_inputs()
    graphs = []

    def keep(graph, _):
        graphs.append(graph)
        return graph.forward

    expected = model(**inputs).sample
    compiled = torch.compile(model, fullgraph=True, backend=keep)
    torch.testing.assert_close(compiled(**inputs, return_dict=False)[0], expected)
    cache = StepCache()
    for _ in range(2):
        sample = compiled(**inputs, return_dict=False, cache=cache)[0]
        torch.testing.assert_close(sample, expected)
    values = [node.meta.get("example_value") for g in graphs for node in g.graph.nodes]
    assert not any(isinstance(v, torch.Tensor) and v.is_complex() for v in values)


@pytest.mark.compile
@torch.no_grad()
def test_blocks_compile_alone_into_one_graph_for_all():
    model, inputs = make_model(num_layers=4), make_inputs()
    expected = model(**inputs).sample
    graphs = []

    def keep(graph, _):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    model.compile_repeated_blocks(fullgraph=True, backend=keep)
    torch.testing.assert_close(model(**inputs).sample, expected)
    assert len(graphs) == 1


@torch.no_grad()
def test_samples_of_different_sizes_are_what_they_are_alone():
    model, text = make_model(), make_inputs()
    del text["hidden_states"]
    samples = [torch.randn(4, 8, 12), torch.randn(4, 6, 4)]
    together = model(samples, **text).sample
    for number, sample in enumerate(samples):
        alone = {name: value[number : number + 1] for name, value in text.items()}
        torch.testing.assert_close(together[number], model(sample[None], **alone).sample[0])


@torch.no_grad()
def test_samples_of_different_sizes_attend_alone_and_without_padding():
    model, inputs = make_model(), make_inputs()
    inputs["hidden_states"] = [torch.randn(4, 8, 12), torch.randn(4, 6, 4)]
    seen = []

    def recorded(query, key, value, *, mask=None, scale=None):
        seen.append((query.shape[1], key.shape[1], mask is None))
        return fused_attend(query, key, value, mask=mask, scale=scale)

    model(**inputs, attend=recorded)
    assert seen == [(24, 24, True), (6, 6, True)] * 2


@torch.no_grad()
def test_each_block_may_attend_in_its_own_way():
    model, inputs = make_model(), make_inputs()

    def turned(query, key, value, *, mask=None, scale=None):
        return fused_attend(query, key, value.flip(1), mask=mask, scale=scale)

    plain = model(**inputs).sample
    assert torch.equal(model(**inputs, attend=[None, fused_attend]).sample, plain)
    first = model(**inputs, attend=[turned, None]).sample
    last = model(**inputs, attend=[None, turned], attend_text=[None, None]).sample
    both = model(**inputs, attend=turned).sample
    for one, other in itertools.combinations((plain, first, last, both), 2):
        assert not torch.allclose(one, other, atol=1e-4)
    with pytest.raises(ValueError, match="attention for 3 blocks was given, and there are 2"):
        model(**inputs, attend=[None] * 3)


@torch.no_grad()
def test_a_scaling_may_sharpen_attention():
    model, inputs = make_model(), make_inputs()
    seen = []

    def recorded(query, key, value, *, mask=None, scale=None):
        seen.append(scale)
        return fused_attend(query, key, value, mask=mask, scale=scale)

    model(**inputs, attend=recorded)
    model(**inputs, attend=recorded, rope=RopeScaling(attention=1.5))
    assert seen[2] == pytest.approx(1.5 * seen[0])


@torch.no_grad()
def test_a_model_of_classes_tells_them_apart_and_needs_them():
    model = make_model(num_classes=5)
    x, times = torch.randn(2, 4, 8, 8), torch.tensor([0.2, 0.9])
    one = model(x, times, class_labels=torch.tensor([0, 5])).sample
    other = model(x, times, class_labels=torch.tensor([0, 1])).sample
    torch.testing.assert_close(one[0], other[0])
    assert not torch.allclose(one[1], other[1])
    with pytest.raises(ValueError, match="needs `class_labels`"):
        model(x, times)


@pytest.mark.parametrize("routing", ["time", "space", "both"])
def test_a_mixture_of_experts_collects_the_balance_of_each(routing):
    model, balance = make_model(moe_routing=routing, num_experts=3), []
    model(**make_inputs(), balance=balance)
    assert len(balance) == 2 * (2 if routing == "both" else 1)
    assert all(loss >= 0.5 for loss in balance)


def test_an_unknown_routing_is_refused():
    with pytest.raises(ValueError, match="moe_routing must be one of None, 'time'"):
        make_model(moe_routing="sideways")


def test_a_model_of_classes_is_saved_under_our_name(tmp_path):
    make_model(num_classes=5).save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["_class_name"] == "NextDiT"
    assert NextDiT.from_pretrained(tmp_path).config.num_classes == 5
