import argparse
import json
import shutil
import weakref

import pytest
import torch
from diffusers import LuminaNextDiT2DModel
from safetensors.torch import load_file, save_file

from lumina import FlagDiT, LuminaError, load_backbone
from lumina.checkpoints import weights
from lumina.checkpoints.convert import convert, read_bytes
from lumina.checkpoints.weights import Weight
from lumina.checkpoints.writing import write_safetensors
from lumina.cli import main

CONSOLIDATED = "consolidated.00-of-01.safetensors"


def save_original(folder, originals, **arguments):
    folder.mkdir()
    save_file(originals, folder / CONSOLIDATED)
    torch.save(argparse.Namespace(**arguments), folder / "model_args.pth")


def go_around(folder):
    """From an original checkpoint to all formats and back; the last one is returned."""
    convert(folder / "first", folder / "diffusers", max_shard="40KB")
    convert(folder / "diffusers", folder / "single.safetensors")
    return convert(folder / "single.safetensors", folder / "last", to="original")


def test_all_formats_hold_the_same_bits(tmp_path, every_model, as_original, assert_equal):
    config = every_model.config
    save_original(
        tmp_path / "first",
        as_original(every_model),
        n_heads=config.num_attention_heads,
        moe=config.get("moe_routing"),
        patch_size=config.patch_size,
    )
    last = go_around(tmp_path)
    assert len(list((tmp_path / "diffusers").glob("*.safetensors"))) > 1
    assert_equal(load_file(last / CONSOLIDATED), load_file(tmp_path / "first" / CONSOLIDATED))
    for name in ("diffusers", "single.safetensors", "last"):
        again = load_backbone(tmp_path / name)
        assert type(again) is type(every_model)
        assert_equal(again.state_dict(), every_model.state_dict())
        assert again.config.num_attention_heads == config.num_attention_heads
        assert again.config.get("moe_routing") == config.get("moe_routing")


def test_recorded_networks_come_back_bit_by_bit(tmp_path, recorded, assert_equal):
    config, originals = recorded
    save_original(tmp_path / "first", originals, **config)
    assert_equal(load_file(go_around(tmp_path) / CONSOLIDATED), originals)


def test_every_argument_survives_a_way_through_all_formats(tmp_path, make_model):
    model = make_model(num_classes=5, norm_eps=1e-4, sample_size=12, ffn_dim_multiplier=0.4)
    model.save_pretrained(tmp_path / "first")
    again = load_backbone(go_around(tmp_path))
    # The inner width is told by the weights, and so are channels of a text that is not there.
    untold = {"multiple_of", "ffn_dim_multiplier", "cross_attention_dim"}
    told = {name for name in model.config if not name.startswith("_")} - untold
    assert {name: again.config[name] for name in told} == {
        name: model.config[name] for name in told
    }


@pytest.mark.parametrize("limit", ["40KB", None])
@torch.no_grad()
def test_diffusers_computes_the_same_with_a_converted_folder(
    tmp_path, make_model, as_original, limit
):
    model = make_model()
    save_original(tmp_path / "first", as_original(model), image_size=64)
    convert(tmp_path / "first", tmp_path / "folder", max_shard=limit)
    theirs, info = LuminaNextDiT2DModel.from_pretrained(
        tmp_path / "folder", output_loading_info=True
    )
    assert not any(info.values())
    inputs = {
        "hidden_states": torch.randn(1, 4, 8, 8),
        "timestep": torch.tensor([0.3]),
        "encoder_hidden_states": torch.randn(1, 5, 32),
        "encoder_mask": torch.ones(1, 5),
    }
    from diffusers.models.embeddings import get_2d_rotary_pos_embed_lumina

    table = get_2d_rotary_pos_embed_lumina(8, 384, 384)
    expected = theirs(**inputs, image_rotary_emb=table, cross_attention_kwargs={}).sample
    torch.testing.assert_close(model(**inputs).sample, expected, rtol=1e-4, atol=1e-4)


def test_files_are_no_larger_than_asked_for(tmp_path, make_model):
    make_model().save_pretrained(tmp_path / "first")
    folder = convert(tmp_path / "first", tmp_path / "folder", max_shard="60KB")
    files = list(folder.glob("*.safetensors"))
    assert len(files) > 3
    assert max(file.stat().st_size for file in files) < 60_000 + 5_000  # and a header
    index = json.loads((folder / "diffusion_pytorch_model.safetensors.index.json").read_text())
    assert index["weight_map"].keys() == make_model().state_dict().keys()


def test_a_type_of_numbers_is_that_of_every_weight(tmp_path, make_model):
    model = make_model()
    model.save_pretrained(tmp_path / "first")
    convert(tmp_path / "first", tmp_path / "half.safetensors", dtype="bf16")
    for name, weight in load_file(tmp_path / "half.safetensors").items():
        assert torch.equal(weight, model.state_dict()[name].bfloat16())


def test_one_weight_is_in_memory_at_a_time(tmp_path):
    alive = weakref.WeakSet()

    class Tracked(torch.Tensor):
        pass

    def read():
        assert not alive
        tensor = torch.zeros(3).as_subclass(Tracked)
        alive.add(tensor)
        return tensor

    write_safetensors(
        tmp_path / "file.safetensors",
        {name: Weight((3,), torch.float32, read) for name in "abc"},
        {},
    )
    assert load_file(tmp_path / "file.safetensors").keys() == set("abc")


