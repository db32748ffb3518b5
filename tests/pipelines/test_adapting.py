import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image
from safetensors.torch import load_file, save_file

import lumina
from lumina import LuminaError, NextDiT
from lumina.cli import main
from lumina.flow.scheduler import FlowSolverScheduler
from lumina.generation import run
from lumina.media import read_record
from lumina.pipelines.adapting import use_adapters
from lumina.pipelines.class_to_image import LuminaClassPipeline
from lumina.planning import plan
from lumina.requests import read_adapter
from lumina.training.recipes import FlowRecipe
from lumina.training.trainer import train

WEIGHTS = "pytorch_lora_weights.safetensors"
TINY = {
    "sample_size": 8,
    "hidden_size": 24,
    "num_layers": 1,
    "num_attention_heads": 3,
    "multiple_of": 16,
    "num_classes": 10,
}


@pytest.fixture(scope="session")
def adapter(tiny_folder, tmp_path_factory):
    """A folder that two steps of training wrote."""
    recipe = FlowRecipe(
        out=str(tmp_path_factory.mktemp("lora")),
        autoencoder=str(tiny_folder),
        text_encoder=str(tiny_folder),
        start_from=str(tiny_folder),
        data=({"kind": "shapes", "pictures": 8, "side": 64},),
        crops={"side": 64},
        batch_size=4,
        steps=2,
        lora_rank=2,
        learning_rate=0.5,
        device="cpu",
        preview_every=100,
        preview_steps=1,
    )
    return train(recipe)


@pytest.fixture
def draw(tiny_folder, tmp_path, monkeypatch):
    """Draws by a task with adapters; returns files."""
    monkeypatch.chdir(tmp_path)

    def draw(loras, task="generate", **settings):
        usual = {"model": str(tiny_folder), "steps": 2, "seed": 5, "device": "cpu"}
        usual |= {"dtype": "float32"}
        return list(run(plan(task, usual | {"prompt": "a cat", "loras": loras} | settings)))

    return draw


def pixels(path):
    return np.asarray(Image.open(path))


def test_a_trained_adapter_changes_pictures_by_its_strength(draw, adapter):
    plain, none, half, whole = (
        pixels(draw(loras)[0])
        for loras in ((), (f"{adapter}:0",), (f"{adapter}:.5",), (f"{adapter}",))
    )
    assert np.array_equal(none, plain)
    assert not np.array_equal(whole, plain)
    assert not np.array_equal(whole, half)


def test_two_halves_of_an_adapter_are_the_whole(draw, adapter):
    whole = draw((f"{adapter}/{WEIGHTS}",))[0]
    halves = draw((f"{adapter}:0.5", f"{adapter}/{WEIGHTS}:0.5"))[0]
    # Sums in another order, and rounding to 8 bits.
    assert np.abs(pixels(whole).astype(int) - pixels(halves)).max() <= 1


def test_adapters_compute_in_the_numbers_of_the_model(tiny_folder, adapter):
    pipeline = lumina.load(tiny_folder, dtype="float32", device="cpu")
    use_adapters(pipeline, (str(adapter),))
    weights = dict(pipeline.transformer.named_parameters())
    assert any("lora_" in name for name in weights)
    assert {weight.dtype for weight in weights.values()} == {torch.float32}


def test_an_adapter_is_used_for_its_own_pictures_alone(adapter, tiny_folder, tmp_path):
    settings = {"model": str(tiny_folder), "steps": 2, "seed": 5, "device": "cpu"}
    axis = f"loras={adapter}:0|{adapter}|{adapter}:0"
    job = plan("generate", settings, prompts=["a cat"], vary=[axis], output=tmp_path / "table.png")
    table = pixels(*run(job))[-68:-4]  # the last row, without its margin
    first, second, third = (table[:, -end:][:, :64] for end in (200, 132, 64))
    assert np.array_equal(third, first)
    assert not np.array_equal(second, first)


