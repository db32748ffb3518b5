import json
import shutil

import pytest
from safetensors.torch import load_file, save_file

from lumina.checkpoints.folder import (
    check_folder,
    count_parameters,
    fingerprint,
    read_shapes,
    variant_of,
    weight_files,
)
from lumina.errors import LuminaError

PARTS = ["transformer", "vae", "text_encoder"]


def edit(folder, change):
    """Save the weights of a model again after a change."""
    (file,) = weight_files(folder)
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


def refusal(folder):
    with pytest.raises(LuminaError) as caught:
        check_folder(folder)
    return str(caught.value)


def test_what_was_saved_is_accepted(tiny_folder):
    check_folder(tiny_folder)


def test_weights_in_several_files_are_accepted(own_folder):
    from lumina import NextDiT

    transformer = NextDiT.from_pretrained(own_folder / "transformer")
    weight_files(own_folder / "transformer")[0].unlink()
    transformer.save_pretrained(own_folder / "transformer", max_shard_size="20KB")
    assert len(weight_files(own_folder / "transformer")) > 1
    check_folder(own_folder)
    weight_files(own_folder / "transformer")[1].unlink()
    assert "00002-of" in refusal(own_folder)


def test_a_folder_without_an_index_is_no_checkpoint(tmp_path):
    assert "is no checkpoint" in refusal(tmp_path)


def test_a_checkpoint_of_another_pipeline_is_named(own_folder):
    index = own_folder / "model_index.json"
    index.write_text(json.dumps({"_class_name": "FluxPipeline"}))
    assert "holds a FluxPipeline" in refusal(own_folder)


def test_a_damaged_index_is_refused(own_folder):
    (own_folder / "model_index.json").write_text("{")
    assert "is damaged" in refusal(own_folder)


@pytest.mark.parametrize("part", PARTS)
def test_a_missing_weight_file_is_refused(own_folder, part):
    weight_files(own_folder / part)[0].unlink()
    assert f"{part} has no weights" in refusal(own_folder)


@pytest.mark.parametrize("part", PARTS)
def test_a_weight_file_that_was_cut_off_is_refused(own_folder, part):
    (file,) = weight_files(own_folder / part)
    file.write_bytes(file.read_bytes()[:-1])
    assert f"{file} is cut off" in refusal(own_folder)


@pytest.mark.parametrize("length", [0, 4, 100])
def test_a_weight_file_without_a_whole_header_is_refused(own_folder, length):
    (file,) = weight_files(own_folder / "vae")
    file.write_bytes(file.read_bytes()[:length])
    assert f"{file} is damaged" in refusal(own_folder)


@pytest.mark.parametrize("part", PARTS)
def test_missing_tensors_are_named(own_folder, part):
    name = max(read_shapes(own_folder / part))
    edit(own_folder / part, lambda tensors: tensors.pop(name))
    assert f"{part} lacks {name}" in refusal(own_folder)


@pytest.mark.parametrize("part", PARTS)
def test_a_tensor_of_another_shape_is_named(own_folder, part):
    name = max(read_shapes(own_folder / part))
    edit(
        own_folder / part,
        lambda tensors: tensors.update({name: tensors[name].flatten()[:3].clone()}),
    )
    assert f"{name} has the shape [3], not" in refusal(own_folder)


def test_tensors_that_the_model_does_not_have_are_named(own_folder):
    def add(tensors):
        tensors["layers.9.gate"] = tensors["layers.0.gate"].clone()

    edit(own_folder / "transformer", add)
    assert "layers.9.gate" in refusal(own_folder)


def test_the_file_of_a_whole_language_model_serves_as_its_encoder(own_folder):
    def wrap(tensors):
        for name in list(tensors):
            tensors[f"model.{name}"] = tensors.pop(name)
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()

    edit(own_folder / "text_encoder", wrap)
    check_folder(own_folder)


def test_a_fingerprint_changes_with_the_weights_and_with_nothing_else(own_folder, tiny_folder):
    assert fingerprint(own_folder) == fingerprint(tiny_folder)
    edit(own_folder / "vae", lambda tensors: tensors["decoder.conv_out.bias"].add_(1))
    assert fingerprint(own_folder) != fingerprint(tiny_folder)


def test_parameters_are_counted_without_reading_them(tiny_folder):
    from lumina import LuminaPipeline

    pipeline = LuminaPipeline.from_pretrained(tiny_folder)
    models = [pipeline.transformer, pipeline.vae, pipeline.text_encoder]
    assert count_parameters(tiny_folder) == sum(
        tensor.numel() for model in models for tensor in model.state_dict().values()
    )


def write_json(file, **settings):
    def damage(folder):
        path = folder / file
        path.write_text(json.dumps(json.loads(path.read_text()) | settings))

    return damage


def replace_text(file, text):
    return lambda folder: (folder / file).write_text(text)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (replace_text("tokenizer/tokenizer.json", '{"version"'), "tokenizer.json is damaged"),
        (lambda folder: shutil.rmtree(folder / "tokenizer"), "has no folder tokenizer"),
        (lambda folder: [f.unlink() for f in (folder / "tokenizer").iterdir()], "is empty"),
        (replace_text("scheduler/scheduler_config.json", "("), "scheduler_config.json is damaged"),
        (replace_text("text_encoder/config.json", "{}"), "describes no GemmaModel"),
        (write_json("transformer/config.json", num_attention_heads=5), "does not divide into 5"),
        (write_json("model_index.json", vae=["diffusers", "NoSuchVAE"]), "describes no NoSuchVAE"),
        (write_json("model_index.json", vae=None), "names no vae"),
        (replace_text("model_index.json", "[]"), "not an object"),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_every_kind_of_damage_is_one_line_and_a_hint(own_folder, damage, told):
    damage(own_folder)
    message, hint = refusal(own_folder).splitlines()
    assert told in message
    assert hint.startswith("hint: ")


@pytest.mark.parametrize("size", ["10GB", "20KB"])
def test_a_pipeline_of_a_variant_is_checked_and_loaded(tiny_folder, tmp_path, size):
    import lumina

    pipeline = lumina.load(tiny_folder, dtype="float32", device="cpu")
    pipeline.save_pretrained(tmp_path, variant="fp16", max_shard_size=size)
    check_folder(tmp_path)
    assert variant_of(tmp_path) == "fp16"
    assert variant_of(tiny_folder) is None
    assert count_parameters(tmp_path) == count_parameters(tiny_folder)
    again = lumina.load(tmp_path, dtype="float32", device="cpu")
    for part in PARTS:
        weights = getattr(pipeline, part).state_dict()
        for name, weight in getattr(again, part).state_dict().items():
            assert weight.equal(weights[name]), name


def test_several_variants_and_nothing_else_are_refused(own_folder):
    (file,) = weight_files(own_folder / "vae")
    for variant in ("fp16", "bf16"):
        shutil.copy(file, file.with_name(f"{file.stem}.{variant}.safetensors"))
    check_folder(own_folder)
    file.unlink()
    assert "bf16.safetensors, " in refusal(own_folder)
