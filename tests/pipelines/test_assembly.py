"""From a network that comes alone to pictures, by the library and by the command."""

import pytest
import torch
from transformers import AutoModel, LlamaConfig, LlamaTokenizer

import lumina
from lumina import FlagDiT, LuminaError, NextDiT
from lumina.checkpoints.convert import convert
from lumina.cli import main
from lumina.flow.scheduler import FlowSolverScheduler
from lumina.media import read_record
from lumina.pipelines.class_to_image import LuminaClassPipeline
from lumina.pipelines.original import LuminaFlagPipeline, OriginalLuminaPipeline
from lumina.pipelines.text_to_image import LuminaPipeline

TINY = {
    "sample_size": 8,
    "hidden_size": 24,
    "num_layers": 2,
    "num_attention_heads": 3,
    "multiple_of": 16,
}
TEXT = {"cross_attention_dim": 16}
WIDE = {"cross_attention_dim": 8}
NETWORKS = {
    "next": lambda: NextDiT(**TINY, **TEXT),
    "flag": lambda: FlagDiT(**TINY, **WIDE),
    "classes": lambda: NextDiT(**TINY, num_classes=10),
    "moe": lambda: NextDiT(**TINY, num_classes=10, moe_routing="both", num_experts=2),
    "flag-classes": lambda: FlagDiT(**TINY, num_classes=10, has_line_token=False),
}


@pytest.fixture
def network(request, tmp_path):
    """An original release folder of a random network."""

    def make(name):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = NETWORKS[name]()
            for weight in model.parameters():
                torch.nn.init.normal_(weight, std=0.2)
        model.save_pretrained(tmp_path / "diffusers")
        return convert(tmp_path / "diffusers", tmp_path / name, to="original")

    return make


