"""Networks that are grown from another model, adapted, and stored as what makes them differ."""

import dataclasses
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

import lumina
from lumina import LuminaError
from lumina.checkpoints.convert import convert
from lumina.checkpoints.description import describe
from lumina.checkpoints.difference import DOWN, UP, cut_rank, difference_of
from lumina.checkpoints.folder import (
    DIFFERENCE,
    INDEX,
    PARTS_OF,
    count_parameters,
    fingerprint,
)
from lumina.training.exporting import Sizes, export
from lumina.training.flow import FlowObjective, choose_sizes, find_data
from lumina.training.recipes import FlowRecipe
from lumina.training.starting import make_network

WORLD = {"kind": "world", "world": "motion", "sizes": ["32x32x3"], "examples": 4}


@pytest.fixture(scope="module")
def base(tiny_folder, tmp_path_factory):
    return shutil.copytree(tiny_folder, tmp_path_factory.mktemp("models") / "base")


@pytest.fixture(scope="module")
def recipe(base, tmp_path_factory):
    made = FlowRecipe(
        out=str(tmp_path_factory.mktemp("difference")),
        modality="video",
        start_from=str(base),
        autoencoder=str(base),
        text_encoder=str(base),
        data=(WORLD,),
        batch_size=2,
        device="cpu",
        lora_rank=2,
        lora_scale=1.5,
        lora_whole=("patch_embedder.proj",),
        parts_of="base",
        save_dtype="float32",
    )
    made.check()
    return made


@pytest.fixture(scope="module")
def trained(recipe):
    objective = FlowObjective(recipe)
    generator = torch.Generator().manual_seed(0)
    for weight in objective.module.parameters():
        if weight.requires_grad:
            weight.data = 0.3 * torch.randn(weight.shape, generator=generator)
    return objective


@pytest.fixture
def folder(trained, base, tmp_path):
    shutil.copytree(base, tmp_path / "base")
    trained.export(tmp_path / "clips")
    return tmp_path / "clips"


def test_only_what_was_trained_is_written(trained, folder):
    names = set(difference_of(trained.module, scale=1.0))
    whole = {name for name in names if not name.endswith((UP, DOWN))}
    assert whole == {"patch_embedder.proj.weight", "patch_embedder.proj.bias"}
    assert {path.name for path in folder.iterdir()} == {
        "model_index.json",
        "scheduler",
        "transformer",
    }
    assert {path.name for path in (folder / "transformer").iterdir()} == {"config.json", DIFFERENCE}


def test_a_difference_gives_the_trained_network_back(trained, folder):
    pipeline = lumina.load(folder, dtype="float32")
    batch = trained.batch(0)
    read = trained.modality.enter(batch.data, batch.times, batch.hints)
    arguments = trained.conditions.arguments(batch.condition)
    with torch.no_grad():
        expected = trained.module.eval()(read, batch.times, return_dict=False, **arguments)[0]
        found = pipeline.transformer(read, batch.times, return_dict=False, **arguments)[0]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_what_it_differs_from_counts_too(folder):
    base, before = folder.parent / "base", fingerprint(folder)
    assert count_parameters(folder) > count_parameters(base)
    file = next((base / "transformer").glob("*.safetensors"))
    weights = load_file(file)
    weights["pad_token"] += 1
    save_file(weights, file)
    assert fingerprint(folder) != before


def test_its_pipeline_has_the_other_parts_of_the_base(folder):
    pipeline = lumina.load(folder, dtype="float32")
    pipeline.set_progress_bar_config(disable=True)
    source = torch.Generator().manual_seed(0)
    assert pipeline("a dog", num_inference_steps=1, generator=source).media[0].shape[0] == 3


def test_a_weight_of_another_shape_is_refused(folder):
    file = folder / "transformer" / DIFFERENCE
    weights = load_file(file)
    weights["patch_embedder.proj.weight"] = weights["patch_embedder.proj.weight"][:1]
    save_file(weights, file)
    with pytest.raises(LuminaError, match="changes patch_embedder.proj.weight, which"):
        lumina.load(folder)


def test_it_is_described_beside_what_it_differs_from(folder):
    facts = describe(folder)["parts"]
    assert facts["transformer"]["differs from"] == str(folder.parent / "base" / "transformer")
    assert facts["vae"]["path"] == str(folder.parent / "base" / "vae")
    assert describe(folder / "transformer") == facts["transformer"]


def test_it_is_not_converted_without_its_base(folder, tmp_path):
    with pytest.raises(LuminaError, match="has what differs from base, and no whole network"):
        convert(folder, tmp_path / "out", to="original")


def test_without_the_base_nothing_is_loaded(folder):
    shutil.rmtree(folder.parent / "base")
    with pytest.raises(LuminaError, match="parts of base, which is not there"):
        lumina.load(folder)


