"""A complete checkpoint at tiny sizes, saved by diffusers and opened by both pipelines."""

import diffusers
import pytest
import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, LuminaNextDiT2DModel
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import GemmaConfig, GemmaModel, PreTrainedTokenizerFast

from lumina.pipelines.text_to_image import LuminaPipeline


def make_tokenizer(*, adds_bos: bool = True) -> PreTrainedTokenizerFast:
    """One token for each byte, padded on the left as Gemma's."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate(["<pad>", "<bos>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if adds_bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<bos> $A", special_tokens=[("<bos>", 1)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<bos>", padding_side="left"
    )


def randomise(model: torch.nn.Module) -> None:
    """Move every parameter, so that zero gates and unit norms hide nothing."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.nan_to_num() * 0.5 + torch.randn_like(parameter) * 0.2)


def make_components() -> dict:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformer = LuminaNextDiT2DModel(
            sample_size=8,
            hidden_size=24,
            num_layers=2,
            num_attention_heads=3,
            num_kv_heads=1,
            multiple_of=16,
            cross_attention_dim=16,
        )
        randomise(transformer)
        text_encoder = GemmaModel(
            GemmaConfig(
                vocab_size=300,
                hidden_size=16,
                intermediate_size=32,
                num_hidden_layers=3,
                num_attention_heads=2,
                num_key_value_heads=1,
                head_dim=8,
                pad_token_id=0,
                bos_token_id=1,
            )
        )
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(4, 4, 4, 4),
            layers_per_block=1,
            norm_num_groups=2,
            latent_channels=4,
            sample_size=64,
        )
    return {
        "transformer": transformer,
        "scheduler": FlowMatchEulerDiscreteScheduler(),
        "vae": vae,
        "text_encoder": text_encoder,
        "tokenizer": make_tokenizer(),
    }


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A checkpoint for 64x64 pixels, as diffusers saves it."""
    path = tmp_path_factory.mktemp("checkpoint")
    diffusers.LuminaPipeline(**make_components()).save_pretrained(path)
    return path


@pytest.fixture
def tokenizer_without_bos():
    return make_tokenizer(adds_bos=False)


def quiet(pipeline):
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture
def ours(folder):
    return quiet(LuminaPipeline.from_pretrained(folder))


@pytest.fixture
def theirs(folder):
    return quiet(diffusers.LuminaPipeline.from_pretrained(folder))


@pytest.fixture
def draw():
    """Sample latents from a seed, in two steps unless told otherwise."""

    def draw(pipeline, prompt="a red apple", *, seed=7, **arguments):
        defaults = {
            "num_inference_steps": 2,
            "output_type": "latent",
            "generator": torch.Generator().manual_seed(seed),
        }
        return pipeline(prompt, **defaults | arguments).images

    return draw


@pytest.fixture
def assert_same():
    """Compare latents at the tolerance that parity with diffusers is held to."""

    def assert_same(ours, theirs, *, tolerance=1e-4):
        assert ours.shape == theirs.shape
        assert (ours - theirs).abs().max() / theirs.abs().max() <= tolerance

    return assert_same
