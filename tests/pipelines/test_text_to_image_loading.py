import json
import logging

import diffusers
import numpy as np
import pytest
import torch
from diffusers import LuminaNextDiT2DModel, UniPCMultistepScheduler
from safetensors.torch import load_file

from lumina.backbones.next_dit import NextDiT
from lumina.pipelines.text_to_image import LuminaPipeline


def read(path):
    return json.loads(path.read_text())


def test_a_checkpoint_of_diffusers_loads_into_our_transformer(ours):
    assert type(ours.transformer) is NextDiT


def test_a_checkpoint_that_names_the_old_class_loads(folder, tmp_path, draw, ours):
    for part in folder.iterdir():
        (tmp_path / part.name).symlink_to(part)
    index = read(folder / "model_index.json") | {"_class_name": "LuminaText2ImgPipeline"}
    (tmp_path / "model_index.json").unlink()
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    pipeline = LuminaPipeline.from_pretrained(tmp_path)
    assert type(pipeline.transformer) is NextDiT
    assert torch.equal(draw(pipeline), draw(ours))


@pytest.fixture
def said_by_diffusers(caplog):
    """What diffusers warns of, which it does not pass on to the root logger by itself."""
    logger = logging.getLogger("diffusers")
    logger.addHandler(caplog.handler)
    yield lambda: [record.getMessage() for record in caplog.records]
    logger.removeHandler(caplog.handler)


def test_what_we_save_loads_in_plain_diffusers(
    ours, theirs, tmp_path, draw, assert_same, said_by_diffusers
):
    ours.save_pretrained(tmp_path)
    index = read(tmp_path / "model_index.json")
    assert index["_class_name"] == "LuminaPipeline"
    assert index["transformer"] == ["diffusers", "LuminaNextDiT2DModel"]
    loaded = diffusers.DiffusionPipeline.from_pretrained(tmp_path)
    assert type(loaded) is diffusers.LuminaPipeline
    assert type(loaded.transformer) is LuminaNextDiT2DModel
    assert said_by_diffusers() == []
    assert torch.equal(draw(loaded), draw(theirs))


def test_saving_writes_the_weights_that_were_loaded(ours, folder, tmp_path):
    ours.save_pretrained(tmp_path)
    name = "transformer/diffusion_pytorch_model.safetensors"
    before, after = load_file(folder / name), load_file(tmp_path / name)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize("name", ["torch_dtype", "dtype"])
def test_a_dtype_holds_for_every_model(folder, name):
    pipeline = LuminaPipeline.from_pretrained(folder, **{name: torch.bfloat16})
    models = [pipeline.transformer, pipeline.vae, pipeline.text_encoder]
    assert {model.dtype for model in models} == {torch.bfloat16}
    pictures = pipeline("a cat", num_inference_steps=1, output_type="np").images
    assert np.isfinite(pictures).all()


def test_a_variant_is_saved_and_loaded(ours, tmp_path, draw):
    ours.save_pretrained(tmp_path, variant="fp16")
    assert torch.equal(draw(LuminaPipeline.from_pretrained(tmp_path, variant="fp16")), draw(ours))


def test_a_passed_transformer_of_ours_is_used_as_it_is(ours, folder):
    pipeline = LuminaPipeline.from_pretrained(folder, transformer=ours.transformer)
    assert pipeline.transformer is ours.transformer


def test_a_passed_transformer_of_diffusers_is_taken_over_without_copying(
    folder, theirs, draw, said_by_diffusers
):
    expected = draw(theirs)
    pipeline = LuminaPipeline.from_pretrained(folder, transformer=theirs.transformer)
    assert type(pipeline.transformer) is NextDiT
    assert said_by_diffusers() == []
    assert not any(parameter.is_meta for parameter in pipeline.transformer.parameters())
    weight = theirs.transformer.layers[0].feed_forward.linear_1.weight
    assert pipeline.transformer.layers[0].feed_forward.linear_1.weight is weight
    assert (draw(pipeline) - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_layers_that_a_quantizer_put_in_place_keep_working(theirs, draw):
    """A quantizer replaces linear layers by its own, which hold packed weights."""

    class Packed(torch.nn.Linear):
        def forward(self, x):
            return torch.nn.functional.linear(x, self.weight.to(x.dtype), self.bias) / 8

    for block in theirs.transformer.layers:
        old = block.feed_forward.linear_2
        new = Packed(old.in_features, old.out_features, bias=False)
        packed = (old.weight.detach() * 8).round().to(torch.int8)
        new.weight = torch.nn.Parameter(packed, requires_grad=False)
        block.feed_forward.linear_2 = new
    theirs.transformer.is_quantized = True
    expected = draw(theirs)
    pipeline = LuminaPipeline(**theirs.components)
    assert type(pipeline.transformer) is NextDiT
    assert pipeline.transformer.layers[0].feed_forward.linear_2.weight.dtype == torch.int8
    assert pipeline.transformer.is_quantized
    assert (draw(pipeline) - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_a_transformer_spread_over_devices_is_refused(theirs):
    theirs.transformer.hf_device_map = {"layers.0": 0, "layers.1": 1}
    with pytest.raises(ValueError, match="several devices"):
        LuminaPipeline(**theirs.components)


def test_pipelines_share_components_by_from_pipe(ours, theirs, draw):
    again = LuminaPipeline.from_pipe(ours)
    assert again.transformer is ours.transformer
    assert torch.equal(draw(again), draw(ours))
    assert type(LuminaPipeline.from_pipe(theirs).transformer) is NextDiT


def test_a_pipeline_can_be_made_without_some_components(ours):
    parts = {"transformer": None, "vae": None, "scheduler": None}
    reader = LuminaPipeline(**ours.components | parts)
    embeds, mask, away, away_mask = reader.encode_prompt("a Cat", negative_prompt="a dog")
    drawer = LuminaPipeline(**ours.components | {"text_encoder": None, "tokenizer": None})
    picture = drawer(
        prompt_embeds=embeds,
        prompt_attention_mask=mask,
        negative_prompt_embeds=away,
        negative_prompt_attention_mask=away_mask,
        generator=torch.Generator().manual_seed(0),
        num_inference_steps=1,
        output_type="latent",
    ).images
    expected = ours(
        "a Cat",
        negative_prompt="a dog",
        generator=torch.Generator().manual_seed(0),
        num_inference_steps=1,
        output_type="latent",
    ).images
    assert torch.equal(picture, expected)


def test_a_scheduler_is_exchanged_as_in_diffusers(ours, draw):
    ours.scheduler = UniPCMultistepScheduler.from_config(
        ours.scheduler.config, prediction_type="flow_prediction", use_flow_sigmas=True
    )
    assert draw(ours).isfinite().all()
    assert ours.config["scheduler"] == ("diffusers", "UniPCMultistepScheduler")


def test_a_model_that_diffusers_cannot_compute_is_saved_under_our_name(ours, tmp_path):
    ours.transformer.register_to_config(rope_axes=(0, 2, 6))
    ours.save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    assert index["transformer"] == ["lumina.backbones.next_dit", "NextDiT"]
    assert LuminaPipeline.from_pretrained(tmp_path).transformer.rope_axes == (0, 2, 6)