def test_another_base_is_refused(folder):
    config = folder.parent / "base" / "transformer" / "config.json"
    config.write_text(config.read_text().replace('"num_layers": 2', '"num_layers": 1'))
    with pytest.raises((LuminaError, ValueError, OSError)):
        lumina.load(folder)


@pytest.fixture
def points(base, tmp_path):
    """A model of points, with a network of its own and the text encoder of the base."""
    pytest.importorskip("trimesh")
    made = FlowRecipe(
        out=str(tmp_path / "run"),
        modality="points",
        text_encoder=str(base),
        parts_of="base",
        data=({"kind": "world", "world": "solids", "examples": 4},),
        width=24,
        depth=1,
        heads=3,
        kv_heads=3,
        multiple_of=8,
        batch_size=2,
        device="cpu",
    )
    made.check()
    shutil.copytree(base, tmp_path / "base")
    FlowObjective(made).export(tmp_path / "points")
    return tmp_path / "points"


@pytest.fixture
def further(recipe, folder):
    """A recipe that goes on from what was written, with adapters of a higher rank."""
    made = dataclasses.replace(recipe, start_from=str(folder), lora_rank=30, lora_scale=0.5)
    made.check()
    return made


def test_a_run_goes_on_from_a_difference(trained, further):
    """Even with a rank above the width of the narrowest layer."""
    went_on, before = FlowObjective(further), trained.module.eval()
    batch = trained.batch(0)
    read = trained.modality.enter(batch.data, batch.times, batch.hints)
    arguments = trained.conditions.arguments(batch.condition)
    with torch.no_grad():
        expected = before(read, batch.times, return_dict=False, **arguments)[0]
        found = went_on.module.eval()(read, batch.times, return_dict=False, **arguments)[0]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_it_goes_on_from_what_it_wrote_itself(further, folder):
    FlowObjective(further).export(folder.parent / "further")
    again = dataclasses.replace(further, start_from=str(folder.parent / "further"))
    FlowObjective(again).export(folder.parent / "again")
    weights = [
        dict(lumina.load_backbone(folder.parent / name).named_parameters())
        for name in ("clips", "further", "again")
    ]
    for name, weight in weights[0].items():
        torch.testing.assert_close(weights[1][name], weight, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(weights[2][name], weight, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"lora_rank": 1}, r"lora_rank at least as high|as \[\d+, 2\], and it is \[\d+, 1\] here"),
        ({"lora_whole": ()}, "changes patch_embedder.proj.*, which is not trained here"),
        ({"lora_layers": ("to_q",)}, "which is not trained here"),
    ],
)
def test_a_difference_that_would_be_lost_is_refused(further, changes, reason):
    with pytest.raises(LuminaError, match=reason):
        make_network(dataclasses.replace(further, **changes))


def test_a_start_that_is_not_there_yet_is_refused_only_where_it_is_read(further):
    """Such as that of a recipe whose first part has not run."""
    later = dataclasses.replace(further, start_from="runs/no_such/last")
    later.check()
    with pytest.raises(LuminaError, match="unknown model 'runs/no_such/last'"):
        make_network(later)


def test_the_network_of_a_difference_is_loaded_alone_and_trained_whole(further, folder):
    whole = dataclasses.replace(further, lora_rank=0, lora_whole=(), parts_of="")
    expected = lumina.load(folder, dtype="float32").transformer
    outline = make_network(whole, is_empty=True)
    for network in (lumina.load_backbone(folder), make_network(whole)):
        for name, weight in network.named_parameters():
            assert torch.equal(weight, expected.get_parameter(name))
            assert outline.get_parameter(name).shape == weight.shape


def test_a_difference_may_be_told_from_another_one(further, folder):
    from_clips = {name: str(folder) for name in ("start_from", "autoencoder", "text_encoder")}
    third = dataclasses.replace(further, **from_clips, parts_of="clips")
    third.check()
    FlowObjective(third).export(folder.parent / "third")
    ours = lumina.load_backbone(folder.parent / "third")
    for name, weight in lumina.load_backbone(folder).named_parameters():
        torch.testing.assert_close(ours.get_parameter(name), weight)


def test_what_a_difference_cannot_do_is_refused(further, folder):
    with pytest.raises(LuminaError, match="which has its settings"):
        lumina.load_backbone(folder, {"num_attention_heads": 3})
    with pytest.raises(LuminaError, match="not quantized"):
        make_network(dataclasses.replace(further, parts_of="", quantize="int8", lora_whole=()))


def test_a_network_of_its_own_shares_the_parts_that_it_was_trained_with(points):
    assert {path.name for path in points.iterdir()} == {
        "model_index.json",
        "scheduler",
        "transformer",
    }
    pipeline = lumina.load(points, dtype="float32")
    pipeline.set_progress_bar_config(disable=True)
    assert pipeline("a dog", points=256, num_inference_steps=1).media[0].shape == (256, 3)


