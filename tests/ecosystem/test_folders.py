"""What we save is read by diffusers' own pipelines, and the other way round."""

import diffusers
import pytest
import torch
from diffusers import AutoPipelineForText2Image, DiffusionPipeline

import lumina
from lumina import (
    LuminaClassPipeline,
    LuminaError,
    LuminaPipeline,
    NextDiT,
    OriginalLuminaPipeline,
)


@pytest.mark.parametrize("loader", [DiffusionPipeline, AutoPipelineForText2Image])
def test_diffusers_draws_the_same_pictures_from_a_folder_of_ours(pipeline, draw, tmp_path, loader):
    pipeline.save_pretrained(tmp_path)
    theirs = loader.from_pretrained(tmp_path)
    assert type(theirs) is diffusers.LuminaPipeline
    assert type(theirs.transformer) is diffusers.LuminaNextDiT2DModel
    expected = draw(pipeline)
    # What parity with diffusers is held to.
    assert (draw(theirs) - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_lumina_load_reads_the_folder_as_ours(pipeline, draw, tmp_path):
    pipeline.save_pretrained(tmp_path)
    loaded = lumina.load(tmp_path, dtype=torch.float32, device="cpu")
    assert type(loaded) is LuminaPipeline
    assert torch.equal(draw(loaded), draw(pipeline))


def test_a_folder_of_another_task_is_refused_with_what_to_do(pipeline, tmp_path):
    diffusers.DiTPipeline(
        transformer=diffusers.DiTTransformer2DModel(
            num_attention_heads=2, attention_head_dim=8, num_layers=1, sample_size=8, in_channels=4
        ),
        vae=pipeline.vae,
        scheduler=diffusers.DDIMScheduler(),
    ).save_pretrained(tmp_path)
    with pytest.raises(LuminaError) as error:
        lumina.load(tmp_path)
    message, hint = str(error.value).splitlines()
    assert message.startswith(f"{tmp_path} holds a DiTPipeline, not one of LuminaPipeline, ")
    assert hint == "hint: `lumina.load` loads those alone; `diffusers.DiTPipeline` may load it"


TINY = {
    "sample_size": 8,
    "hidden_size": 24,
    "num_layers": 1,
    "num_attention_heads": 3,
    "cross_attention_dim": 16,
}


@pytest.mark.parametrize("loader", [DiffusionPipeline, AutoPipelineForText2Image])
@pytest.mark.parametrize("task", ["classes", "original", "template", "rope"])
def test_a_folder_that_diffusers_alone_cannot_open_names_who_can(pipeline, tmp_path, loader, task):
    parts = dict(pipeline.components)
    if task == "classes":
        network = NextDiT(
            sample_size=8, hidden_size=24, num_layers=1, num_attention_heads=2, num_classes=10
        )
        own = LuminaClassPipeline(network, pipeline.scheduler, pipeline.vae)
    elif task == "rope":  # diffusers would turn positions in its own way
        network = NextDiT(**TINY, rope_theta=100.0)
        own = LuminaPipeline(**parts | {"transformer": network})
    elif task == "original":
        own = OriginalLuminaPipeline(**parts | {"scheduler": None})
    else:
        own = LuminaPipeline(**parts, prompt_template="a drawing of {prompt}")
    own.save_pretrained(tmp_path)
    with pytest.raises((AttributeError, ValueError), match=r"lumina\.load"):
        loader.from_pretrained(tmp_path)
    assert type(lumina.load(tmp_path, dtype=torch.float32, device="cpu")) is type(own)
