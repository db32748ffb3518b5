import json
import shutil
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import lumina
from lumina import LuminaError, NextDiT
from lumina.training.conditions import Tokens
from lumina.training.flow import FlowObjective, find_data
from lumina.training.prior import with_prior
from lumina.training.recipes import FlowRecipe
from lumina.training.recipes import load as load_recipe
from lumina.training.sharding import Share
from lumina.training.starting import base_side, make_network
from lumina.training.trainer import train
from lumina.worlds.references import load_references

SHAPES = {"kind": "shapes", "pictures": 24, "side": 64}


def randomise(module):
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in module.parameters():
            noise = torch.randn(weight.shape, generator=generator)
            weight.copy_(0.5 * weight + (0.2 * noise).to(weight.dtype))
    return module


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def recipe(tiny_folder, cache, tmp_path):
    """Makes a recipe of a tiny network on shapes."""

    def make(**settings):
        defaults = {
            "out": str(tmp_path / "run"),
            "cache": str(cache),
            "autoencoder": str(tiny_folder),
            "text_encoder": str(tiny_folder),
            "data": (SHAPES,),
            "crops": {"side": 64},
            "width": 24,
            "depth": 2,
            "heads": 3,
            "kv_heads": 1,
            "multiple_of": 16,
            "batch_size": 4,
            "steps": 2,
            "device": "cpu",
            "preview_every": 100,
            "preview_steps": 2,
        }
        recipe = FlowRecipe(**defaults | settings)
        recipe.check()
        return recipe

    return make


def start(recipe):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return FlowObjective(recipe)


def parts_of(batch):
    for part in batch:
        if part is not None:
            yield from part if isinstance(part, tuple | list) else [torch.as_tensor(part)]


def assert_same(one, other):
    for part, same in zip(parts_of(one), parts_of(other), strict=True):
        assert torch.equal(part, same)


def test_a_batch_is_the_same_for_the_same_number_and_no_other(recipe):
    first, again = start(recipe()), start(recipe())
    assert_same(first.batch(3), again.batch(3))
    assert not torch.equal(first.batch(3).noise, first.batch(4).noise)


def test_processes_share_a_batch(recipe):
    objective = start(recipe())
    whole = objective.batch(1)
    shares = [objective.batch(1, Share(number, 2)) for number in range(2)]
    for name in ("data", "noise", "times", "weights"):
        joined = torch.cat([getattr(share, name) for share in shares])
        assert torch.equal(joined, getattr(whole, name))
    losses = [objective.loss(share, 0)[0] for share in shares]
    torch.testing.assert_close(sum(losses) / 2, objective.loss(whole, 0)[0])