@pytest.fixture
def llama(tmp_path):
    """A tiny LLaMA and its tokenizer, as they come from the hub."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=8,
            hidden_size=8,
            intermediate_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
        )
        AutoModel.from_config(config).save_pretrained(tmp_path / "llama")
    words = {word: i for i, word in enumerate(["<unk>", "<s>", "</s>", "▁", "a", "c", "t", "▁a"])}
    LlamaTokenizer(vocab=words, merges=[("▁", "a")]).save_pretrained(tmp_path / "llama")
    return tmp_path / "llama"


def load(*arguments, **settings):
    pipeline = lumina.load(*arguments, dtype="float32", device="cpu", **settings)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def draw(pipeline, *arguments, **settings):
    generator = torch.Generator().manual_seed(0)
    settings = {"num_inference_steps": 2, "output_type": "latent"} | settings
    return pipeline(*arguments, generator=generator, **settings).images


def test_a_next_dit_takes_the_text_encoder_and_vae_of_a_folder(network, tiny_folder):
    pipeline = load(network("next"), text_encoder=tiny_folder, vae=tiny_folder)
    assert type(pipeline) is LuminaPipeline
    whole = load(tiny_folder)
    whole.transformer = pipeline.transformer
    torch.testing.assert_close(draw(pipeline, "a cat"), draw(whole, "a cat"))


def test_a_preset_samples_as_the_original_release(network, tiny_folder):
    folder = network("next")
    pipeline = load(folder, text_encoder=tiny_folder, vae=tiny_folder, preset="original")
    assert type(pipeline) is OriginalLuminaPipeline
    assert (pipeline.scheduler.config.solver, pipeline.scheduler.config.shift) == ("midpoint", 4)
    whole = load(tiny_folder, preset="original")
    assert type(whole) is OriginalLuminaPipeline
    assert isinstance(whole.scheduler, FlowSolverScheduler)
    whole.transformer = pipeline.transformer
    torch.testing.assert_close(draw(pipeline, "A cat"), draw(whole, "A cat"))


def test_a_flag_dit_takes_a_llama_that_ends_texts_with_a_mark(network, llama, tiny_folder):
    pipeline = load(network("flag"), text_encoder=llama, vae=tiny_folder)
    assert type(pipeline) is LuminaFlagPipeline
    assert pipeline.tokenizer("a cat")["input_ids"][-1] == 2
    assert pipeline.tokenizer.pad_token_id == 0
    assert draw(pipeline, "a cat").isfinite().all()
    assert not torch.equal(draw(pipeline, "a cat"), draw(pipeline, "a tac"))


@pytest.mark.parametrize("name", ["classes", "moe", "flag-classes"])
def test_models_of_classes_need_no_text(network, tiny_folder, name):
    pipeline = lumina.load(network(name), dtype="float32", device="cpu", vae=tiny_folder)
    assert type(pipeline) is LuminaClassPipeline


@pytest.mark.parametrize(
    ("name", "settings", "told"),
    [
        ("next", {}, "no known text encoder has"),
        ("next", {"text_encoder": "gemma-2b"}, "hf auth login"),
        ("next", {"text_encoder": "gema-2b"}, "did you mean 'gemma-2b'"),
        ("next", {"vae": "sdxl"}, "lumina get stabilityai/sdxl-vae"),
        ("next", {"preset": "originals"}, "did you mean 'original'"),
        ("flag", {"text_encoder": "tiny"}, "texts of width 8"),
    ],
)
def test_what_is_missing_or_does_not_fit_is_named(
    network, tiny_folder, tmp_path, monkeypatch, name, settings, told
):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    given = {"vae": tiny_folder} | settings
    given = {name: tiny_folder if value == "tiny" else value for name, value in given.items()}
    with pytest.raises(LuminaError) as caught:
        load(network(name), **given)
    assert told in str(caught.value)


def test_parts_are_looked_for_before_the_network_is_read(
    network, tiny_folder, tmp_path, monkeypatch
):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    folder = network("next")
    read = []
    monkeypatch.setattr("lumina.checkpoints.backbone.load_backbone", read.append)
    with pytest.raises(LuminaError, match="sdxl-vae is not on this machine"):
        load(folder, text_encoder=tiny_folder)
    assert not read


def test_a_whole_pipeline_takes_no_other_part(tiny_folder):
    with pytest.raises(LuminaError, match="has its own vae"):
        load(tiny_folder, vae=tiny_folder)


def test_the_command_draws_from_a_network_alone(network, tiny_folder, tmp_path, capsys):
    parts = ["--text-encoder", str(tiny_folder), "--vae", str(tiny_folder)]
    target = tmp_path / "cat.png"
    flags = ["--steps", "2", "--seed", "1", "--dtype", "float32", "--device", "cpu"]
    folder = network("next")
    command = ["generate", "a cat", "--model", str(folder), *parts, "--preset", "original"]
    assert main([*command, *flags, "-o", str(target), "--preview", str(tmp_path / "steps")]) == 0
    request = read_record(target)["request"]
    assert (request["preset"], request["text_encoder"]) == ("original", str(tiny_folder))
    again = tmp_path / "again.png"
    assert main(["generate", "--from", str(target), "-o", str(again)]) == 0
    assert again.read_bytes() == target.read_bytes()
    assert list((tmp_path / "steps").glob("*.png"))


def test_the_command_draws_classes(network, tiny_folder, tmp_path, capsys):
    folder = network("classes")
    command = ["generate", "--model", str(folder), "--vae", str(tiny_folder), "--steps", "2"]
    target = tmp_path / "seven.png"
    flags = ["--seed", "1", "--dtype", "float32", "--device", "cpu"]
    assert main([*command, *flags, "--class-label", "7", "-o", str(target)]) == 0
    assert read_record(target)["request"]["class_label"] == 7
    again = tmp_path / "again.png"
    assert main(["generate", "--from", str(target), "-o", str(again)]) == 0
    assert again.read_bytes() == target.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["a cat"], "draws classes, not prompts"),
        ([], "draws classes, not prompts"),
        (["--class-label", "10"], "allowed: 0 to 9"),
        (["--class-label", "-1"], "-1"),
        (["a cat", "--class-label", "1"], "no prompt"),
        (["--class-label", "1", "--negative", "blur"], "leave --negative out"),
        (["--class-label", "1", "--text-encoder", "gemma-2b"], "leave --text-encoder out"),
    ],
)
def test_the_command_says_how_to_ask_for_classes(network, tiny_folder, capsys, arguments, told):
    folder = network("classes")
    flags = ["--model", str(folder), "--vae", str(tiny_folder)]
    assert main(["generate", *arguments, *flags]) == 1
    assert told in capsys.readouterr().err


def test_a_model_of_text_refuses_a_class(tiny_folder, capsys):
    assert main(["generate", "--model", str(tiny_folder), "--class-label", "3"]) == 1
    assert "draws prompts, not classes" in capsys.readouterr().err


def test_of_a_picture_of_the_other_kind_the_settings_that_both_have_are_taken(
    network, tiny_folder, tmp_path
):
    classes = ["--model", str(network("classes")), "--vae", str(tiny_folder)]
    first, second, third = (str(tmp_path / f"{name}.png") for name in "abc")
    flags = ["--steps", "2", "--seed", "1", "--device", "cpu", "--negative", "blur"]
    assert main(["generate", "a cat", "--model", str(tiny_folder), *flags, "-o", first]) == 0
    assert main(["generate", "--from", first, *classes, "--class-label", "3", "-o", second]) == 0
    request = read_record(second)["request"]
    assert (request["class_label"], request["steps"]) == (3, 2)
    assert "negative" not in request
    words = ["--model", str(network("next")), "--text-encoder", str(tiny_folder)]
    assert main(["generate", "a dog", "--from", second, *words, "-o", third]) == 0
    request = read_record(third)["request"]
    assert (request["prompt"], request["steps"]) == ("a dog", 2)
    assert "class_label" not in request
