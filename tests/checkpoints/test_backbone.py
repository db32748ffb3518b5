import argparse
import os

import pytest
import torch
from safetensors.torch import save_file

import lumina
from lumina import FlagDiT, LuminaError, load_backbone


def assert_same_weights(model, expected):
    found = model.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())


def test_the_configuration_is_told_by_the_weights(every_model, plain):
    told = {"num_attention_heads": 6}
    if every_model.config.get("moe_routing") == "time":  # which looks like space at this width
        told["moe_routing"] = "time"
    again = load_backbone(plain(every_model), told)
    assert type(again) is type(every_model)
    assert not again.training
    assert_same_weights(again, every_model.state_dict())
    untold = {"sample_size", "multiple_of", "ffn_dim_multiplier", "_use_default_values"}
    if every_model.config["num_classes"] is not None:
        untold |= {"cross_attention_dim"}
    for setting in every_model.config.keys() - untold:
        assert again.config[setting] == every_model.config[setting], setting


def test_video_is_told_by_its_token(make_model, plain):
    assert load_backbone(plain(make_model(FlagDiT, has_frame_token=True))).config.has_frame_token


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model.", "transformer."])
def test_a_single_file_loads_with_any_prefix(tmp_path, prefix, make_model, plain):
    model = make_model()
    save_file({prefix + k: v for k, v in plain(model).items()}, tmp_path / "one.safetensors")
    assert_same_weights(load_backbone(tmp_path / "one.safetensors"), model.state_dict())


def test_a_dtype_is_that_of_every_weight(make_model, plain):
    model = load_backbone(plain(make_model()), dtype=torch.bfloat16)
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
@pytest.mark.parametrize("naming", ["ours", "original"])
def test_weights_of_8_bits_load_as_they_are(
    tmp_path, make_model, plain, as_original, dtype, naming
):
    model = make_model()
    weights = plain(model) if naming == "ours" else as_original(model)
    file = tmp_path / "one.safetensors"
    save_file({name: weight.to(dtype) for name, weight in weights.items()}, file)
    again = load_backbone(file)
    assert {weight.dtype for weight in again.parameters()} == {dtype}
    assert all(block.shares_query for block in again.layers)
    model.to(dtype=dtype)
    for name, weight in again.state_dict().items():
        assert torch.equal(weight.view(torch.uint8), model.state_dict()[name].view(torch.uint8))


def test_models_of_classes_are_taken_for_those_of_256_pixels(make_model, plain):
    for kind, settings in ((lumina.NextDiT, {}), (FlagDiT, {"has_line_token": False})):
        weights = plain(make_model(kind, num_classes=5, **settings))
        heads = {"num_attention_heads": 6}
        assert load_backbone(weights, heads).config.sample_size == 32
        assert load_backbone(weights, heads | {"sample_size": 8}).config.sample_size == 8


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_a_folder_of_the_original_release_loads_its_averaged_weights(
    tmp_path, suffix, make_model, as_original
):
    last, averaged = make_model(), make_model()
    with torch.no_grad():
        averaged.pad_token.add_(1)
    for name, model in (("consolidated", last), ("consolidated_ema", averaged)):
        weights = as_original(model)
        path = tmp_path / f"{name}.00-of-01.{suffix}"
        (save_file if suffix == "safetensors" else torch.save)(weights, path)
    torch.save(argparse.Namespace(model="NextDiT_2B_GQA_patch2"), tmp_path / "model_args.pth")
    assert_same_weights(load_backbone(tmp_path), averaged.state_dict())


def test_a_checkpoint_of_sound_is_found_inside_its_training_state(tmp_path, make_model, plain):
    model = make_model(FlagDiT, patch_size=1, has_line_token=False)
    state = {f"model.diffusion_model.{name}": weight for name, weight in plain(model).items()}
    state["first_stage_model.conv.weight"] = torch.zeros(1)
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "last.ckpt")
    assert_same_weights(load_backbone(tmp_path / "last.ckpt"), model.state_dict())


def test_folders_of_diffusers_load_with_or_without_the_pipeline(tiny_folder):
    expected = lumina.load(tiny_folder, device="cpu", dtype="float32").transformer.state_dict()
    for folder in (tiny_folder, tiny_folder / "transformer"):
        assert_same_weights(load_backbone(folder), expected)


