import copy

import diffusers
import pytest
import torch
from diffusers.loaders.lora_base import LORA_WEIGHT_NAME_SAFE
from peft import LoraConfig, inject_adapter_in_model, set_peft_model_state_dict
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file

from lumina import LuminaError, NextDiT
from lumina.pipelines.adapters import read_lora

RANK, ALPHA = 3, 6.0

ORIGINAL = {
    "x_embedder": ["patch_embedder.proj"],
    "cap_embedder.1": ["time_caption_embed.caption_embedder.1"],
    "t_embedder.mlp.0": ["time_caption_embed.timestep_embedder.linear_1"],
    "layers.0.attention.wq": ["layers.0.attn1.to_q", "layers.0.attn2.to_q"],
    "layers.0.attention.wk": ["layers.0.attn1.to_k"],
    "layers.1.attention.wv_y": ["layers.1.attn2.to_v"],
    "layers.1.attention.wo": ["layers.1.attn2.to_out.0"],
    "layers.0.feed_forward.w3": ["layers.0.feed_forward.linear_3"],
    "layers.1.adaLN_modulation.1": ["layers.1.norm1.linear"],
    "final_layer.linear": ["norm_out.linear_2"],
}
"""Layers of the original code, and those of ours that they stand for."""

OURS = {name: [name] for names in ORIGINAL.values() for name in names}

STYLES = {
    "diffusers": (OURS, "transformer.{}.lora_A.weight", "transformer.{}.lora_B.weight", None),
    "peft": (OURS, "base_model.model.{}.lora_A.weight", "base_model.model.{}.lora_B.weight", None),
    "trained by peft": (OURS, "{}.lora_A.default.weight", "{}.lora_B.default.weight", None),
    "older diffusers": (
        OURS,
        "transformer.{}.lora.down.weight",
        "transformer.{}.lora.up.weight",
        None,
    ),
    "kohya": (
        OURS,
        "lora_unet_{}.lora_down.weight",
        "lora_unet_{}.lora_up.weight",
        "lora_unet_{}.alpha",
    ),
    "kohya, original names": (
        ORIGINAL,
        "lora_unet_{}.lora_down.weight",
        "lora_unet_{}.lora_up.weight",
        "lora_unet_{}.alpha",
    ),
    "diffusion_model": (
        ORIGINAL,
        "diffusion_model.{}.lora_A.weight",
        "diffusion_model.{}.lora_B.weight",
        None,
    ),
    "diffusion_model, with alphas": (
        ORIGINAL,
        "diffusion_model.{}.lora_down.weight",
        "diffusion_model.{}.lora_up.weight",
        "diffusion_model.{}.alpha",
    ),
}
"""For each style: its layers, and the names of both matrices and of their alpha."""


def make_lora(model, style="diffusers", *, rank=RANK, seed=2, only=""):
    """A random adapter in one style, and what it adds to each weight of a model."""
    layers, down, up, alpha = STYLES[style]
    generator = torch.Generator().manual_seed(seed)
    weights, changes = {}, {}
    for name, places in layers.items():
        if only not in name:
            continue
        outputs, inputs = model.get_submodule(places[0]).weight.shape
        a = torch.randn(rank, inputs, generator=generator) * 0.2
        b = torch.randn(outputs, rank, generator=generator) * 0.2
        name = name.replace(".", "_") if "lora_unet" in down else name
        weights |= {down.format(name): a, up.format(name): b}
        if alpha:
            weights[alpha.format(name)] = torch.tensor(ALPHA)
        for place in places:
            changes[place] = b @ a * (ALPHA / rank if alpha else 1)
    return weights, changes


def changed(model, *changes):
    """A copy of a model with changes added to its weights."""
    model = copy.deepcopy(model)
    model.separate_queries()
    with torch.no_grad():
        for change in changes:
            for name, values in change.items():
                model.get_submodule(name).weight += values
    return model


def apply(model, weights):
    model.load_lora_adapter(read_lora(weights, model), prefix=None)


def assert_close(found, expected):
    # A product of sums in place of a sum of products, in float32.
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_a_new_adapter_changes_nothing(network, run):
    before = run(network)
    network.add_adapter(
        LoraConfig(r=2, target_modules=["to_q", "to_k", "linear_1", "norm1.linear"])
    )
    assert torch.equal(run(network), before)


@pytest.mark.parametrize("style", STYLES)
def test_an_adapter_of_any_style_adds_its_product_to_the_weights(network, run, style):
    weights, changes = make_lora(network, style)
    expected = run(changed(network, changes))
    assert not torch.allclose(run(network), expected, rtol=0.01)
    apply(network, weights)
    assert_close(run(network), expected)


def test_an_adapter_of_one_query_alone_leaves_the_other_as_it_was(network, run):
    weights, changes = make_lora(network, only="layers.0.attn1.to_q")
    assert list(changes) == ["layers.0.attn1.to_q"]
    before, expected = run(network), run(changed(network, changes))
    apply(network, weights)
    assert [block.shares_query for block in network.layers] == [False, True]
    assert_close(run(network), expected)
    network.fuse_lora()
    assert_close(run(network), expected)
    network.unfuse_lora()
    assert_close(run(network), expected)
    network.unload_lora()
    assert_close(run(network), before)


