import json

import diffusers
import pytest
import torch
import transformers
from diffusers.quantizers import PipelineQuantizationConfig
from safetensors.torch import load_file, save_file

from lumina import LuminaError, LuminaPipeline, load_backbone
from lumina.checkpoints import weights as weights_module
from lumina.checkpoints.convert import convert
from lumina.checkpoints.description import describe
from lumina.cli import main


def count(model):
    return sum(weight.numel() for weight in model.parameters())


def test_every_network_is_described_by_what_it_is(tmp_path, every_model):
    every_model.save_pretrained(tmp_path / "folder")
    for to in ("single", "original"):
        convert(tmp_path / "folder", tmp_path / to, to=to)
    for name, format in (("folder", "diffusers"), ("single", "single"), ("original", "original")):
        facts = describe(tmp_path / name)
        assert facts["format"] == format
        assert facts["class"] == type(every_model).__name__
        assert facts["parameters"] == count(every_model)
        assert facts["dtype"] == "float32"
        assert facts["missing"] == facts["unexpected"] == []
        assert facts["config"]["num_layers"] == 2


@pytest.mark.parametrize(
    ("settings", "family"),
    [
        ({}, "Next-DiT of text with 32 channels"),
        ({"num_classes": 5}, "Next-DiT of 5 classes"),
        (
            {"num_classes": 5, "moe_routing": "both"},
            "Next-DiT of 5 classes, experts chosen by time and by space",
        ),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_a_family_is_told_in_words(tmp_path, make_model, settings, family):
    make_model(**settings).save_pretrained(tmp_path)
    assert describe(tmp_path)["family"] == family


def test_no_weight_is_read(tmp_path, make_model, monkeypatch):
    make_model().save_pretrained(tmp_path / "folder", max_shard_size="50KB")
    convert(tmp_path / "folder", tmp_path / "original", to="original")

    def refuse(*_):
        raise AssertionError("a weight was read")

    monkeypatch.setattr(weights_module, "safe_open", refuse)
    assert describe(tmp_path / "folder")["parameters"] == count(make_model())
    assert describe(tmp_path / "original")["parameters"] == count(make_model())


def test_what_is_missing_and_what_is_too_much_is_listed(tmp_path, make_model, plain):
    make_model().save_pretrained(tmp_path)
    file = tmp_path / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    del tensors["layers.1.norm2.weight"]
    tensors["layers.9.gate"] = torch.zeros(6)
    tensors["norm_out.linear_2.bias"] = torch.zeros(3)
    save_file(tensors, file)
    facts = describe(tmp_path)
    assert facts["missing"] == ["layers.1.norm2.weight"]
    assert facts["unexpected"] == ["layers.9.gate"]
    assert facts["of another shape"] == ["norm_out.linear_2.bias: [3], not [32]"]


def test_what_nothing_tells_is_told_to_be_assumed(make_model, plain, tmp_path):
    model = make_model(hidden_size=128, num_classes=5, num_attention_heads=16, num_kv_heads=16)
    save_file(plain(model), tmp_path / "single.safetensors")
    assert describe(tmp_path / "single.safetensors")["assumed"] == ["num_attention_heads"]
    assert "assumed" not in describe(tmp_path / "single.safetensors", {"num_attention_heads": 16})


def test_weights_beside_those_of_the_network_are_listed(tmp_path, make_model, plain):
    weights = {
        f"model.diffusion_model.{name}": weight for name, weight in plain(make_model()).items()
    }
    save_file(weights | {"first_stage_model.conv.weight": torch.zeros(1)}, tmp_path / "file")
    facts = describe(tmp_path / "file")
    assert facts["other weights"] == ["first_stage_model.conv.weight"]
    assert facts["missing"] == facts["unexpected"] == []


def test_every_part_of_a_pipeline_is_described(tiny_folder):
    facts = describe(tiny_folder)
    pipeline = LuminaPipeline.from_pretrained(tiny_folder)
    assert facts["class"] == "LuminaPipeline"
    assert facts["parts"].keys() == pipeline.components.keys()
    for name in ("transformer", "vae", "text_encoder"):
        part = facts["parts"][name]
        assert part["parameters"] == count(getattr(pipeline, name))
        assert part["missing"] == part["unexpected"] == []
        assert describe(tiny_folder / name) == part
    assert facts["parts"]["scheduler"] == {"class": "FlowMatchEulerDiscreteScheduler"}
    assert facts["parameters"] == sum(p.get("parameters", 0) for p in facts["parts"].values())


def test_a_part_without_its_folder_is_missing(own_folder):
    (own_folder / "vae").rename(own_folder / "away")
    assert describe(own_folder)["parts"]["vae"]["missing"] == ["vae"]


def test_what_is_of_another_family_is_refused_with_what_it_looks_like(tmp_path):
    save_file({"double_blocks.0.img_attn.qkv.weight": torch.zeros(1)}, tmp_path / "flux")
    with pytest.raises(LuminaError) as caught:
        describe(tmp_path / "flux")
    assert "it looks like Flux" in caught.value.hint


def test_the_command_prints_json_or_lines(tmp_path, make_model, capsys):
    make_model().save_pretrained(tmp_path)
    assert main(["inspect", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == describe(tmp_path)
    assert main(["inspect", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "class: NextDiT" in lines
    assert f"parameters: {count(load_backbone(tmp_path)):,}" in lines
    assert "  hidden_size: 48" in lines


def test_a_pipeline_of_a_variant_is_described_as_one_of_none(tiny_folder, tmp_path):
    LuminaPipeline.from_pretrained(tiny_folder).save_pretrained(tmp_path, variant="fp16")
    facts = describe(tmp_path)
    assert facts["parameters"] == describe(tiny_folder)["parameters"]
    assert facts["parts"]["vae"]["files"] == ["diffusion_pytorch_model.fp16.safetensors"]


def test_quantized_models_are_described_as_far_as_their_files_tell(tiny_folder, tmp_path):
    quantization = pytest.importorskip("torchao.quantization")
    kind = quantization.Int8WeightOnlyConfig
    mapping = {
        "transformer": diffusers.TorchAoConfig(kind()),
        "text_encoder": transformers.TorchAoConfig(kind()),
    }
    pipeline = LuminaPipeline.from_pretrained(
        tiny_folder, quantization_config=PipelineQuantizationConfig(quant_mapping=mapping)
    )
    pipeline.save_pretrained(tmp_path)
    facts, plain = describe(tmp_path), describe(tiny_folder)
    assert facts["parameters"] == plain["parameters"]
    for name in mapping:
        part = facts["parts"][name]
        assert part["quantized by"] == "torchao"
        assert part["parameters"] == plain["parts"][name]["parameters"]
        assert describe(tmp_path / name) == part
    assert "i8" in facts["parts"]["transformer"]["dtype"]
    config, expected = (f["parts"]["transformer"]["config"] for f in (facts, plain))
    assert config == expected


def test_a_routing_that_shapes_leave_open_is_told_to_be_assumed(make_model, plain, tmp_path):
    model = make_model(num_classes=5, moe_routing="time", num_experts=3)
    save_file(plain(model), tmp_path / "single.safetensors")
    config = {"num_attention_heads": 6}
    facts = describe(tmp_path / "single.safetensors", config)
    assert facts["assumed"] == ["moe_routing"]
    facts = describe(tmp_path / "single.safetensors", config | {"moe_routing": "time"})
    assert "assumed" not in facts
    assert facts["family"].endswith("experts chosen by time")


def test_the_command_takes_what_weights_do_not_tell(tmp_path, make_model, plain, capsys):
    model = make_model(num_classes=5, moe_routing="time", num_experts=3)
    file = str(tmp_path / "single.safetensors")
    save_file(plain(model), file)
    assert main(["inspect", file]) == 1
    assert "--config num_attention_heads=N" in capsys.readouterr().err
    given = ["--config", "num_attention_heads=6", "--config", "moe_routing=time"]
    assert main(["inspect", file, "--json", *given]) == 0
    assert json.loads(capsys.readouterr().out)["config"]["num_attention_heads"] == 6
    assert main(["convert", file, str(tmp_path / "folder"), *given]) == 0
    config = load_backbone(tmp_path / "folder").config
    assert (config.num_attention_heads, config.moe_routing) == (6, "time")


@pytest.mark.parametrize(
    ("setting", "told", "code"),
    [("num_heads=6", "unknown setting 'num_heads'", 1), ("num_attention_heads", "no value", 2)],
)
def test_a_setting_that_no_network_has_is_refused(
    tmp_path, make_model, plain, capsys, setting, told, code
):
    save_file(plain(make_model()), tmp_path / "single.safetensors")
    assert main(["inspect", str(tmp_path / "single.safetensors"), "--config", setting]) == code
    assert told in capsys.readouterr().err


def test_a_pipeline_takes_no_settings(tiny_folder):
    with pytest.raises(LuminaError, match="num_layers cannot be changed"):
        describe(tiny_folder, {"num_layers": 3})
