import logging
import re

import pytest
import torch
from safetensors.torch import save_file

from lumina import FlagDiT, LuminaError, load_backbone
from lumina.checkpoints.parts import find_parts

# How the original code builds each layer, in the words of fairscale, on whose documentation it is
# up along which axis of the weight a layer is split.
COLUMN_PARALLEL = (
    r"x_embedder",
    r"t_embedder\.mlp\.0",
    r"cap_embedder\.1",
    r"adaLN_modulation\.1",
    r"final_layer\.linear",
    r"attention\.w[qkv](_y)?",
    r"feed_forward\w*\..*w[13]",
)
ROW_PARALLEL = (r"t_embedder\.mlp\.2", r"attention\.wo", r"feed_forward\w*\..*w2")
OTHERS_BY_HEAD = (r"attention\.(q|k|ky)_norm", r"attention\.gate")


def axis_of(name):
    if any(re.search(pattern, name) for pattern in (*COLUMN_PARALLEL, *OTHERS_BY_HEAD)):
        return 0
    if any(re.search(pattern, name) for pattern in ROW_PARALLEL):
        return None if name.endswith("bias") else 1
    return 1 if "embedding_table" in name else None


def split(weights, count, *, whole=()):
    """Each weight in equal parts, but for those that each part holds whole."""
    parts = [{} for _ in range(count)]
    for name, weight in weights.items():
        axis = None if name.startswith(tuple(whole)) else axis_of(name)
        pieces = [weight] * count if axis is None else weight.chunk(count, dim=axis)
        for part, piece in zip(parts, pieces, strict=True):
            part[name] = piece.clone()
    return parts


def save(folder, parts, *, stem="consolidated", suffix="pth"):
    for number, part in enumerate(parts):
        path = folder / f"{stem}.{number:02}-of-{len(parts):02}.{suffix}"
        (torch.save if suffix == "pth" else save_file)(part, path)


def assert_same(model, expected):
    found = model.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_parts_of_every_network_are_put_together(tmp_path, every_model, as_original, suffix):
    weights = as_original(every_model)
    if "proj_in.weight" in weights:
        pytest.skip("the original code of sound cannot split a model")
    save(tmp_path, split(weights, 2), suffix=suffix)
    told = {"num_attention_heads": 6, "patch_size": every_model.config["patch_size"]}
    if every_model.config.get("moe_routing"):
        told["moe_routing"] = every_model.config["moe_routing"]
    assert_same(load_backbone(tmp_path, told), every_model.state_dict())


def test_a_model_may_be_in_many_parts_with_heads_of_their_own(tmp_path, make_model, as_original):
    model = make_model(FlagDiT, hidden_size=64, num_attention_heads=8, num_kv_heads=4)
    save(tmp_path, split(as_original(model), 4))
    assert_same(load_backbone(tmp_path), model.state_dict())


def test_layers_that_each_part_holds_whole_are_taken_once(tmp_path, make_model, as_original):
    model = make_model()
    save(tmp_path, split(as_original(model), 2, whole=("x_embedder", "t_embedder", "cap_")))
    assert_same(load_backbone(tmp_path), model.state_dict())


def test_any_part_stands_for_all(tmp_path, make_model, as_original):
    model = make_model()
    save(tmp_path, split(as_original(model), 2))
    path = tmp_path / "consolidated.01-of-02.pth"
    assert_same(load_backbone(path), model.state_dict())


def test_averaged_weights_and_safetensors_come_first(tmp_path, make_model, as_original):
    weights = as_original(make_model())
    for stem in ("consolidated", "consolidated_ema"):
        for suffix in ("pth", "safetensors"):
            save(tmp_path, split(weights, 2), stem=stem, suffix=suffix)
    assert [file.name for file in find_parts(tmp_path)] == [
        "consolidated_ema.00-of-02.safetensors",
        "consolidated_ema.01-of-02.safetensors",
    ]


def test_missing_parts_are_named(tmp_path, make_model, as_original):
    model = make_model(hidden_size=64, num_attention_heads=8, num_kv_heads=4)
    save(tmp_path, split(as_original(model), 4))
    for number in (1, 3):
        (tmp_path / f"consolidated.{number:02}-of-04.pth").unlink()
    with pytest.raises(LuminaError, match=r"lacks consolidated\.01-of-04\.pth, consolidated\.03"):
        load_backbone(tmp_path)


def test_parts_of_several_models_are_refused(tmp_path, make_model, as_original):
    weights = as_original(make_model())
    save(tmp_path, split(weights, 1))
    save(tmp_path, split(weights, 2))
    with pytest.raises(LuminaError, match="parts of several models: of 01 and of 02"):
        load_backbone(tmp_path)


def test_parts_that_do_not_belong_together_are_refused(tmp_path, make_model, as_original):
    first, _ = split(as_original(make_model()), 2)
    _, second = split(as_original(make_model(num_layers=1)), 2)
    save(tmp_path, [first, second])
    with pytest.raises(LuminaError, match="no parts of one model"):
        load_backbone(tmp_path)
    _, second = split(as_original(make_model(cross_attention_dim=16)), 2)
    save(tmp_path, [first, second])
    with pytest.raises(LuminaError, match="parts of .* have the shapes"):
        load_backbone(tmp_path)


def test_norms_over_a_part_of_the_heads_are_told(tmp_path, make_model, as_original, caplog):
    with caplog.at_level(logging.WARNING, logger="lumina"):
        save(tmp_path, split(as_original(make_model(qk_norm=False)), 2))
        load_backbone(tmp_path)
        assert not caplog.records
        save(tmp_path, split(as_original(make_model()), 2))
        load_backbone(tmp_path)
    assert "normalised queries and keys each on its own" in caplog.text
