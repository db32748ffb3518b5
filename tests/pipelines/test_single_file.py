import argparse
import re

import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import save_file
from transformers import GemmaConfig, GemmaModel

from lumina import LuminaError, LuminaPipeline
from lumina.checkpoints.keys import original_names, to_original


@pytest.fixture
def pipeline(tiny_folder):
    return LuminaPipeline.from_pretrained(tiny_folder)


@pytest.fixture
def draw():
    def draw(pipeline):
        pipeline.set_progress_bar_config(disable=True)
        generator = torch.Generator().manual_seed(3)
        return pipeline(
            "a cat", num_inference_steps=2, generator=generator, output_type="pt"
        ).images

    return draw


def weights_of(model, prefix=""):
    return {prefix + name: weight.clone() for name, weight in model.state_dict().items()}


def parts_of(pipeline):
    return {name: part for name, part in pipeline.components.items() if name != "transformer"}


def test_a_file_of_the_transformer_and_all_else_make_the_same_pictures(pipeline, draw, tmp_path):
    save_file(weights_of(pipeline.transformer, "model.diffusion_model."), tmp_path / "file")
    config = {"sample_size": pipeline.transformer.config.sample_size}
    expected = draw(pipeline)
    # A file of other programs does not tell the size of pictures.
    again = LuminaPipeline.from_single_file(tmp_path / "file", **parts_of(pipeline))
    assert again.transformer.config.sample_size == 128
    again.transformer.register_to_config(**config)
    again = LuminaPipeline(**again.components)
    assert torch.equal(draw(again), expected)


def test_what_is_not_given_comes_from_a_folder(pipeline, draw, tmp_path, tiny_folder):
    save_file(
        weights_of(pipeline.transformer),
        tmp_path / "file",
        metadata={"config": pipeline.transformer.to_json_string()},
    )
    again = LuminaPipeline.from_single_file(tmp_path / "file", config=tiny_folder)
    assert torch.equal(draw(again), draw(pipeline))
    other = AutoencoderKL.from_config(pipeline.vae.config)
    again = LuminaPipeline.from_single_file(tmp_path / "file", config=tiny_folder, vae=other)
    assert again.vae is other


def test_a_folder_of_the_original_release_is_as_good_as_a_file(
    pipeline, draw, tmp_path, tiny_folder
):
    weights = weights_of(pipeline.transformer)
    names = original_names({name: weight.shape for name, weight in weights.items()})
    save_file(to_original(weights, names), tmp_path / "consolidated.00-of-01.safetensors")
    torch.save(argparse.Namespace(image_size=64), tmp_path / "model_args.pth")
    again = LuminaPipeline.from_single_file(tmp_path, config=tiny_folder)
    assert torch.equal(draw(again), draw(pipeline))


# How the code of latent diffusion calls the parts of an autoencoder of four levels.
LATENT_DIFFUSION = (
    (r"encoder\.down_blocks\.(\d)\.resnets\.(\d)", r"encoder.down.\1.block.\2"),
    (r"encoder\.down_blocks\.(\d)\.downsamplers\.0", r"encoder.down.\1.downsample"),
    (r"decoder\.up_blocks\.(\d)\.resnets\.(\d)", r"decoder.up.\1.block.\2"),
    (r"decoder\.up_blocks\.(\d)\.upsamplers\.0", r"decoder.up.\1.upsample"),
    (r"decoder\.up\.(\d)", lambda match: f"decoder.up.{3 - int(match[1])}"),
    (r"mid_block\.resnets\.0", "mid.block_1"),
    (r"mid_block\.resnets\.1", "mid.block_2"),
    (r"mid_block\.attentions\.0\.group_norm", "mid.attn_1.norm"),
    (r"mid_block\.attentions\.0\.to_([qkv])", r"mid.attn_1.\1"),
    (r"mid_block\.attentions\.0\.to_out\.0", "mid.attn_1.proj_out"),
    (r"conv_norm_out", "norm_out"),
    (r"conv_shortcut", "nin_shortcut"),
)


def as_latent_diffusion(weights):
    renamed = {}
    for name, weight in weights.items():
        if "attentions" in name and weight.ndim == 2:
            weight = weight[..., None, None]  # a convolution there
        for pattern, other in LATENT_DIFFUSION:
            name = re.sub(pattern, other, name)
        renamed[name] = weight
    return renamed