def test_shared_parts_may_be_shared_in_turn(points):
    third = points.parent / "third"
    shutil.copytree(points, third)
    index = json.loads((third / INDEX).read_text())
    (third / INDEX).write_text(json.dumps(index | {PARTS_OF: "points"}))
    ours, theirs = (lumina.load(one, dtype="float32").text_encoder for one in (third, points))
    for weight, same in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(weight, same)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"text_encoder": "lumina-mini"}, "text_encoder is 'lumina-mini', and adapters"),
        ({"start_from": "lumina-mini"}, "start_from is 'lumina-mini'"),
        ({"lora_rank": 0, "lora_whole": (), "parts_of": "other"}, "no part is one of other"),
    ],
)
def test_parts_that_would_be_lost_are_refused(recipe, changes, reason):
    with pytest.raises(LuminaError, match=reason):
        dataclasses.replace(recipe, **changes).check()


@pytest.mark.parametrize("end", ["no_such", "attn2.to_k"])
def test_layers_that_would_not_be_trained_whole_are_refused(recipe, end):
    """Such as one that has an adapter."""
    with pytest.raises(LuminaError, match=f"ends in {end}, of lora_whole"):
        make_network(dataclasses.replace(recipe, lora_whole=("patch_embedder.proj", end)))


def test_adapters_alone_are_refused_for_a_network_that_grew(recipe):
    with pytest.raises(LuminaError, match="adapters alone do not say how"):
        make_network(dataclasses.replace(recipe, parts_of="", lora_whole=()))


def test_products_are_cut_to_the_nearest_of_a_rank():
    generator = torch.Generator().manual_seed(0)
    up, down = torch.randn(12, 5, generator=generator), torch.randn(5, 7, generator=generator)
    whole = up @ down
    singular = torch.linalg.svdvals(whole)
    for rank in (2, 4, 9):
        cut = cut_rank({f"a{UP}": up, f"a{DOWN}": down, "b": up}, rank)
        assert cut[f"a{UP}"].shape == (12, min(rank, 5))
        error = torch.linalg.norm(whole - cut[f"a{UP}"] @ cut[f"a{DOWN}"])
        assert error == pytest.approx(singular[rank:].norm().item(), abs=1e-4)
        assert torch.equal(cut["b"], up)


def test_a_cut_model_is_written_smaller(recipe, trained, base, tmp_path):
    shutil.copytree(base, tmp_path / "base")
    narrow = dataclasses.replace(recipe, save_rank=1)
    export(narrow, trained.module, tmp_path / "clips", Sizes((32, 32, 3), (32, 32, 3)))
    tensors = load_file(tmp_path / "clips" / "transformer" / DIFFERENCE)
    ranks = {tensor.shape[1] for name, tensor in tensors.items() if name.endswith(UP)}
    assert ranks == {1}


def test_the_usual_size_is_that_of_most_data_and_not_of_most_examples(recipe, base, tmp_path):
    shutil.copytree(base, tmp_path / "base")
    singles = WORLD | {"sizes": ["32x32x1"], "examples": 6, "seed": 1}
    mixed = dataclasses.replace(recipe, data=(WORLD, singles), out=str(tmp_path / "mixed"))
    FlowObjective(mixed).export(tmp_path / "clips")
    assert json.loads((tmp_path / "clips" / INDEX).read_text())["usual_size"] == "32x32x3"


def test_the_longest_clip_of_training_is_written_with_the_model(recipe, base, tmp_path):
    shutil.copytree(base, tmp_path / "base")
    longer = WORLD | {"sizes": ["32x32x5"], "examples": 1, "seed": 1}
    mixed = dataclasses.replace(
        recipe, data=(WORLD, longer), usual_size="32x32x3", out=str(tmp_path / "mixed")
    )
    FlowObjective(mixed).export(tmp_path / "clips")
    index = json.loads((tmp_path / "clips" / INDEX).read_text())
    assert (index["usual_size"], index["trained_frames"]) == ("32x32x3", 5)


@pytest.mark.usefixtures("font")
def test_a_usual_size_may_be_any_that_is_trained_on(recipe, tmp_path):
    singles = WORLD | {"sizes": ["32x32x1"], "seed": 1}
    mixed = dataclasses.replace(
        recipe, data=(WORLD, singles), usual_size="32x32x1", out=str(tmp_path / "mixed")
    )
    assert choose_sizes(mixed, find_data(mixed)) == ((32, 32, 1), (32, 32, 3))
    with pytest.raises(LuminaError, match="usual_size is 32x32x2, and no data have it") as caught:
        find_data(dataclasses.replace(mixed, usual_size="32x32x2"))
    assert caught.value.hint == "there are 32x32x1, 32x32x3"


def test_pictures_have_no_usual_size_of_a_recipe(recipe):
    with pytest.raises(LuminaError, match="is for other media than pictures"):
        dataclasses.replace(recipe, modality="image", usual_size="32x32").check()
