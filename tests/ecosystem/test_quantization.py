import pytest
import torch
import transformers
from diffusers import BitsAndBytesConfig, TorchAoConfig
from diffusers.quantizers import PipelineQuantizationConfig
from peft import LoraConfig
from torchao.quantization import (
    Int8DynamicActivationInt8WeightConfig,
    Int8WeightOnlyConfig,
    quantize_,
)
from torchao.utils import TorchAOBaseTensor

import lumina
from lumina import LuminaPipeline, NextDiT

KINDS = {"weights": Int8WeightOnlyConfig, "activations": Int8DynamicActivationInt8WeightConfig}
TOLERANCE = {"weights": 0.03, "activations": 0.04}
"""Relative error that 7 bits leave after two blocks of random weights; about twice what is seen."""


def relative_error(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


def quantized_layers(model):
    return {
        name
        for name, module in model.named_modules()
        if isinstance(getattr(module, "weight", None), TorchAOBaseTensor)
    }


def load(folder, kind, like=NextDiT, *, dtype=torch.float32, **options):
    config = TorchAoConfig(KINDS[kind](), **options)
    return like.from_pretrained(folder, quantization_config=config, torch_dtype=dtype)


@pytest.mark.parametrize("kind", KINDS)
def test_a_quantized_network_stays_near_the_exact_one(network, run, tmp_path, kind):
    network.save_pretrained(tmp_path)
    quantized = load(tmp_path, kind, type(network))
    error = relative_error(run(quantized), run(network))
    assert 0 < error < TOLERANCE[kind]


def test_a_quantized_network_computes_in_bfloat16(network, run, tmp_path):
    network.save_pretrained(tmp_path)
    quantized = load(tmp_path, "weights", type(network), dtype=torch.bfloat16)
    assert relative_error(run(quantized, torch.bfloat16), run(network)) < 0.03


def test_it_computes_what_torchao_makes_of_the_same_layers(next_dit, run, tmp_path):
    next_dit.save_pretrained(tmp_path)
    quantized = load(tmp_path, "weights")
    names = quantized_layers(quantized)
    next_dit.separate_queries()
    quantize_(next_dit, Int8WeightOnlyConfig(), filter_fn=lambda _, name: name in names)
    assert torch.equal(run(quantized), run(next_dit))


def test_what_makes_tokens_and_conditions_and_the_output_stay_as_they_are(network, tmp_path):
    network.save_pretrained(tmp_path)
    linear = {name for name, part in network.named_modules() if isinstance(part, torch.nn.Linear)}
    quantized = quantized_layers(load(tmp_path, "weights", type(network)))
    assert quantized == {name for name in linear if name.startswith("layers.")}
    assert any("to_q" in name for name in quantized)


def test_the_router_of_a_mixture_stays_as_it_is(tmp_path):
    NextDiT(
        hidden_size=48,
        num_layers=1,
        num_attention_heads=6,
        cross_attention_dim=16,
        multiple_of=16,
        moe_routing="both",
        num_experts=3,
    ).save_pretrained(tmp_path)
    quantized = quantized_layers(load(tmp_path, "weights"))
    assert not any(name.endswith("gate") for name in quantized)
    assert "layers.0.second_forward.experts.2.linear_1" in quantized


@pytest.mark.parametrize("kind", KINDS)
def test_a_quantized_mixture_stays_near_the_exact_one(mixture, run, tmp_path, kind):
    mixture.save_pretrained(tmp_path)
    error = relative_error(run(load(tmp_path, kind)), run(mixture))
    # Where a router reads tokens, some go to another expert.
    assert 0 < error < (TOLERANCE[kind] if mixture.config.moe_routing == "time" else 0.2)


def test_layers_that_a_config_names_stay_instead(next_dit, tmp_path):
    next_dit.save_pretrained(tmp_path)
    config = TorchAoConfig(Int8WeightOnlyConfig(), modules_to_not_convert=["layers.1"])
    model = NextDiT.from_pretrained(tmp_path, quantization_config=config, torch_dtype=torch.float32)
    quantized = quantized_layers(model)
    assert "patch_embedder.proj" in quantized
    assert not any(name.startswith("layers.1") for name in quantized)
    assert config.modules_to_not_convert == ["layers.1"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_quantized_network_loads_as_it_was_saved(network, run, tmp_path, kind):
    network.save_pretrained(tmp_path / "exact")
    quantized = load(tmp_path / "exact", kind, type(network))
    quantized.save_pretrained(tmp_path / "int8")
    again = type(network).from_pretrained(tmp_path / "int8", torch_dtype=torch.float32)
    assert quantized_layers(again) == quantized_layers(quantized)
    assert torch.equal(run(again), run(quantized))
    exact, int8 = (
        (tmp_path / name / "diffusion_pytorch_model.safetensors").stat().st_size
        for name in ("exact", "int8")
    )
    assert int8 < 0.6 * exact


@pytest.mark.parametrize("kind", KINDS)
def test_queries_that_are_equal_are_shared_when_quantized(network, run, tmp_path, kind):
    network.save_pretrained(tmp_path / "exact")
    quantized = load(tmp_path / "exact", kind, type(network))
    assert all(block.shares_query for block in quantized.layers)
    before = run(quantized)
    quantized.save_pretrained(tmp_path / "int8")
    assert all(block.shares_query for block in quantized.layers)
    quantized.separate_queries()
    assert not any(block.shares_query for block in quantized.layers)
    assert torch.equal(run(quantized), before)


def test_queries_that_differ_are_not_shared_when_quantized(next_dit, tmp_path):
    next_dit.separate_queries()
    with torch.no_grad():
        next_dit.layers[0].attn2.to_q.weight.mul_(1.5)
    next_dit.save_pretrained(tmp_path)
    quantized = load(tmp_path, "weights")
    assert [block.shares_query for block in quantized.layers] == [False, True]


def test_a_quantized_network_learns_an_adapter(next_dit, run, tmp_path):
    next_dit.save_pretrained(tmp_path)
    quantized = load(tmp_path, "weights")
    before = run(quantized)
    quantized.add_adapter(LoraConfig(r=2, target_modules=["attn1.to_q", "linear_1"]))
    assert torch.equal(run(quantized), before)
    with torch.no_grad():
        for name, weight in quantized.named_parameters():
            if "lora_B" in name:
                weight.fill_(0.1)
    assert relative_error(run(quantized), before) > 0.01
    quantized.unload_lora()
    assert all(block.shares_query for block in quantized.layers)
    assert torch.equal(run(quantized), before)


def make_pipeline_config(kind):
    return PipelineQuantizationConfig(
        quant_mapping={
            "transformer": TorchAoConfig(KINDS[kind]()),
            "text_encoder": transformers.TorchAoConfig(KINDS[kind]()),
        }
    )


@pytest.mark.parametrize("kind", KINDS)
def test_transformer_and_text_encoder_are_quantized_together(pipeline, draw, tmp_path, kind):
    pipeline.save_pretrained(tmp_path / "exact")
    quantized = LuminaPipeline.from_pretrained(
        tmp_path / "exact",
        quantization_config=make_pipeline_config(kind),
        dtype=torch.float32,
    )
    quantized.set_progress_bar_config(disable=True)
    assert "layers.0.self_attn.q_proj" in quantized_layers(quantized.text_encoder)
    assert "patch_embedder.proj" not in quantized_layers(quantized.transformer)
    assert "layers.0.attn1.to_q" in quantized_layers(quantized.transformer)
    found = draw(quantized)
    assert relative_error(found, draw(pipeline)) < 0.2
    quantized.save_pretrained(tmp_path / "int8")
    again = lumina.load(tmp_path / "int8", dtype=torch.float32, device="cpu")
    assert torch.equal(draw(again), found)


@pytest.mark.skipif(torch.accelerator.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("bits", ["load_in_8bit", "load_in_4bit"])
def test_bitsandbytes_says_that_it_needs_a_gpu(next_dit, tmp_path, bits):
    if bits == "load_in_4bit":
        pytest.importorskip("bitsandbytes")  # its configuration asks for the version of that
    next_dit.save_pretrained(tmp_path)
    config = BitsAndBytesConfig(**{bits: True})
    with pytest.raises(RuntimeError, match="A GPU is needed for quantization"):
        NextDiT.from_pretrained(tmp_path, quantization_config=config)


@pytest.mark.gpu
@pytest.mark.parametrize(("bits", "tolerance"), [("load_in_8bit", 0.06), ("load_in_4bit", 0.4)])
def test_bitsandbytes_stays_near_the_exact_network(network, run, tmp_path, bits, tolerance):
    layers = pytest.importorskip("bitsandbytes").nn
    network.save_pretrained(tmp_path / "exact")
    quantized = type(network).from_pretrained(
        tmp_path / "exact",
        quantization_config=BitsAndBytesConfig(**{bits: True}),
        torch_dtype=torch.float16,
    )
    kinds = (layers.Linear8bitLt, layers.Linear4bit)
    assert isinstance(quantized.layers[0].attn1.to_q, kinds)
    assert not isinstance(quantized.patch_embedder.proj, kinds)
    found = run(quantized, torch.float16)
    assert relative_error(found.cpu(), run(network)) < tolerance
    quantized.save_pretrained(tmp_path / "less")
    again = type(network).from_pretrained(tmp_path / "less", torch_dtype=torch.float16)
    assert torch.equal(run(again, torch.float16), found)
