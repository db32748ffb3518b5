import argparse
import os

import pytest
import torch
from safetensors.torch import save_file

import lumina
from lumina import FlagDiT, LuminaError, NextDiT, load_backbone
from lumina.checkpoints.keys import COMMON, NORMS_AROUND, TEXT

TINY = {
    "sample_size": 8,
    "hidden_size": 48,
    "num_layers": 2,
    "num_attention_heads": 6,
    "num_kv_heads": 2,
    "multiple_of": 16,
    "cross_attention_dim": 32,
}
SETTINGS = {
    "Next-DiT": (NextDiT, {}),
    "without norms of queries": (NextDiT, {"qk_norm": False}),
    "without a second half": (NextDiT, {"learn_sigma": False}),
    "of classes": (NextDiT, {"num_classes": 5}),
    "experts by space": (NextDiT, {"num_classes": 5, "moe_routing": "space", "num_experts": 3}),
    "experts by both": (NextDiT, {"num_classes": 5, "moe_routing": "both", "num_experts": 3}),
    "Flag-DiT": (FlagDiT, {}),
    "Flag-DiT of video": (FlagDiT, {"has_frame_token": True}),
    "Flag-DiT of sound": (FlagDiT, {"patch_size": 1, "has_line_token": False}),
    "Flag-DiT of classes": (FlagDiT, {"num_classes": 5, "has_line_token": False}),
}


def make_model(kind=NextDiT, **settings):
    torch.manual_seed(0)
    model = kind(**TINY | settings)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_()
    return model


def plain(model):
    """Weights, none of which share memory."""
    return {name: weight.clone() for name, weight in model.state_dict().items()}


def rename(weights):
    """Weights of a Next-DiT of text under the names of the original code."""
    rows = {ours: theirs for theirs, ours in COMMON + TEXT + NORMS_AROUND}
    back = {}
    for name, weight in weights.items():
        numbers = [part for part in name.split(".") if part.isdigit()]
        for ours, theirs in rows.items():
            pattern, target = ours, theirs
            for number in numbers + ["1", "2", "3"]:
                if "#" in pattern and name.startswith(
                    pattern.replace("#", number, 1).split("#")[0]
                ):
                    pattern = pattern.replace("#", number, 1)
                    target = target.replace("#", number, 1)
            if "#" not in pattern and name.startswith(pattern):
                back[target + name.removeprefix(pattern)] = weight
                break
    return back


def assert_same_weights(model, expected):
    found = model.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())


@pytest.mark.parametrize("name", SETTINGS)
def test_the_configuration_is_told_by_the_weights(name):
    kind, settings = SETTINGS[name]
    model = make_model(kind, **settings)
    again = load_backbone(plain(model), {"num_attention_heads": 6})
    assert type(again) is kind
    assert not again.training
    assert_same_weights(again, model.state_dict())
    untold = {"sample_size", "multiple_of", "_use_default_values"}
    if "num_classes" in settings:
        untold |= {"cross_attention_dim"}
    for setting in model.config.keys() - untold:
        assert again.config[setting] == model.config[setting], setting


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model.", "transformer."])
def test_a_single_file_loads_with_any_prefix(tmp_path, prefix):
    model = make_model()
    save_file({prefix + k: v for k, v in plain(model).items()}, tmp_path / "one.safetensors")
    assert_same_weights(load_backbone(tmp_path / "one.safetensors"), model.state_dict())


def test_a_dtype_is_that_of_every_weight(tmp_path):
    model = load_backbone(plain(make_model()), dtype=torch.bfloat16)
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_a_folder_of_the_original_release_loads_its_averaged_weights(tmp_path, suffix):
    last, averaged = make_model(), make_model()
    with torch.no_grad():
        averaged.pad_token.add_(1)
    for name, model in (("consolidated", last), ("consolidated_ema", averaged)):
        weights = rename(plain(model))
        path = tmp_path / f"{name}.00-of-01.{suffix}"
        (save_file if suffix == "safetensors" else torch.save)(weights, path)
    torch.save(argparse.Namespace(model="NextDiT_2B_GQA_patch2"), tmp_path / "model_args.pth")
    assert_same_weights(load_backbone(tmp_path), averaged.state_dict())


def test_a_checkpoint_of_sound_is_found_inside_its_training_state(tmp_path):
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
    with pytest.raises(LuminaError, match="nothing of it was run"):
        load_backbone(tmp_path / "hostile.pth")
    assert not (tmp_path / "harm").exists()


def cut(path):
    path.write_bytes(path.read_bytes()[:-8])


def point(path):
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (cut, "is damaged"),
        (point, "a pointer of Git LFS"),
        (lambda path: path.write_bytes(b""), "is damaged"),
        (lambda path: path.unlink(), "does not exist"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_with_what_to_do(tmp_path, damage, told):
    path = tmp_path / "one.safetensors"
    save_file(plain(make_model()), path)
    damage(path)
    with pytest.raises(LuminaError, match=told) as caught:
        load_backbone(path)
    assert caught.value.hint


def test_a_missing_weight_is_named():
    weights = plain(make_model())
    del weights["layers.1.norm2.weight"]
    with pytest.raises(LuminaError, match=r"lacks layers\.1\.norm2\.weight"):
        load_backbone(weights)


def test_weights_of_another_family_are_told_apart():
    with pytest.raises(LuminaError, match="no weight of this family") as caught:
        load_backbone({"double_blocks.0.img_attn.qkv.weight": torch.zeros(1)})
    assert "it looks like Flux" in caught.value.hint


def test_a_configuration_that_does_not_fit_is_refused():
    with pytest.raises(LuminaError, match="size mismatch"):
        load_backbone(plain(make_model()), {"cross_attention_dim": 8})