def test_the_file_tells_of_its_adapters_and_makes_the_picture_again(draw, adapter, caplog):
    own = Path(shutil.copytree(adapter, "own"))
    (path,) = draw(("own:0.7",))
    record = read_record(path)
    assert record["request"]["loras"] == ["own:0.7"]
    assert record["lora_hashes"].keys() == {"own:0.7"}
    (again,) = run(plan("generate", {}, source=path))
    assert np.array_equal(pixels(again), pixels(path))
    assert not [record for record in caplog.records if record.name.startswith("lumina")]
    weights = load_file(own / WEIGHTS)
    save_file({name: weight + 1 for name, weight in weights.items()}, own / WEIGHTS)
    plan("generate", {}, source=path)
    assert "the weights of the adapter own:0.7 are not those" in caplog.text


def test_other_tasks_take_adapters(draw, adapter):
    plain, adapted = (pixels(draw(loras, task="tile")[0]) for loras in ((), (str(adapter),)))
    assert not np.array_equal(plain, adapted)


def test_models_of_classes_take_adapters(tiny_folder, tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = NextDiT(**TINY)
        for weight in network.parameters():
            torch.nn.init.normal_(weight, std=0.2)
        vae = AutoencoderKL.from_pretrained(tiny_folder / "vae")
        LuminaClassPipeline(network, FlowSolverScheduler(), vae).save_pretrained(tmp_path / "model")
        weights = {"lora_A": torch.randn(2, 24), "lora_B": torch.randn(24, 2)}
    file = tmp_path / "own.safetensors"
    save_file({f"layers.0.attn1.to_q.{n}.weight": w for n, w in weights.items()}, file)

    def draw(name, *loras):
        settings = {"model": str(tmp_path / "model"), "class_label": 1, "steps": 2, "seed": 1}
        settings |= {"loras": loras, "device": "cpu"}
        return pixels(*run(plan("generate", settings, output=tmp_path / name)))

    assert not np.array_equal(draw("plain.png"), draw("adapted.png", str(file)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("style", ("style", 1.0)),
        ("style:0.8", ("style", 0.8)),
        ("a/b.safetensors:-1", ("a/b.safetensors", -1.0)),
        ("C:\\style", ("C:\\style", 1.0)),
        ("style:.5", ("style", 0.5)),
    ],
)
def test_a_strength_is_a_number_behind_a_colon(text, expected):
    assert read_adapter(text) == expected


def test_the_command_takes_several(draw, adapter, tiny_folder, capsys):
    flags = ["--lora", f"{adapter}:0.5", "--lora", f"{adapter}:0.25", "--model", str(tiny_folder)]
    assert main(["generate", "a cat", "--steps", "1", "--seed", "5", *flags]) == 0
    assert read_record(Path("a-cat-5.png"))["request"]["loras"] == flags[1:4:2]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("", "an adapter has no name"),
        (":0.8", "an adapter has no name"),
        ("nowhere", "there is no adapter nowhere"),
        ("nowhere:0.8", "there is no adapter nowhere"),
        ("text.txt", "is no .safetensors file"),
        ("empty", "holds no .safetensors files"),
        ("two", "name the file: two/a.safetensors"),
        ("damaged", "is damaged"),
        ("model", "is a whole model, and no adapter"),
        ("other", "are not in NextDiT"),
        ("wider", "where this model takes [2, 24]"),
    ],
)
def test_what_is_no_adapter_of_the_model_is_refused_before_weights_load(
    draw, adapter, own_folder, name, told
):
    for weights in own_folder.glob("*/*.safetensors"):  # only their headers are left
        size, length = weights.stat().st_size, int.from_bytes(weights.read_bytes()[:8], "little")
        header = weights.read_bytes()[: 8 + length]
        weights.write_bytes(header + b"\xff" * (size - len(header)))
    Path("text.txt").touch()
    for folder in ("empty", "two", "damaged", "other", "wider"):
        Path(folder).mkdir()
    own_folder.rename("model")
    for file in ("two/a.safetensors", "two/b.safetensors", "damaged/a.safetensors"):
        Path(file).write_bytes(b"weights")
    parts = ("lora_A", "lora_B")
    for folder, layer, width in (
        ("other", "blocks.9.to_q", 24),
        ("wider", "layers.0.attn1.to_q", 32),
    ):
        shapes = {"lora_A": (2, width), "lora_B": (width, 2)}
        weights = {f"{layer}.{part}.weight": torch.zeros(shapes[part]) for part in parts}
        save_file(weights, Path(folder) / "a.safetensors")
    with pytest.raises(LuminaError) as caught:
        draw((name,), model="model")
    assert told in str(caught.value)