@pytest.mark.parametrize(
    ("prefix", "rename"),
    [("vae.", dict), ("first_stage_model.", as_latent_diffusion)],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_a_vae_in_the_file_is_used(pipeline, tmp_path, tiny_folder, prefix, rename):
    with torch.no_grad():
        for weight in pipeline.vae.parameters():
            weight.normal_()
    vae = {prefix + name: weight for name, weight in rename(weights_of(pipeline.vae)).items()}
    save_file(weights_of(pipeline.transformer, "model.diffusion_model.") | vae, tmp_path / "file")
    again = LuminaPipeline.from_single_file(tmp_path / "file", config=tiny_folder)
    expected = pipeline.vae.state_dict()
    assert all(torch.equal(w, expected[name]) for name, w in again.vae.state_dict().items())
    with pytest.raises(LuminaError, match="holds a VAE without its configuration"):
        LuminaPipeline.from_single_file(tmp_path / "file")


def test_a_vae_that_is_not_whole_or_another_one_is_refused(pipeline, tmp_path, tiny_folder):
    weights = weights_of(pipeline.transformer, "model.diffusion_model.")
    vae = weights_of(pipeline.vae, "vae.")
    del vae["vae.decoder.conv_out.bias"]
    save_file(weights | vae, tmp_path / "file")
    with pytest.raises(LuminaError, match="weights of its VAE are missing"):
        LuminaPipeline.from_single_file(tmp_path / "file", config=tiny_folder)
    vae = {name: weight.repeat_interleave(2, dim=0) for name, weight in vae.items()}
    save_file(weights | vae, tmp_path / "file")
    with pytest.raises(LuminaError, match="VAE is not the one that .* describes"):
        LuminaPipeline.from_single_file(tmp_path / "file", config=tiny_folder)


def test_a_dtype_is_that_of_all_that_is_loaded(pipeline, tmp_path, tiny_folder):
    save_file(weights_of(pipeline.transformer), tmp_path / "file")
    for name in ("dtype", "torch_dtype"):
        again = LuminaPipeline.from_single_file(
            tmp_path / "file", config=tiny_folder, **{name: torch.bfloat16}
        )
        for part in (again.transformer, again.vae, again.text_encoder):
            assert part.dtype == torch.bfloat16


def test_missing_parts_are_named_with_what_to_pass(pipeline, tmp_path):
    save_file(weights_of(pipeline.transformer), tmp_path / "file")
    with pytest.raises(LuminaError, match="holds no tokenizer, vae, scheduler") as caught:
        LuminaPipeline.from_single_file(tmp_path / "file", text_encoder=pipeline.text_encoder)
    assert "vae=..." in caught.value.hint
    with pytest.raises(LuminaError, match="no part 'encoder'"):
        LuminaPipeline.from_single_file(tmp_path / "file", encoder=pipeline.text_encoder)


def test_a_text_encoder_of_another_width_is_refused(pipeline):
    wide = GemmaModel(
        GemmaConfig(
            vocab_size=300,
            hidden_size=24,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=8,
        )
    )
    told = r"reads texts of width 16 .*, and GemmaModel gives 24"
    with pytest.raises(LuminaError, match=told):
        LuminaPipeline(**pipeline.components | {"text_encoder": wide})


def test_a_quantized_file_makes_nearly_the_same_pictures(pipeline, draw, tmp_path, tiny_folder):
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(str(tmp_path / "file.gguf"), "lumina")
    kind = gguf.GGMLQuantizationType.Q8_0
    for name, weight in weights_of(pipeline.transformer).items():
        data = weight.numpy()
        if data.ndim == 2 and data.shape[1] % 32 == 0:
            writer.add_tensor(name, gguf.quantize(data, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    again = LuminaPipeline.from_single_file(tmp_path / "file.gguf", config=tiny_folder)
    again.default_sample_size, again.default_image_size = 8, 64
    assert again.transformer.is_quantized
    exact, found = draw(pipeline), draw(again)
    assert not torch.equal(found, exact)
    assert (found - exact).abs().max() < 0.05
