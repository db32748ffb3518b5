import copy

import pytest
import torch
from peft import LoraConfig

from lumina import LuminaPipeline


def relative_error(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


def test_layers_stored_in_8_bits_compute_in_the_dtype_asked_for(network, run):
    expected = run(network)
    network.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
    stored = {name for name, weight in network.named_parameters() if weight.dtype.itemsize == 1}
    assert "layers.0.attn1.to_q.weight" in stored
    assert "layers.1.feed_forward.linear_2.weight" in stored
    assert not any("norm" in name or "patch_embedder" in name for name in stored)
    # 3 bits of fraction in each weight.
    assert 0 < relative_error(run(network), expected) < 0.2


def test_pictures_can_be_drawn_with_layers_stored_in_8_bits(pipeline, draw):
    pipeline.transformer.enable_layerwise_casting(
        storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32
    )
    assert draw(pipeline).isfinite().all()


@pytest.mark.parametrize(
    "settings",
    [{"offload_type": "block_level", "num_blocks_per_group": 1}, {"offload_type": "leaf_level"}],
    ids=lambda settings: settings["offload_type"],
)
def test_offloading_groups_of_layers_changes_no_output(network, run, settings):
    expected = run(network)
    network.enable_group_offload(
        onload_device=torch.device("cpu"), offload_device=torch.device("cpu"), **settings
    )
    assert torch.equal(run(network), expected)


def test_offloading_groups_to_disk_changes_no_output(network, run, tmp_path):
    expected = run(network)
    network.enable_group_offload(
        onload_device=torch.device("cpu"),
        offload_type="leaf_level",
        offload_to_disk_path=str(tmp_path),
    )
    assert torch.equal(run(network), expected)


def test_offloading_groups_of_every_part_changes_no_picture(pipeline, draw):
    expected = draw(pipeline)
    pipeline.enable_group_offload(onload_device=torch.device("cpu"), offload_type="leaf_level")
    assert torch.equal(draw(pipeline), expected)


def test_an_adapter_loads_where_groups_are_offloaded(pipeline, draw):
    pipeline.transformer.enable_group_offload(
        onload_device=torch.device("cpu"), offload_type="leaf_level"
    )
    before = draw(pipeline)
    weights = {
        "transformer.layers.0.attn1.to_q.lora_A.weight": torch.ones(1, 48),
        "transformer.layers.0.attn1.to_q.lora_B.weight": torch.ones(48, 1),
    }
    pipeline.load_lora_weights(weights)
    assert not torch.equal(draw(pipeline), before)
    pipeline.unload_lora_weights()
    assert torch.equal(draw(pipeline), before)


@pytest.mark.gpu
@pytest.mark.parametrize(
    "offload", ["enable_model_cpu_offload", "enable_sequential_cpu_offload", "enable_group_offload"]
)
def test_offloading_on_a_gpu_changes_no_picture(pipeline, draw, offload):
    expected = draw(copy.deepcopy(pipeline).to("cuda")).cpu()
    arguments = {}
    if offload == "enable_group_offload":
        arguments = {"onload_device": torch.device("cuda"), "offload_type": "leaf_level"}
    getattr(pipeline, offload)(**arguments)
    # The same kernels, where a seed means the same noise.
    assert relative_error(draw(pipeline).cpu(), expected) < 1e-4


@pytest.mark.parametrize("device_map", ["auto", {"": "cpu"}])
def test_a_network_loads_where_a_device_map_says(network, run, tmp_path, device_map):
    network.save_pretrained(tmp_path)
    loaded = type(network).from_pretrained(tmp_path, device_map=device_map)
    assert loaded.hf_device_map == {"": "cpu"}
    assert torch.equal(run(loaded), run(network))


def test_a_network_is_split_between_blocks_alone(deep_network, run, tmp_path):
    deep_network.save_pretrained(tmp_path)
    loaded = type(deep_network).from_pretrained(
        tmp_path,
        device_map="auto",
        max_memory={"cpu": int(0.7 * deep_network.get_memory_footprint())},
        offload_folder=tmp_path / "offloaded",
    )
    places = loaded.hf_device_map
    blocks = {name: place for name, place in places.items() if name.startswith("layers.")}
    assert set(blocks.values()) == {"cpu", "disk"}
    assert blocks.keys() == {f"layers.{number}" for number in range(6)}
    assert torch.equal(run(loaded), run(deep_network))


@pytest.mark.parametrize("device_map", ["balanced", "cpu"])
def test_a_pipeline_loads_where_a_device_map_says(pipeline, draw, tmp_path, device_map):
    pipeline.save_pretrained(tmp_path)
    loaded = LuminaPipeline.from_pretrained(tmp_path, device_map=device_map)
    assert torch.equal(draw(loaded), draw(pipeline))


def gradients(model):
    """Of a loss of the output, for each weight that learns."""
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(2, 4, 8, 8, generator=generator)
    text = torch.randn(2, 5, 16, generator=generator)
    model.zero_grad()
    model(latents, torch.tensor([0.2, 0.9]), text).sample.square().mean().backward()
    found = {name: weight.grad for name, weight in model.named_parameters()}
    return {name: gradient.clone() for name, gradient in found.items() if gradient is not None}


@pytest.mark.parametrize("has_adapter", [False, True], ids=["all weights", "an adapter"])
def test_checkpointing_changes_no_gradient(network, has_adapter):
    network.train()
    if has_adapter:
        network.add_adapter(LoraConfig(r=2, target_modules=["to_q", "linear_2", "norm1.linear"]))
        with torch.no_grad():
            for name, weight in network.named_parameters():
                if "lora_B" in name:
                    weight.fill_(0.05)
    expected = gradients(network)
    assert has_adapter == all("lora" in name for name in expected)
    calls = []
    network.layers[0].register_forward_pre_hook(lambda *_: calls.append(1))
    network.enable_gradient_checkpointing()
    found = gradients(network)
    assert len(calls) == 2
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
