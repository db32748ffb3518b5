import pytest
import torch

from lumina.backbones.blocks import StepCache
from lumina.backbones.flag_dit import FlagDiT
from lumina.nn.extrapolation import RopeScaling

TINY = {
    "sample_size": 8,
    "hidden_size": 48,
    "num_layers": 2,
    "num_attention_heads": 6,
    "num_kv_heads": 2,
    "multiple_of": 16,
    "cross_attention_dim": 32,
}
SHAPES = {
    "sequence": ({"patch_size": 1, "has_line_token": False}, (2, 4, 13)),
    "picture": ({}, (2, 4, 8, 12)),
    "video": ({"has_frame_token": True}, (2, 4, 3, 4, 6)),
}


def make_model(**config):
    torch.manual_seed(0)
    model = FlagDiT(**TINY | config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.2)
    return model


def make_text():
    torch.manual_seed(1)
    mask = torch.ones(2, 7)
    mask[1, 4:] = 0
    return {
        "timestep": torch.tensor([0.2, 0.9]),
        "encoder_hidden_states": torch.randn(2, 7, 32),
        "encoder_mask": mask,
    }


@pytest.mark.parametrize("kind", SHAPES)
@torch.no_grad()
def test_every_kind_of_data_comes_out_in_its_shape(kind):
    config, shape = SHAPES[kind]
    model = make_model(**config, learn_sigma=False)
    assert model(torch.randn(shape), **make_text()).sample.shape == shape


@pytest.mark.parametrize("kind", SHAPES)
def test_tokens_are_put_back_where_they_were_taken_from(kind):
    config, shape = SHAPES[kind]
    model = make_model(**config, learn_sigma=False)
    data = torch.randn(shape)
    values = 4 * model.patch_size**2
    model.patch_embedder.proj = torch.nn.Identity()
    for name in ("line_token", "frame_token"):
        if getattr(model, name) is not None:
            setattr(model, name, torch.nn.Parameter(torch.full((values,), torch.nan)))
    tokens = model._tokens(data)
    # Patches come in as (channel, row, column) and go out as (row, column, channel).
    size = model.patch_size
    tokens = tokens.unflatten(-1, (4, size, size)).movedim(2, -1).flatten(2)
    assert torch.equal(model._data(tokens, data), data)


@torch.no_grad()
def test_each_row_and_each_frame_ends_with_its_token():
    model = make_model(has_frame_token=True)
    tokens = model._tokens(torch.randn(1, 4, 3, 4, 6))[0]  # 3 frames of 2 rows of 3 patches
    is_line = (tokens == model.line_token).all(-1).tolist()
    is_frame = (tokens == model.frame_token).all(-1).tolist()
    assert is_line == (([False] * 3 + [True]) * 2 + [False]) * 3
    assert is_frame == ([False] * 8 + [True]) * 3


@torch.no_grad()
def test_samples_of_different_sizes_are_what_they_are_alone():
    model, text = make_model(), make_text()
    samples = [torch.randn(4, 8, 12), torch.randn(4, 6, 4)]
    together = model(samples, **text).sample
    for number, sample in enumerate(samples):
        alone = {name: value[number : number + 1] for name, value in text.items()}
        found = model(sample.unsqueeze(0), **alone).sample[0]
        torch.testing.assert_close(together[number], found)


@torch.no_grad()
def test_a_cache_changes_no_output_from_step_to_step():
    model, text, cache = make_model(), make_text(), StepCache()
    x = torch.randn(2, 4, 8, 12)
    expected = model(x, **text).sample
    for _ in range(2):
        torch.testing.assert_close(model(x, **text, cache=cache).sample, expected)


@torch.no_grad()
def test_positions_can_be_stretched():
    model, text, x = make_model(), make_text(), torch.randn(2, 4, 8, 12)
    plain = model(x, **text).sample
    assert not torch.allclose(model(x, **text, rope=RopeScaling(linear=2.0)).sample, plain)
    assert not torch.allclose(model(x, **text, rope=RopeScaling(ntk=2.0)).sample, plain)


def test_gradient_checkpointing_changes_no_gradient():
    model, text, x = make_model(), make_text(), torch.randn(2, 4, 8, 12)
    gradients = []
    for checkpointed in (False, True):
        if checkpointed:
            model.enable_gradient_checkpointing()
        model.zero_grad()
        model(x, **text).sample.square().mean().backward()
        gradients.append([w.grad for w in model.parameters() if w.grad is not None])
    torch.testing.assert_close(*gradients)


@torch.no_grad()
def test_a_saved_model_loads_again(tmp_path):
    model, text, x = make_model(), make_text(), torch.randn(2, 4, 8, 12)
    model.save_pretrained(tmp_path)
    again = FlagDiT.from_pretrained(tmp_path)
    torch.testing.assert_close(again(x, **text).sample, model(x, **text).sample)


@pytest.mark.parametrize(
    ("config", "inputs", "told"),
    [
        ({}, {"encoder_hidden_states": None}, "needs `encoder_hidden_states`"),
        ({"num_classes": 5, "has_line_token": False}, {}, "needs `class_labels`"),
    ],
)
def test_a_missing_condition_is_named(config, inputs, told):
    with pytest.raises(ValueError, match=told):
        make_model(**config)(torch.randn(2, 4, 8, 12), **make_text() | inputs)


def test_latents_of_half_a_patch_are_refused():
    with pytest.raises(ValueError, match="do not divide into patches of 2 x 2"):
        make_model()(torch.randn(2, 4, 8, 11), **make_text())
