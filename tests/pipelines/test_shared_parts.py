"""Models that ship have parts of each other, and open by their classes as by `lumina.load`."""

import shutil

import pytest
import torch

import lumina
from lumina import LuminaError, LuminaPipeline
from lumina.catalog import WEIGHTS

CLASSES = {
    "lumina-mini-video": lumina.LuminaVideoPipeline,  # whose network is told by a difference
    "lumina-mini-multiview": lumina.LuminaMultiViewPipeline,
    "lumina-mini-points": lumina.LuminaPointCloudPipeline,
    "lumina-mini-music": lumina.LuminaAudioPipeline,  # of which a base has parts of its own base
    "lumina-mini-speech": lumina.LuminaSpeechPipeline,
}


def models(pipeline):
    return {
        name: part
        for name, part in pipeline.components.items()
        if isinstance(part, torch.nn.Module)
    }


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, None])
def test_parts_of_other_models_are_found(name, dtype):
    source = name if dtype is None else WEIGHTS / name
    options = {} if dtype is None else {"dtype": dtype}
    opened = CLASSES[name].from_pretrained(source, **options)
    expected = lumina.load(name, dtype=dtype or "float32", device="cpu")
    assert type(opened) is type(expected)
    assert opened.components.keys() == expected.components.keys()
    for part, model in models(expected).items():
        own = models(opened)[part]
        assert (own.dtype, own.training) == (model.dtype, False)
        weights = own.state_dict()
        assert all(torch.equal(weights[key], value) for key, value in model.state_dict().items())


def test_parts_that_are_given_are_taken(tmp_path):
    known = lumina.load("lumina-mini-points", dtype="float32", device="cpu")
    folder = tmp_path / "points"  # whose base is not there, and is not needed
    shutil.copytree(WEIGHTS / "lumina-mini-points", folder)
    index = (folder / "model_index.json").read_text().replace('"lumina-mini"', '"absent"')
    (folder / "model_index.json").write_text(index)
    given = {name: known.components[name] for name in ("text_encoder", "tokenizer")}
    opened = lumina.LuminaPointCloudPipeline.from_pretrained(folder, **given)
    assert opened.text_encoder is known.text_encoder
    with pytest.raises(LuminaError, match="parts of absent, which is not there"):
        lumina.LuminaPointCloudPipeline.from_pretrained(folder)


def test_each_part_is_of_the_numbers_that_are_asked_for_it():
    numbers = {"default": torch.bfloat16, "text_encoder": torch.float32}
    opened = lumina.LuminaPointCloudPipeline.from_pretrained("lumina-mini-points", dtype=numbers)
    assert opened.transformer.dtype == torch.bfloat16
    assert opened.text_encoder.dtype == torch.float32


def test_a_model_of_pictures_opens_by_its_name():
    pipeline = LuminaPipeline.from_pretrained("lumina-mini")
    assert pipeline.transformer.dtype == torch.float32
    original = lumina.OriginalLuminaPipeline.from_pretrained("lumina-mini")
    assert original.scheduler.config.solver == "midpoint"


def test_a_model_that_is_not_here_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(LuminaError, match="lumina-next-sft is not on this machine"):
        LuminaPipeline.from_pretrained("lumina-next-sft")