@pytest.mark.parametrize("name", ["single.safetensors", "folder"])
def test_nothing_is_replaced_unless_that_is_asked_for(tmp_path, make_model, name):
    make_model().save_pretrained(tmp_path / "first")
    make_model(num_layers=1).save_pretrained(tmp_path / "second")
    convert(tmp_path / "first", tmp_path / name)
    with pytest.raises(LuminaError, match="is there already"):
        convert(tmp_path / "second", tmp_path / name)
    assert load_backbone(tmp_path / name).config.num_layers == 2
    convert(tmp_path / "second", tmp_path / name, force=True)
    assert load_backbone(tmp_path / name).config.num_layers == 1
    convert(tmp_path / name, tmp_path / name, force=True, dtype="bf16")
    assert load_backbone(tmp_path / name).dtype == torch.bfloat16


def test_a_folder_of_other_things_is_never_replaced(tmp_path, make_model):
    make_model().save_pretrained(tmp_path / "first")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").touch()
    with pytest.raises(LuminaError, match=r"holds more than a network: thesis\.txt"):
        convert(tmp_path / "first", tmp_path / "home", force=True)
    with pytest.raises(LuminaError, match="is a folder, and single is a file"):
        convert(tmp_path / "first", tmp_path / "home", to="single", force=True)
    assert (tmp_path / "home" / "thesis.txt").exists()


@pytest.mark.parametrize("to", ["single", "diffusers", "original"])
def test_a_file_that_breaks_off_leaves_nothing_behind(tmp_path, make_model, to, monkeypatch):
    make_model().save_pretrained(tmp_path / "first")
    read = weights._read_safetensors

    def fail(file, name):
        if name.startswith("norm_out"):
            raise OSError("the disk is gone")
        return read(file, name)

    monkeypatch.setattr(weights, "_read_safetensors", fail)
    with pytest.raises(OSError, match="the disk is gone"):
        convert(tmp_path / "first", tmp_path / "target", to=to)
    assert [path.name for path in tmp_path.iterdir()] == ["first"]


@pytest.mark.parametrize(
    ("settings", "told"),
    [({"has_frame_token": True}, "frame_token"), ({"rope_theta": 100.0}, "turns positions")],
)
def test_what_the_original_code_cannot_be_is_refused(tmp_path, make_model, settings, told):
    make_model(FlagDiT, **settings).save_pretrained(tmp_path / "first")
    with pytest.raises(LuminaError, match=told):
        convert(tmp_path / "first", tmp_path / "last", to="original")
    convert(tmp_path / "first", tmp_path / "single.safetensors")
    again = load_backbone(tmp_path / "single.safetensors")
    assert {name: again.config[name] for name in settings} == settings


def test_queries_that_differ_have_no_place_in_the_original(tmp_path, make_model):
    model = make_model()
    model.separate_queries()
    with torch.no_grad():
        model.layers[1].attn2.to_q.weight.add_(1)
    model.save_pretrained(tmp_path / "first")
    with pytest.raises(LuminaError, match=r"no place for layers\.1\.attn2\.to_q\.weight"):
        convert(tmp_path / "first", tmp_path / "last", to="original")


def test_the_transformer_of_a_pipeline_is_converted(tmp_path, tiny_folder, assert_equal):
    file = convert(tiny_folder, tmp_path / "single.safetensors")
    expected = load_backbone(tiny_folder).state_dict()
    assert_equal(load_backbone(file).state_dict(), expected)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"to": "gguf"}, "unknown format 'gguf'"),
        ({"dtype": "int8"}, "unknown dtype 'int8'"),
        ({"max_shard": "many"}, "'many' is no size"),
        ({"max_shard": "1GB", "to": "single"}, "is one file"),
    ],
    ids=str,
)
def test_bad_arguments_are_refused_before_anything_is_read(tmp_path, arguments, told):
    with pytest.raises(LuminaError, match=told):
        convert("nothing", tmp_path / "target", **arguments)


def test_sizes_are_read_with_and_without_units():
    assert read_bytes("4GB") == 4 * 10**9
    assert read_bytes("1.5 mb") == 1_500_000
    assert read_bytes("7") == 7


def test_the_command_converts_and_tells_where(tmp_path, make_model, capsys):
    make_model().save_pretrained(tmp_path / "first")
    target = tmp_path / "single.safetensors"
    command = ["convert", str(tmp_path / "first"), str(target)]
    assert main([*command, "--dtype", "bf16"]) == 0
    assert capsys.readouterr().out == f"{target}\n"
    assert load_backbone(target).dtype == torch.bfloat16
    assert main(command) == 1
    assert "--force" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "first")
    assert main([*command, "--force"]) == 1
    assert target.exists()


@pytest.mark.parametrize("to", ["single", "diffusers", "original"])
def test_weights_of_8_bits_are_converted_as_they_are(tmp_path, make_model, plain, to):
    weights = {name: w.to(torch.float8_e4m3fn) for name, w in plain(make_model()).items()}
    save_file(weights, tmp_path / "file.safetensors")
    again = load_backbone(convert(tmp_path / "file.safetensors", tmp_path / "target", to=to))
    for name, weight in again.state_dict().items():
        assert torch.equal(weight.view(torch.uint8), weights[name].view(torch.uint8))


def test_weights_that_are_left_out_are_named(tmp_path, make_model, plain, caplog):
    prefix = "model.diffusion_model."
    weights = {f"{prefix}{name}": weight for name, weight in plain(make_model()).items()}
    save_file(weights, tmp_path / "alone.safetensors")
    convert(tmp_path / "alone.safetensors", tmp_path / "first")
    assert "left out" not in caplog.text
    weights["first_stage_model.conv.weight"] = torch.zeros(1)
    save_file(weights, tmp_path / "file.safetensors")
    convert(tmp_path / "file.safetensors", tmp_path / "second")
    assert "left out: first_stage_model.conv.weight" in caplog.text