def test_latents_are_those_of_the_pictures_under_their_captions(recipe, tiny_folder):
    objective = start(recipe(caption_dropout=0.0))
    vae = diffusers.AutoencoderKL.from_pretrained(tiny_folder / "vae")
    factor = vae.config["scaling_factor"]
    draws, _ = objective.stages.share(0, rank=0, world=1)
    batch = objective.batch(0)
    for draw, latents in zip(draws, batch.data, strict=True):
        pixels = torch.from_numpy(np.asarray(draw.placed.example.medium.open()).copy())
        pixels = pixels.permute(2, 0, 1)[None].float() / 127.5 - 1
        with torch.no_grad():
            mean = vae.encode(pixels).latent_dist.mean[0]
        torch.testing.assert_close(latents, mean * factor, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_times_are_shifted(recipe, shift):
    plain, moved = start(recipe()), start(recipe(time_shift=shift))
    before, after = plain.batch(0), moved.batch(0)
    assert torch.equal(before.noise, after.noise)
    torch.testing.assert_close(
        after.times, before.times / (before.times + shift * (1 - before.times))
    )


def test_logit_normal_times_have_their_mean(recipe):
    objective = start(recipe(times="logit-normal", time_mean=1.0, time_spread=0.5))
    times = torch.cat([objective.batch(number).times for number in range(60)])
    assert times.logit().mean().item() == pytest.approx(1.0, abs=0.1)
    assert times.logit().std().item() == pytest.approx(0.5, abs=0.1)


def test_features_from_the_cache_are_those_of_the_encoder(recipe):
    kept, encoded = start(recipe()), start(recipe(cache_texts=False))
    randomise(kept.module)
    encoded.module.load_state_dict(kept.module.state_dict())
    one, other = kept.batch(0), encoded.batch(0)
    assert isinstance(other.condition, Tokens)
    torch.testing.assert_close(
        kept.loss(one, 0)[0], encoded.loss(other, 0)[0], rtol=1e-3, atol=1e-3
    )


def test_captions_without_a_token_are_read_as_the_pipeline_reads_them(
    recipe, tiny_folder, tmp_path
):
    """What is left out must be what guidance is guided by, also where no token begins a text."""
    folder = shutil.copytree(tiny_folder, tmp_path / "encoder")
    tokenizer = json.loads((folder / "tokenizer" / "tokenizer.json").read_text())
    (folder / "tokenizer" / "tokenizer.json").write_text(
        json.dumps(tokenizer | {"post_processor": None})
    )
    objective = start(recipe(text_encoder=str(folder), cache_texts=False, caption_dropout=1.0))
    assert objective.batch(0).condition.mask.sum(1).tolist() == [1] * 4


def test_packed_batches_have_the_loss_of_their_samples(recipe):
    tables = tuple({**SHAPES, "crops": {"sizes": [size]}} for size in ("64x64", "64x32"))
    objective = start(recipe(shapes="packed", data=tables, crops={}))
    randomise(objective.module)
    batch = objective.batch(0)
    assert isinstance(batch.data, list)
    assert len({tuple(one.shape) for one in batch.data}) > 1
    whole = objective.loss(batch, 0)[0]
    errors = [
        objective._errors(
            batch._replace(
                data=batch.data[i : i + 1],
                noise=batch.noise[i : i + 1],
                times=batch.times[i : i + 1],
                condition=type(batch.condition)(*(p[i : i + 1] for p in batch.condition)),
            )
        )
        for i in range(len(batch.data))
    ]
    torch.testing.assert_close(whole, torch.cat(errors).mean(), rtol=1e-4, atol=1e-5)


def test_packed_samples_are_scaled_as_each_is_alone(recipe):
    tables = tuple({**SHAPES, "crops": {"sizes": [size]}} for size in ("64x64", "64x32"))
    objective = start(recipe(shapes="packed", data=tables, crops={}))
    randomise(objective.module)
    batch = objective.batch(0)
    assert len({tuple(one.shape) for one in batch.data}) > 1
    together = objective._errors(batch)
    for i, error in enumerate(together):
        alone = batch._replace(
            data=batch.data[i].unsqueeze(0),
            noise=batch.noise[i].unsqueeze(0),
            times=batch.times[i : i + 1],
            condition=type(batch.condition)(*(part[i : i + 1] for part in batch.condition)),
        )
        torch.testing.assert_close(objective._errors(alone)[0], error, rtol=1e-4, atol=1e-5)


def test_weights_of_examples_and_sources_scale_the_loss(recipe):
    plain = start(recipe())
    double = start(recipe(data=({**SHAPES, "loss_weight": 2.0},)))
    randomise(plain.module)
    double.module.load_state_dict(plain.module.state_dict())
    one, other = plain.loss(plain.batch(0), 0)[0], double.loss(double.batch(0), 0)[0]
    torch.testing.assert_close(2 * one, other)


def test_sources_take_turns_within_a_run(recipe):
    tables = ({**SHAPES, "until": 0.5}, {**SHAPES, "start": 0.5, "seed": 1})
    objective = start(recipe(data=tables, steps=4))
    sources = [
        {draw.source for draw in objective.stages.share(number, rank=0, world=1)[0]}
        for number in range(4)
    ]
    assert sources == [{0}, {0}, {1}, {1}]
    with pytest.raises(LuminaError, match="no data at batch 2 of 4"):
        start(recipe(data=({**SHAPES, "until": 0.5},), steps=4))


def test_what_validates_is_never_trained_on_and_always_the_same(recipe):
    settings = {"validation": 0.3, "steps": 20}
    objective = start(recipe(**settings))
    unseen = {placed.example.key for placed in objective.encoded.survey.unseen}
    trained = {
        draw.placed.example.key
        for number in range(20)
        for draw in objective.stages.share(number, rank=0, world=1)[0]
    }
    assert unseen
    assert not unseen & trained
    randomise(objective.module)
    again = start(recipe(**settings))
    again.module.load_state_dict(objective.module.state_dict())
    assert objective.validate() == again.validate()


def test_classes_are_trained_on_and_left_out(recipe):
    objective = start(recipe(text_encoder="", classes=12, caption_dropout=0.5))
    assert objective.module.config["num_classes"] == 12
    labels = torch.cat([objective.batch(number).condition for number in range(100)])
    assert (labels == 12).float().mean().item() == pytest.approx(0.5, abs=0.1)
    assert set(labels.tolist()) > {12}
    loss, _ = objective.loss(objective.batch(0), 0)
    assert loss.isfinite()


def test_a_class_that_the_network_lacks_is_named(recipe):
    with pytest.raises(LuminaError, match="has the class"):
        start(recipe(text_encoder="", classes=3))


def test_classes_are_trained_on_without_captions(recipe, tmp_path):
    records = []
    for number in range(4):
        Image.new("RGB", (64, 64), (60 * number,) * 3).save(tmp_path / f"{number}.png")
        records.append(json.dumps({"image": f"{number}.png", "label": number}))
    (tmp_path / "list.jsonl").write_text("\n".join(records))
    table = {"kind": "jsonl", "path": str(tmp_path / "list.jsonl")}
    settings = {"text_encoder": "", "classes": 4, "caption_dropout": 0.0, "data": (table,)}
    objective = start(recipe(**settings))
    assert sorted(objective.batch(0).condition.tolist()) == [0, 1, 2, 3]
    loss, _ = objective.loss(objective.batch(0), 0)
    assert loss.isfinite()


def test_a_run_writes_its_figures_and_weights(recipe):
    folder = train(recipe(precision="bf16", validation=0.2, validate_every=1))
    lines = (folder.parent / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2]
    assert all("validation" in json.loads(line) for line in lines)
    assert (folder / "training.json").exists()
    lumina.load(folder, device="cpu", dtype="float32")


@pytest.fixture
def exported(recipe, tmp_path):
    objective = start(recipe())
    randomise(objective.module)
    objective.export(tmp_path / "last")
    return tmp_path / "last"


def test_lumina_and_diffusers_draw_the_same_from_what_is_exported(exported):
    folder = exported
    ours = lumina.load(folder, device="cpu", dtype="float32")
    theirs = diffusers.LuminaPipeline.from_pretrained(folder)
    assert type(ours.transformer) is NextDiT
    made = []
    for pipeline in (ours, theirs):
        pipeline.set_progress_bar_config(disable=True)
        made.append(
            pipeline(
                "a red disc",
                num_inference_steps=2,
                output_type="latent",
                generator=torch.Generator().manual_seed(0),
            ).images
        )
    assert (made[0] - made[1]).abs().max() <= 1e-4 * made[1].abs().max()


def test_a_run_starts_from_what_another_wrote(exported, recipe):
    folder = exported
    written = load_file(folder / "transformer" / "diffusion_pytorch_model.safetensors")
    begun = start(recipe(start_from=str(folder)))
    for name, weight in begun.module.state_dict().items():
        assert torch.equal(weight, written[name].float()), name


def test_a_network_that_reads_something_else_is_refused(recipe, tiny_folder):
    with pytest.raises(LuminaError, match="the network reads texts"):
        start(recipe(start_from=str(tiny_folder), text_encoder="", classes=12))


def test_a_text_encoder_of_another_width_is_refused(recipe, own_folder):
    config = own_folder / "transformer" / "config.json"
    settings = json.loads(config.read_text()) | {"cross_attention_dim": 32}
    NextDiT.from_config(settings).save_pretrained(own_folder / "transformer")
    with pytest.raises(LuminaError, match="is 16 wide, and the network reads texts of width 32"):
        start(recipe(start_from=str(own_folder)))


def test_more_classes_than_the_network_has_are_refused(recipe, tmp_path):
    settings = {"text_encoder": "", "classes": 12}
    start(recipe(**settings)).export(tmp_path / "last")
    with pytest.raises(LuminaError, match="the network reads 12 classes, and the recipe .* 13"):
        start(recipe(start_from=str(tmp_path / "last"), **settings | {"classes": 13}))


def test_missing_data_are_found_before_anything_else_is_done(recipe, tiny_folder, tmp_path):
    tables = (SHAPES, {"kind": "folder", "path": str(tmp_path / "missing")})
    for model in (tiny_folder, tmp_path / "no-model"):
        with pytest.raises(LuminaError, match=r"there is no folder .*missing"):
            start(recipe(start_from=str(model), prior_prompts=("a cat",), data=tables))
    assert not (tmp_path / "run").exists()


DRAWN = {"kind": "drawings", "sizes": ["64x64", "160x160", "192x96", "128x128"]}


@pytest.mark.parametrize(
    ("data", "crops", "side"),
    [
        ((SHAPES,), {}, 256),
        ((SHAPES,), {"side": 128}, 128),
        ((SHAPES,), {"sizes": ["128x128", "64x64"]}, 128),
        ((SHAPES,), {"sizes": ["192x96"]}, 128),
        (({**SHAPES, "crops": {"side": 512}},), {"side": 128}, 512),
        ((DRAWN,), {}, 160),
        ((DRAWN,), {"side": 128}, 128),
        (({**SHAPES, "until": 0.5}, {**DRAWN, "start": 0.5}), {}, 160),
        (({**DRAWN, "until": 0.5}, {**SHAPES, "crops": {"side": 64}, "start": 0.5}), {}, 64),
    ],
)
def test_a_network_is_made_for_what_is_trained_on_to_the_end(recipe, data, crops, side):
    settings = recipe(data=data, crops=crops)
    assert base_side(settings) == side
    with torch.device("meta"):
        assert make_network(settings, is_empty=True).config["sample_size"] == side // 8


def test_networks_of_the_family_stay_what_they_are_made_for():
    recipes = Path(__file__).parents[2] / "recipes"
    sides = {}
    for path in recipes.glob("*.toml"):
        shipped = load_recipe(path)
        if isinstance(shipped, FlowRecipe) and shipped.modality == "image":
            sides[path.stem] = base_side(shipped)
    assert sides.pop("quick") == 64
    assert "lumina_mini_sizes" in sides
    assert set(sides.values()) == {128}


@pytest.mark.parametrize(
    ("settings", "side"),
    [({}, 4), ({"lora_rank": 2, "lora_merge": True}, 4), ({"lora_rank": 2}, 8)],
)
def test_a_network_goes_on_at_another_size_but_adapters_stay(recipe, tiny_folder, settings, side):
    crops = {"sizes": ["32x32"]}
    network = make_network(recipe(start_from=str(tiny_folder), crops=crops, **settings))
    assert network.config["sample_size"] == side


@pytest.mark.parametrize("quantize", ["", "int8"])
def test_adapters_alone_are_trained_and_written(recipe, tiny_folder, quantize):
    if quantize:
        pytest.importorskip("torchao")
    settings = recipe(
        start_from=str(tiny_folder),
        lora_rank=2,
        learning_rate=0.1,
        quantize=quantize,
        precision="bf16" if quantize else "fp32",
    )
    objective = start(settings)
    names = {n for n, w in objective.module.named_parameters() if w.requires_grad}
    assert names
    assert all("lora_" in name for name in names)
    folder = train(settings)
    assert [path.name for path in folder.glob("*.safetensors")] == [
        "pytorch_lora_weights.safetensors"
    ]
    state = next((folder.parent / "states").glob("step-*"))
    assert sum(p.stat().st_size for p in state.iterdir()) < 2e6
    plain = lumina.load(tiny_folder, device="cpu", dtype="float32")
    x, t, text = torch.randn(1, 4, 8, 8), torch.tensor([0.3]), torch.randn(1, 4, 16)
    before = plain.transformer(x, t, text, return_dict=False)[0]
    plain.load_lora_weights(folder)
    after = plain.transformer(x, t, text, return_dict=False)[0]
    assert (after - before).abs().max() > 1e-4


def test_merged_adapters_give_what_loaded_ones_give(recipe, tiny_folder, tmp_path):
    settings = {"start_from": str(tiny_folder), "lora_rank": 2, "learning_rate": 0.1}
    settings |= {"save_dtype": "float32"}
    apart = train(recipe(out=str(tmp_path / "apart"), **settings))
    merged = train(recipe(out=str(tmp_path / "merged"), lora_merge=True, **settings))
    one = lumina.load(tiny_folder, device="cpu", dtype="float32")
    one.load_lora_weights(apart)
    other = lumina.load(merged, device="cpu", dtype="float32")
    x, t, text = torch.randn(1, 4, 8, 8), torch.tensor([0.3]), torch.randn(1, 4, 16)
    values = [p.transformer(x, t, text, return_dict=False)[0] for p in (one, other)]
    torch.testing.assert_close(values[0], values[1], rtol=1e-4, atol=1e-5)


def test_what_the_network_draws_before_is_trained_on_too(recipe, tiny_folder, tmp_path):
    prompts = ("a cat", "a dog")
    settings = recipe(
        start_from=str(tiny_folder), prior_prompts=prompts, prior_pictures=3, prior_weight=0.5
    )
    objective = start(settings)
    drawn = sorted((tmp_path / "run" / "prior").glob("*/*.json"))
    captions = [json.loads(path.read_text())["caption"] for path in drawn]
    assert captions == ["a cat", "a dog", "a cat"]
    batches = [objective.batch(number) for number in range(6)]
    weights = torch.cat([batch.weights for batch in batches])
    assert (weights == 0.5).float().mean().item() == pytest.approx(0.5, abs=0.15)
    before = [path.stat().st_mtime_ns for path in drawn]
    start(settings)
    assert [path.stat().st_mtime_ns for path in drawn] == before


def test_what_is_drawn_before_is_drawn_again_for_other_settings(recipe, own_folder):
    def prior(**settings):
        changed = {"prior_prompts": ("a cat",), "prior_pictures": 2} | settings
        found = with_prior(recipe(start_from=str(own_folder), **changed))
        return find_data(found).placed[-1]

    first = prior()
    assert len(first) == 2
    assert prior() == first
    assert len(prior(prior_pictures=1)) == 1
    (dog, _) = prior(prior_prompts=("a dog",))
    assert dog.example.captions.every() == ("a dog",)
    before = first[0].example.medium.open().tobytes()
    weights = own_folder / "transformer" / "diffusion_pytorch_model.safetensors"
    save_file({name: 2 * one for name, one in load_file(weights).items()}, weights)
    assert prior()[0].example.medium.open().tobytes() != before


def test_previews_are_pictures_of_the_prompts(recipe, tmp_path):
    objective = start(recipe(prompts=("a red disc", "a blue square")))
    for step in (1, 2):
        objective.preview(tmp_path, step)
    first, second = (Image.open(tmp_path / f"step-{step:06d}.png") for step in (1, 2))
    assert first.tobytes() == second.tobytes()
    assert first.width * first.height > 2 * 64 * 64


def test_a_picture_that_comes_twice_in_a_batch_has_two_noises(recipe):
    batch = start(recipe(data=({**SHAPES, "pictures": 1},), validation=0.0)).batch(0)
    assert len(batch.noise) == 4
    assert torch.equal(batch.data[0], batch.data[1])
    assert len({noise.numpy().tobytes() for noise in batch.noise}) == 4
    assert len(set(batch.times.tolist())) == 4


def test_batches_that_processes_cannot_share_are_refused_at_the_start(recipe):
    objective = start(recipe())
    objective.stages.check_shares(2)
    with pytest.raises(LuminaError, match=r"4 pictures of a batch of 64x64") as told:
        objective.stages.check_shares(3)
    assert "batch_multiple = 3" in told.value.hint


def test_other_data_have_another_digest(recipe):
    one, same, other = (start(recipe(data=({**SHAPES, "seed": s},))) for s in (0, 0, 1))
    assert one.data_digest == same.data_digest != other.data_digest


def test_adapters_on_another_model_have_another_digest(recipe, tiny_folder, tmp_path):
    folder = tmp_path / "start"
    shutil.copytree(tiny_folder, folder)
    made = recipe(start_from=str(folder), lora_rank=2)
    before = start(made).data_digest
    assert start(made).data_digest == before
    weights = next((folder / "transformer").glob("*.safetensors"))
    tensors = load_file(weights)
    name = next(name for name in tensors if "layers.0" in name)
    save_file({**tensors, name: tensors[name] + 1}, weights)
    assert start(made).data_digest != before


def test_a_model_of_drawings_has_their_references(recipe, font, tmp_path):
    table = {"kind": "drawings", "scenes": 3, "sizes": ["64x64"]}
    objective = start(recipe(data=(table,), crops={"side": 64}, cache_texts=False))
    objective.export(tmp_path / "last")
    things, drawings = load_references(tmp_path / "last")
    assert len(things) == len(drawings)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"data": ()}, "there are no data"),
        ({"autoencoder": ""}, "no autoencoder"),
        ({"text_encoder": ""}, "give a text_encoder"),
        ({"classes": 3}, "give a text_encoder"),
        ({"lora_rank": 2}, "lora_rank needs a network"),
        ({"quantize": "nf4", "start_from": "x"}, "quantized weights are not trained"),
        ({"quantize": "int8", "start_from": "x", "lora_rank": 2}, 'precision = "bf16"'),
        ({"start_from": "x", "lora_rank": 2, "lora_whole": ("proj",)}, "not be written"),
        ({"lora_whole": ("proj",)}, "there are none"),
        ({"heads": 5}, "heads must divide"),
        ({"width": 18}, "multiple of 4"),
        ({"data": ({**SHAPES, "start": 0.5, "until": 0.5},)}, "not before its until"),
    ],
)
def test_settings_that_do_not_go_together_are_refused_before_anything_loads(recipe, settings, told):
    with pytest.raises(LuminaError) as caught:
        recipe(**settings)
    assert told in f"{caught.value} {caught.value.hint}"


def test_a_text_encoder_without_its_tokenizer_is_refused(recipe, tiny_folder):
    with pytest.raises(LuminaError, match="has no tokenizer"):
        start(recipe(text_encoder=str(tiny_folder / "text_encoder")))
