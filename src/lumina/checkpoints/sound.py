"""The models of sound and music of the original release: one checkpoint and its vocoder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from lumina.backbones.flag_dit import FlagDiT
from lumina.checkpoints.headers import AGAIN
from lumina.checkpoints.keys import from_original
from lumina.checkpoints.original import infer_config
from lumina.checkpoints.weights import Weight, Weights, open_file, read_pickle
from lumina.encoders.audio_text import ClapTextEncoder
from lumina.errors import LuminaError
from lumina.modalities.sound.autoencoder import MelAutoencoder
from lumina.modalities.sound.vocoder import BigVGAN, without_weight_norm

CHECKPOINTS = ("*.ckpt", "*/*.ckpt", "*/*/*.ckpt", "*.safetensors")
CLAP = Path("CLAP") / "CLAP_weights_2022.pth"
VOCODER, VOCODER_SETTINGS = "best_netG.pt", "args.yml"


class SoundModels(NamedTuple):
    """What a checkpoint holds; the vocoder is None where there is none beside it."""

    transformer: FlagDiT
    autoencoder: MelAutoencoder
    vocoder: BigVGAN | None


def load_original_audio(path: str | Path) -> SoundModels:
    """Load a model of sound or music as it was released, in float32 on the CPU.

    Args:
        path: The checkpoint (`maa2.ckpt`); or a folder with one in it or in one of its folders
            (`maa2/maa2.ckpt`, `music_generation/119.ckpt`). The vocoder is looked for as
            `bigvnat/best_netG.pt` there and in the folder above.

    Raises:
        LuminaError: If a file is missing or damaged, would run code, or holds something else.
    """
    file = find_checkpoint(Path(path))
    weights = open_file(file)
    transformer = _load_transformer(_under(weights, "model.diffusion_model.", file))
    autoencoder = load_original_autoencoder(
        _under(weights, "first_stage_model.", file), scaling_factor=_scale(weights)
    )
    folder = find_vocoder(file)
    return SoundModels(transformer, autoencoder, folder and load_original_vocoder(folder))


def load_original_autoencoder(weights: Weights, *, scaling_factor: float = 1.0) -> MelAutoencoder:
    """Load the autoencoder of mel spectrograms.

    Args:
        weights: Under their own names: `encoder.`, `decoder.`, `quant_conv.`, `post_quant_conv.`
        scaling_factor: What latents are multiplied by.

    Raises:
        LuminaError: If they are not those of such an autoencoder.
    """
    try:
        config = infer_autoencoder({name: weight.shape for name, weight in weights.items()})
    except KeyError as error:
        raise LuminaError(f"this is no autoencoder of sound: it lacks {error}") from error
    model = MelAutoencoder(**config, scaling_factor=scaling_factor)
    return _fill(model, {name: weight.read() for name, weight in weights.items()})


def infer_autoencoder(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Arguments of an autoencoder whose weights have these names and shapes.

    Raises:
        KeyError: If one that all have is missing.
    """
    width, bands, kernel_size = shapes["encoder.conv_in.weight"]
    levels = _count(shapes, "encoder.down.#.block.0.conv1.weight")
    halved = [
        level for level in range(levels) if f"encoder.down.{level}.downsample.conv.weight" in shapes
    ]
    return {
        "in_channels": bands,
        "latent_channels": shapes["post_quant_conv.weight"][1],
        "width": width,
        "multipliers": [
            shapes[f"encoder.down.{level}.block.0.conv2.weight"][0] // width
            for level in range(levels)
        ],
        "blocks": _count(shapes, "encoder.down.0.block.#.conv1.weight"),
        "kernel_size": kernel_size,
        "halved_levels": halved,
        "has_attention": "encoder.mid.attn_1.q.weight" in shapes,
    }


def load_original_vocoder(folder: Path) -> BigVGAN:
    """Load BigVGAN from `best_netG.pt`, built as `args.yml` beside it says.

    Raises:
        LuminaError: If a file is missing or damaged, or the vocoder is another one.
    """
    config = _vocoder_config(folder / VOCODER_SETTINGS)
    content = read_pickle(folder / VOCODER)
    weights = content.get("generator") if isinstance(content, dict) else None
    if not isinstance(weights, dict):
        raise LuminaError(f"{folder / VOCODER} holds no generator", hint=AGAIN)
    return _fill(BigVGAN(**config), without_weight_norm(weights))


def is_original_audio(path: Path) -> bool:
    """Whether a file or folder is a checkpoint of sound or music as it was released."""
    files = [path] if path.is_file() else [f for some in CHECKPOINTS for f in path.glob(some)]
    return any(file.suffix == ".ckpt" and _is_whole(open_file(file)) for file in files)


def find_beside(checkpoint: Path, name: str | Path) -> Path | None:
    """A file or folder that belongs to a file of weights, if it is near.

    The file may be a link to one elsewhere, as all are in the cache of the hub.
    """
    above = checkpoint.absolute().parents
    return next((found for place in above[:2] if (found := place / name).exists()), None)