@pytest.mark.parametrize("leave", ["unload_lora", "delete_adapters"])
def test_queries_are_shared_again_without_adapters(network, run, leave):
    before = run(network)
    apply(network, make_lora(network)[0])
    arguments = ["default_0"] if leave == "delete_adapters" else []
    getattr(network, leave)(*arguments)
    assert all(block.shares_query for block in network.layers)
    assert torch.equal(run(network), before)


def test_pictures_change_with_an_adapter_and_are_as_before_without_it(pipeline, draw):
    before = draw(pipeline)
    weights, _ = make_lora(pipeline.transformer)
    pipeline.load_lora_weights(weights, adapter_name="one")
    during = draw(pipeline)
    assert not torch.allclose(during, before, rtol=0.01)
    pipeline.disable_lora()
    assert_close(draw(pipeline), before)
    pipeline.enable_lora()
    assert torch.equal(draw(pipeline), during)
    pipeline.unload_lora_weights()
    assert torch.equal(draw(pipeline), before)


def test_fusing_and_unfusing_change_no_picture(pipeline, draw):
    pipeline.load_lora_weights(make_lora(pipeline.transformer)[0])
    expected = draw(pipeline)
    pipeline.fuse_lora()
    assert pipeline.num_fused_loras == 1
    assert_close(draw(pipeline), expected)
    pipeline.unfuse_lora()
    assert_close(draw(pipeline), expected)
    pipeline.fuse_lora()
    pipeline.unload_lora_weights()
    assert_close(draw(pipeline), expected)


def test_adapters_add_up_by_their_weights(pipeline, run):
    transformer = pipeline.transformer
    (one, one_changes), (two, two_changes) = (make_lora(transformer, seed=seed) for seed in (2, 3))
    half = {name: 0.5 * change for name, change in one_changes.items()}
    less = {name: -0.3 * change for name, change in two_changes.items()}
    expected = run(changed(transformer, half, less))
    expected_alone = run(changed(transformer, two_changes))
    pipeline.load_lora_weights(one, adapter_name="one")
    pipeline.load_lora_weights(two, adapter_name="two")
    pipeline.set_adapters(["one", "two"], [0.5, -0.3])
    assert pipeline.get_active_adapters() == ["one", "two"]
    assert_close(run(transformer), expected)
    pipeline.delete_adapters("one")
    pipeline.set_adapters("two")
    assert pipeline.get_list_adapters() == {"transformer": ["two"]}
    assert_close(run(transformer), expected_alone)


def train_one(transformer):
    """Give a transformer an adapter as training leaves it, with a scale of its own."""
    transformer.add_adapter(LoraConfig(r=4, lora_alpha=10, target_modules=["to_q", "linear_2"]))
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, weight in transformer.named_parameters():
            if "lora_B" in name:
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.2)
    return get_peft_model_state_dict(transformer)


def test_an_adapter_that_was_saved_loads_bit_for_bit(pipeline, run, tmp_path):
    transformer = pipeline.transformer
    trained, expected = train_one(transformer), run(transformer)
    config = transformer.peft_config["default"].to_dict()
    pipeline.save_lora_weights(tmp_path, trained, transformer_lora_adapter_metadata=config)
    transformer.save_lora_adapter(tmp_path, weight_name="alone.safetensors")
    pipeline.unload_lora_weights()
    for file in (LORA_WEIGHT_NAME_SAFE, "alone.safetensors"):
        pipeline.load_lora_weights(tmp_path, weight_name=file)
        loaded = get_peft_model_state_dict(transformer, adapter_name="default_0")
        assert loaded.keys() == trained.keys()
        assert all(torch.equal(loaded[name], trained[name]) for name in trained)
        assert torch.equal(run(transformer), expected)
        pipeline.unload_lora_weights()


@pytest.mark.parametrize("rank", [RANK, 2, 5])
def test_an_adapter_takes_the_place_of_another(pipeline, run, rank):
    transformer = pipeline.transformer
    first, _ = make_lora(transformer)
    second, changes = make_lora(transformer, "kohya", rank=rank, seed=3)
    expected = run(changed(transformer, changes))
    pipeline.enable_lora_hotswap(target_rank=5)
    pipeline.load_lora_weights(first, adapter_name="style")
    pipeline.load_lora_weights(second, adapter_name="style", hotswap=True)
    assert pipeline.get_list_adapters() == {"transformer": ["style"]}
    assert_close(run(transformer), expected)