class Hostile:
    """Runs a command when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_pickle_that_would_run_code_is_refused_and_runs_nothing(tmp_path):
    torch.save({"x_embedder.weight": Hostile(tmp_path / "harm")}, tmp_path / "hostile.pth")
    with pytest.raises(LuminaError, match=r"holds posix\.mkdir, .* nothing of it was run"):
        load_backbone(tmp_path / "hostile.pth")
    assert not (tmp_path / "harm").exists()


class Callback:
    """What a training state may hold beside weights."""


def test_of_a_training_state_the_class_that_is_refused_is_named(tmp_path, make_model, plain):
    state = {"state_dict": plain(make_model()), "callbacks": {Callback: {"steps": 1}}}
    torch.save(state, tmp_path / "last.ckpt")
    with pytest.raises(LuminaError, match=r"holds \S*Callback, which is no tensor"):
        load_backbone(tmp_path / "last.ckpt")


def test_a_pickle_that_was_cut_off_is_told_from_a_hostile_one(tmp_path, make_model, plain):
    path = tmp_path / "one.pth"
    torch.save(plain(make_model()), path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(LuminaError, match="is cut off"):
        load_backbone(path)


def cut(path):
    path.write_bytes(path.read_bytes()[:-8])


def point(path):
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (cut, "is cut off"),
        (point, "a pointer of Git LFS"),
        (lambda path: path.write_bytes(b""), "is damaged"),
        (lambda path: path.unlink(), "does not exist"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_with_what_to_do(
    tmp_path, damage, told, make_model, plain
):
    path = tmp_path / "one.safetensors"
    save_file(plain(make_model()), path)
    damage(path)
    with pytest.raises(LuminaError, match=told) as caught:
        load_backbone(path)
    assert caught.value.hint


def test_a_missing_weight_is_named(make_model, plain):
    weights = plain(make_model())
    del weights["layers.1.norm2.weight"]
    with pytest.raises(LuminaError, match=r"lacks layers\.1\.norm2\.weight"):
        load_backbone(weights)


@pytest.mark.parametrize(
    ("name", "looks"),
    [
        ("double_blocks.0.img_attn.qkv.weight", "looks like Flux"),
        ("model.diffusion_model.double_blocks.0.img_attn.qkv.weight", "looks like Flux"),
        ("context_refiner.0.attention.qkv.weight", "looks like Lumina-Image 2.0"),
        ("model.layers.0.self_attn.q_proj.weight", "looks like a language model"),
        ("transformer.layers.0.attn1.to_q.lora_A.weight", "looks like a LoRA"),
        ("something.weight", "lumina reads Flag-DiT and Next-DiT"),
    ],
)
def test_weights_of_another_family_are_told_apart(name, looks):
    with pytest.raises(LuminaError, match="no weight of this family") as caught:
        load_backbone({name: torch.zeros(1)})
    assert looks in caught.value.hint


def test_a_model_of_another_class_is_named(tmp_path):
    (tmp_path / "config.json").write_text('{"_class_name": "FluxTransformer2DModel"}')
    with pytest.raises(LuminaError, match="holds a FluxTransformer2DModel, no network"):
        load_backbone(tmp_path)


def test_heads_that_do_not_fit_are_refused(make_model, plain):
    with pytest.raises(LuminaError, match="does not divide into 32 heads"):
        load_backbone(plain(make_model(num_classes=5)))


def test_weights_of_senseless_shapes_are_refused(make_model, plain):
    weights = plain(make_model()) | {"patch_embedder.proj.weight": torch.zeros(3)}
    with pytest.raises(LuminaError, match="shapes of no network of this family"):
        load_backbone(weights)


def test_a_configuration_that_does_not_fit_is_refused(make_model, plain):
    with pytest.raises(LuminaError, match=r"caption_embedder.* has the shape \[32\], not \[8\]"):
        load_backbone(plain(make_model()), {"cross_attention_dim": 8})


def test_files_of_one_model_may_be_several_or_of_a_variant(tmp_path, make_model):
    model = make_model()
    for variant, size in (("fp16", "50KB"), (None, "50KB"), ("fp16", "1GB")):
        folder = tmp_path / f"{variant} {size}"
        model.save_pretrained(folder, variant=variant, max_shard_size=size)
        assert_same_weights(load_backbone(folder), model.state_dict())
    next(folder.parent.glob("None*/*00002-of*")).unlink()
    with pytest.raises(LuminaError, match="00002-of.* is missing"):
        load_backbone(tmp_path / "None 50KB")


def test_queries_that_differ_stay_different(tmp_path, make_model):
    model = make_model()
    model.separate_queries()
    with torch.no_grad():
        model.layers[1].attn2.to_q.weight.add_(1)
    model.save_pretrained(tmp_path)
    again = load_backbone(tmp_path)
    assert_same_weights(again, model.state_dict())
    assert [block.shares_query for block in again.layers] == [True, False]


def test_the_transformer_of_a_recorded_training_state_of_sound_is_found(tmp_path, read_recorded):
    config, weights, _ = read_recorded("audio_cfm")
    torch.save({"state_dict": weights, "epoch": 3}, tmp_path / "last.ckpt")
    model = load_backbone(tmp_path / "last.ckpt")
    given = config["unet_config"]["params"]
    assert model.config.num_attention_heads == given["num_heads"]
    assert model.config.cross_attention_dim == given["context_dim"]
    name = "model.diffusion_model.blocks.0.attention.wq.weight"
    assert torch.equal(model.layers[0].attn1.to_q.weight, weights[name])