def load_original_clap(file: Path) -> ClapTextEncoder:
    """Load the part of CLAP that reads texts.

    Raises:
        LuminaError: If the file is damaged, or holds something else.
    """
    content = read_pickle(file)
    weights = content.get("model", content) if isinstance(content, dict) else {}
    named = {
        name.removeprefix(_CAPTIONS): weight
        for name, weight in weights.items()
        if name.startswith(_CAPTIONS) and not name.endswith("position_ids")
    }
    try:
        config = _infer_clap({name: tuple(weight.shape) for name, weight in named.items()})
    except KeyError as error:
        raise LuminaError(f"{file} is no CLAP: it lacks {error}", hint=AGAIN) from error
    return _fill(ClapTextEncoder(**config), named)


_CAPTIONS = "caption_encoder."


def _infer_clap(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    words, width = shapes["base.embeddings.word_embeddings.weight"]
    bert = {
        "vocab_size": words,
        "hidden_size": width,
        "num_hidden_layers": _count(shapes, "base.encoder.layer.#.output.dense.weight"),
        "num_attention_heads": max(1, width // 64),
        "intermediate_size": shapes["base.encoder.layer.0.intermediate.dense.weight"][0],
        "max_position_embeddings": shapes["base.embeddings.position_embeddings.weight"][0],
    }
    return {"bert": bert, "out_width": shapes["projection.linear1.weight"][0]}


def find_vocoder(checkpoint: Path) -> Path | None:
    """The folder of the vocoder that belongs to a checkpoint, if it is near."""
    found = find_beside(checkpoint, Path("bigvnat") / VOCODER)
    return None if found is None else found.parent


_PASSED_ON = (
    "num_mels",
    "upsample_initial_channel",
    "upsample_rates",
    "upsample_kernel_sizes",
    "resblock_kernel_sizes",
    "resblock_dilation_sizes",
    "snake_logscale",
)
_RENAMED = {"audio_num_mel_bins": "num_mels"}
_BUILT = {"resblock": "1", "activation": "snakebeta"}
"""The one kind of BigVGAN that was released."""


def find_checkpoint(path: Path) -> Path:
    """The checkpoint in a folder, or the file itself.

    Raises:
        LuminaError: If there is none.
    """
    if path.is_file():
        return path
    found = [file for pattern in CHECKPOINTS for file in sorted(path.glob(pattern))]
    # A checkpoint of the autoencoder alone may lie beside that of the whole model.
    found = [file for file in found if _is_whole(open_file(file))] if len(found) > 1 else found
    if not found:
        raise LuminaError(
            f"{path} holds no model of sound", hint="give the folder that has maa2/maa2.ckpt"
        )
    return found[0]


def _is_whole(weights: Weights) -> bool:
    return any(name.startswith("model.diffusion_model.") for name in weights)


def _under(weights: Weights, prefix: str, file: Path) -> dict[str, Weight]:
    found = {
        name.removeprefix(prefix): weight
        for name, weight in weights.items()
        if name.startswith(prefix) and not name.startswith(f"{prefix}loss.")
    }
    if not found:
        raise LuminaError(f"{file} holds nothing under {prefix}, as models of sound do", hint=AGAIN)
    return found


def _scale(weights: Weights) -> float:
    return weights["scale_factor"].read().item() if "scale_factor" in weights else 1.0


def _load_transformer(weights: Weights) -> FlagDiT:
    # A table of the rotary angles, which are computed here.
    named = {name: weight for name, weight in weights.items() if name != "freqs_cis"}
    try:
        kind, config = infer_config({name: weight.shape for name, weight in named.items()})
    except KeyError as error:
        raise LuminaError(f"this is no model of sound: {error} does not fit") from error
    if kind != "FlagDiT":
        raise LuminaError(f"this is a {kind}, and models of sound are FlagDiT")
    tensors = {name: weight.read() for name, weight in named.items()}
    return _fill(FlagDiT(**config), from_original(tensors))


def _vocoder_config(file: Path) -> dict[str, Any]:
    try:
        settings = yaml.safe_load(file.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise LuminaError(f"cannot read {file}", hint=AGAIN) from error
    if not isinstance(settings, dict):
        raise LuminaError(f"{file} holds no settings", hint=AGAIN)
    for name, value in _BUILT.items():
        if str(settings.get(name, value)) != value:
            raise LuminaError(
                f"{file}: {name} is {settings[name]!r}", hint=f"only {value!r} is built here"
            )
    named = {_RENAMED.get(name, name): value for name, value in settings.items()}
    return {name: named[name] for name in _PASSED_ON if name in named}


def _fill(model: Any, tensors: Mapping[str, Any]) -> Any:
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    if missing or unexpected:
        name = (missing or unexpected)[0]
        what = "lacks" if missing else "has besides"
        raise LuminaError(f"the {type(model).__name__} {what} {name}", hint=AGAIN)
    return model.eval()


def _count(shapes: Mapping[str, Any], pattern: str) -> int:
    number = 0
    while pattern.replace("#", str(number)) in shapes:
        number += 1
    return number