@pytest.mark.compile
def test_a_compiled_transformer_stays_compiled_when_adapters_change_places(pipeline, run):
    compiled = []

    def count(graph, inputs):
        compiled.append(graph)
        return graph.forward

    torch._dynamo.reset()
    pipeline.enable_lora_hotswap(target_rank=5)
    first, _ = make_lora(pipeline.transformer)
    second, changes = make_lora(pipeline.transformer, rank=5, seed=3)
    expected = run(changed(pipeline.transformer, changes))
    pipeline.load_lora_weights(first, adapter_name="style")
    pipeline.transformer = torch.compile(pipeline.transformer, backend=count)
    run(pipeline.transformer)
    graphs = len(compiled)
    pipeline.load_lora_weights(second, adapter_name="style", hotswap=True)
    assert_close(run(pipeline.transformer), expected)
    assert len(compiled) == graphs


def test_diffusers_own_pipeline_draws_the_same_with_our_adapter(pipeline, draw, tmp_path):
    pipeline.save_pretrained(tmp_path)
    before, trained = draw(pipeline), train_one(pipeline.transformer)
    expected = draw(pipeline)
    theirs = diffusers.LuminaPipeline.from_pretrained(tmp_path)
    inject_adapter_in_model(pipeline.transformer.peft_config["default"], theirs.transformer)
    assert set_peft_model_state_dict(theirs.transformer, trained).unexpected_keys == []
    assert not torch.allclose(before, expected, rtol=0.01)
    # What parity with diffusers is held to.
    assert (draw(theirs) - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_an_adapter_for_another_width_names_layer_and_shapes(pipeline):
    wide = NextDiT(hidden_size=96, num_layers=2, num_attention_heads=6, cross_attention_dim=16)
    weights, _ = make_lora(wide, "kohya", only="layers.0.attn1.to_k")
    with pytest.raises(LuminaError) as error:
        pipeline.load_lora_weights(weights)
    assert str(error.value).splitlines() == [
        "layers_0_attn1_to_k.lora_A.weight of this LoRA has the shape [3, 96],"
        " where this model takes [3, 48]",
        "hint: load it into the model that it was made for",
    ]
    assert not hasattr(pipeline.transformer, "peft_config")


def test_an_adapter_in_a_file_is_named_by_its_file(pipeline, tmp_path):
    file = tmp_path / "lora.safetensors"
    wide = NextDiT(hidden_size=96, num_layers=2, num_attention_heads=6, cross_attention_dim=16)
    save_file(make_lora(wide, "kohya", only="layers.0.attn1.to_k")[0], file)
    with pytest.raises(LuminaError, match=rf"of {file} has the shape \[3, 96\]"):
        pipeline.load_lora_weights(file)
    other = "transformer.transformer_blocks.0.attn.to_q.lora_A.weight"
    save_file({other: torch.zeros(3, 48)}, file)
    with pytest.raises(LuminaError, match=f"1 of the 1 layers of {file} are not in NextDiT"):
        pipeline.load_lora_weights(file)


def test_an_adapter_of_which_layers_are_missing_is_refused(pipeline):
    weights = {
        f"transformer.transformer_blocks.{block}.attn.to_q.lora_A.weight": torch.zeros(3, 48)
        for block in range(5)
    }
    with pytest.raises(LuminaError, match=r"5 of the 5 layers .* not in NextDiT: transf.*, \.\.\."):
        pipeline.load_lora_weights(weights)
    partly = make_lora(pipeline.transformer)[0] | weights
    with pytest.raises(LuminaError, match=rf"5 of the {len(OURS) + 5} layers"):
        pipeline.load_lora_weights(partly)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({}, "holds no weights"),
        ({"layers.0.attn1.to_q.weight": torch.zeros(48, 48)}, "is no weight of a LoRA"),
        ({"layers.0.attn1.to_q.lora_A.weight": torch.zeros(3, 48)}, "lacks lora_B.weight"),
        ({"layers.0.attn1.to_q.alpha": torch.tensor(3.0)}, "lacks lora_A.weight and lora_B.weight"),
    ],
)
def test_what_is_no_whole_adapter_is_refused(pipeline, tmp_path, weights, message):
    save_file(weights, tmp_path / "lora.safetensors")
    with pytest.raises(LuminaError, match=message):
        pipeline.load_lora_weights(tmp_path / "lora.safetensors")


def test_a_file_that_is_missing_or_damaged_is_refused(pipeline, tmp_path):
    file = tmp_path / "lora.safetensors"
    with pytest.raises(LuminaError, match="lora.safetensors is missing"):
        pipeline.load_lora_weights(file)
    save_file(make_lora(pipeline.transformer)[0], file)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(LuminaError, match="lora.safetensors is cut off"):
        pipeline.load_lora_weights(file)


def test_a_model_with_adapters_is_not_saved_as_one_without(pipeline, tmp_path):
    pipeline.load_lora_weights(make_lora(pipeline.transformer)[0], adapter_name="style")
    with pytest.raises(LuminaError, match="NextDiT has the adapters style"):
        pipeline.save_pretrained(tmp_path)
    pipeline.fuse_lora()
    pipeline.unload_lora_weights()
    pipeline.transformer.save_pretrained(tmp_path)
    assert "layers.0.attn2.to_q.weight" in load_file(
        tmp_path / "diffusion_pytorch_model.safetensors"
    )
