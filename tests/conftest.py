"""What many tests stand on: a complete checkpoint at tiny sizes, and a world of patterns."""

import shutil

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import GemmaConfig, GemmaModel, PreTrainedTokenizerFast

from lumina import (
    LuminaError,
    LuminaPipeline,
    LuminaRecognitionPipeline,
    NextDiT,
    NextDiTClassifier,
)
from lumina.worlds.drawings import find_font
from lumina.worlds.recognition import Gallery


def _tokenizer() -> PreTrainedTokenizerFast:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate(["<pad>", "<bos>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<bos>", padding_side="left"
    )


def _transformer() -> NextDiT:
    transformer = NextDiT(
        sample_size=8,
        hidden_size=24,
        num_layers=2,
        num_attention_heads=3,
        num_kv_heads=1,
        multiple_of=16,
        cross_attention_dim=16,
    )
    # Gates, modulation and output begin at zero, where every picture would be noise.
    for parameter in transformer.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.3)
    return transformer


@pytest.fixture(scope="session")
def soundfont():
    """Skip tests of generated sounds where what plays them is not installed."""
    from lumina.worlds.soundfont import play

    try:
        play([], 0.1)
    except LuminaError as error:
        pytest.skip(f"{error}: {error.hint}")


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    """A random checkpoint for 64x64 pixels, in diffusers' layout. Not to be changed."""
    folder = tmp_path_factory.mktemp("checkpoints") / "tiny"
    with torch.random.fork_rng():
        torch.manual_seed(0)
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
        pipeline = LuminaPipeline(
            transformer=_transformer(),
            scheduler=FlowMatchEulerDiscreteScheduler(),
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=_tokenizer(),
        )
    pipeline.save_pretrained(folder)
    return folder


@pytest.fixture
def own_folder(tiny_folder, tmp_path):
    """A copy of the checkpoint that a test may damage."""
    return shutil.copytree(tiny_folder, tmp_path / "own")


@pytest.fixture(scope="session")
def font():
    """Skip where there is no font to draw emoji with."""
    try:
        return find_font()
    except LuminaError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def patterns():
    """Emoji with a drawing each that no font is needed for: a patchwork of random colors."""
    rng = np.random.default_rng(0)
    things = "🍕🐱🐶🚗🍎🌲🌞🎈🎁🎸🏀📷💎🔑🔔🚲🚀🐸🐻🐼🐧🐢🐙🦋🌵🍄🍓🍇🍌🍉🥕🧀🍩🎂👑👟👓🎩🌂💡"
    return {
        thing: Image.fromarray(
            np.dstack([rng.integers(0, 256, (5, 5, 3)), np.full((5, 5), 255)]).astype(np.uint8)
        ).resize((int(rng.integers(50, 101)), 100), Image.Resampling.NEAREST)
        for thing in things
    }


@pytest.fixture(scope="session")
def gallery(patterns):
    """Four patterns, and two kinds of strokes of ink of two drawings each."""
    strokes = [
        Image.fromarray((np.eye(8)[:, :: -1 if flipped else 1] * level).astype(np.uint8))
        for flipped in (False, True)
        for level in (200, 255)
    ]
    drawings = [(pattern.convert("RGBA"),) for pattern in list(patterns.values())[:4]]
    inks = [tuple(strokes[:2]), tuple(strokes[2:])]
    names = ("pizza", "cat", "dog", "car", "falling", "rising")
    return Gallery(names, (*drawings, *inks))


@pytest.fixture(scope="session")
def recognizer_folder(tmp_path_factory, gallery):
    """A random network that tells the classes of `gallery`. Not to be changed."""
    folder = tmp_path_factory.mktemp("checkpoints") / "recognizer"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = NextDiTClassifier(
            num_classes=len(gallery.names),
            sample_size=16,
            patch_size=4,
            hidden_size=24,
            num_layers=2,
            num_attention_heads=3,
            multiple_of=16,
            rope_theta=100.0,
        )
        for parameter in network.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.3)
    labels = {str(number): name for number, name in enumerate(gallery.names)}
    LuminaRecognitionPipeline(network, labels).save_pretrained(folder)
    return folder
