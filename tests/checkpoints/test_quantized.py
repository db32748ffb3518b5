import pytest
import torch

from lumina import FlagDiT, LuminaError, NextDiT, load_backbone
from lumina.checkpoints.convert import convert
from lumina.checkpoints.description import describe

gguf = pytest.importorskip("gguf")
from diffusers.quantizers.gguf.utils import GGUFLinear  # noqa: E402  (it imports gguf)

WIDE = {"hidden_size": 64, "num_attention_heads": 4, "num_kv_heads": 4, "multiple_of": 32}


def write(path, weights, kind="Q8_0"):
    """As user interfaces do: matrices quantized, everything else in float32."""
    kind = gguf.GGMLQuantizationType[kind]
    writer = gguf.GGUFWriter(str(path), "lumina")
    for name, weight in weights.items():
        data = weight.float().numpy()
        if data.ndim == 2 and data.shape[1] % gguf.GGML_QUANT_SIZES[kind][0] == 0:
            data = gguf.quantize(data, kind)
            writer.add_tensor(name, data, raw_dtype=kind)
        else:
            writer.add_tensor(name, data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@torch.no_grad()
def run(model, config):
    torch.manual_seed(1)
    inputs = [torch.randn(1, 4, 8, 8), torch.tensor([0.3])]
    if config.num_classes is not None:
        return model(*inputs, class_labels=torch.tensor([2])).sample
    return model(*inputs, torch.randn(1, 5, config.cross_attention_dim)).sample


@pytest.mark.parametrize(
    ("kind", "settings"),
    [(NextDiT, {}), (FlagDiT, {}), (NextDiT, {"num_classes": 5, "moe_routing": "space"})],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
@pytest.mark.parametrize("naming", ["ours", "original"])
def test_a_quantized_network_computes_nearly_the_same(
    tmp_path, make_model, plain, as_original, kind, settings, naming
):
    model = make_model(kind, **WIDE | settings)
    with torch.no_grad():  # at the size of trained weights, where rounding does not add up
        for weight in model.parameters():
            weight.mul_(0.2)
    weights = plain(model) if naming == "ours" else as_original(model)
    again = load_backbone(write(tmp_path / "file.gguf", weights), {"num_attention_heads": 4})
    assert type(again) is kind
    assert isinstance(again.layers[1].attn1.to_q, GGUFLinear)
    assert again.is_quantized
    exact, found = run(model, model.config), run(again, model.config)
    # Numbers of 8 bits are rounded by 1/250 of the largest of each block of 32.
    assert (found - exact).norm() < 0.03 * exact.norm()
    assert not torch.equal(found, exact)


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q4_0"])
def test_every_way_of_quantizing_loads(tmp_path, make_model, as_original, kind):
    model = make_model(**WIDE)
    again = load_backbone(write(tmp_path / "file.gguf", as_original(model), kind))
    assert run(again, model.config).isfinite().all()


def test_a_dtype_is_that_of_the_computation(tmp_path, make_model, as_original):
    path = write(tmp_path / "file.gguf", as_original(make_model(**WIDE)))
    model = load_backbone(path, dtype=torch.bfloat16)
    assert model.layers[0].attn1.to_q.compute_dtype == torch.bfloat16
    assert model.layers[0].norm2.weight.dtype == torch.bfloat16
    inputs = [torch.randn(1, 4, 8, 8), torch.tensor([0.3]), torch.randn(1, 5, 32)]
    with torch.no_grad():
        output = model(inputs[0].bfloat16(), inputs[1], inputs[2].bfloat16()).sample
    assert output.dtype == torch.bfloat16


def test_a_quantized_file_is_described_and_not_converted(tmp_path, make_model, as_original):
    path = write(tmp_path / "file.gguf", as_original(make_model(**WIDE)))
    facts = describe(path)
    assert facts["format"] == "gguf"
    assert facts["missing"] == facts["unexpected"] == []
    assert facts["config"]["hidden_size"] == 64
    with pytest.raises(LuminaError, match="is quantized"):
        convert(path, tmp_path / "folder")


def test_a_damaged_file_is_refused(tmp_path, make_model, as_original):
    path = write(tmp_path / "file.gguf", as_original(make_model(**WIDE)))
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(LuminaError, match="is damaged"):
        load_backbone(path)
