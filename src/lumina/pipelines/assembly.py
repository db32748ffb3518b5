"""A pipeline around a network that comes alone, as those of the original release do."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

import lumina
from lumina.backbones.flag_dit import FlagDiT
from lumina.backbones.next_dit import NextDiT
from lumina.backbones.transformer import FlowTransformer
from lumina.catalog import AUTOENCODERS, TEXT_ENCODERS, find_part
from lumina.checkpoints.folder import part_folder, read_index, variant_of
from lumina.checkpoints.text_encoder import load_text_encoder
from lumina.errors import LuminaError, UnknownNameError
from lumina.pipelines.class_to_image import LuminaClassPipeline
from lumina.pipelines.images import ImagePipeline
from lumina.pipelines.original import LuminaFlagPipeline, OriginalLuminaPipeline
from lumina.pipelines.text_to_image import LuminaPipeline
from lumina.requests import OF_MODALITIES, PRESETS

TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")
"""Files of which each is the vocabulary of a tokenizer."""


def assemble(
    backbone: FlowTransformer,
    *,
    text_encoder: str | Path | None = None,
    vae: str | Path | None = None,
    preset: str | None = None,
    modality: str = "image",
    size: Sequence[int] = (),
) -> ImagePipeline:
    """Put a text encoder, a VAE and a scheduler around a network.

    Args:
        backbone: What `load_backbone` gave. Its kind says which pipeline it is for.
        text_encoder: A name, a folder or a hub id on this machine. None is what the released
            model of this width was trained with. Has no effect for models of classes.
        vae: The same for the VAE.
        preset: "original" samples as the release did. None is how diffusers samples; a Flag-DiT
            is sampled as the release did in any case.
        modality: What the network makes, where it is not pictures.
        size: Of its media, where nothing else is asked for.

    Raises:
        LuminaError: If a part is not on this machine, or does not fit the network.
    """
    check_preset(preset)
    dtype = backbone.dtype
    if modality != "image":
        encoder, tokenizer = None, None
        if backbone.config["num_classes"] is None:
            encoder, tokenizer = _load_text_encoder(text_encoder, backbone, dtype)
        kind = getattr(lumina, OF_MODALITIES[modality].pipeline)
        folder = Path() if vae is None else vae_folder(vae)
        return kind.around(backbone, encoder, tokenizer, folder, size)
    decoder = _load_vae(vae, backbone, dtype)
    scheduler = FlowMatchEulerDiscreteScheduler()
    if backbone.config["num_classes"] is not None:
        if preset is not None:
            raise LuminaError("models of classes have no preset", hint="leave it out")
        return LuminaClassPipeline(cast(NextDiT, backbone), scheduler, decoder)
    encoder, tokenizer = _load_text_encoder(text_encoder, backbone, dtype)
    if isinstance(backbone, FlagDiT):
        return LuminaFlagPipeline(backbone, None, decoder, encoder, tokenizer)
    if preset is not None:
        return OriginalLuminaPipeline(cast(NextDiT, backbone), None, decoder, encoder, tokenizer)
    return LuminaPipeline(cast(NextDiT, backbone), scheduler, decoder, encoder, tokenizer)


def load_folder(folder: Path, *, dtype: torch.dtype, preset: str | None) -> Any:
    """Load a whole pipeline in diffusers' layout, as the class that its index names.

    Raises:
        LuminaError: If the preset is not for pipelines of this class.
    """
    name = read_index(folder)["_class_name"]
    kind = getattr(lumina, name.replace("Text2Img", ""))  # an older name of `LuminaPipeline`
    if preset is not None and not issubclass(kind, OriginalLuminaPipeline):
        if not issubclass(kind, LuminaPipeline):
            owner = "models of classes have" if kind is LuminaClassPipeline else f"{name} has"
            raise LuminaError(f"{owner} no preset", hint="leave it out")
        kind = OriginalLuminaPipeline
    return kind.from_pretrained(
        folder, dtype=dtype, variant=variant_of(folder), local_files_only=True
    )


def check_preset(preset: str | None) -> None:
    """Refuse a preset that does not exist.

    Raises:
        UnknownNameError: If it does not.
    """
    if preset is not None and preset not in PRESETS:
        raise UnknownNameError.among(PRESETS, preset, kind="preset")


def find_parts(
    config: Mapping[str, Any], *, text_encoder: str | Path | None, vae: str | Path | None
) -> None:
    """Refuse parts that are not on this machine, before the weights of a network are read.

    Args:
        config: Of the network.
        text_encoder: As in `assemble`.
        vae: As in `assemble`.

    Raises:
        LuminaError: If one is not.
    """
    _find_vae(vae, config)
    if config["num_classes"] is None:
        _find_text_encoder(text_encoder, config)


def vae_folder(source: str | Path) -> Path:
    """Folder of the weights of a VAE, by the name, folder or hub id of it or of a model.

    Raises:
        LuminaError: If it is not on this machine.
    """
    return _within(find_part(source, AUTOENCODERS, kind="VAE", flag="--vae"), "vae")


def text_encoder_folder(source: str | Path) -> Path:
    """Folder of the weights of a text encoder, by the name, folder or hub id of it or of a model.

    Raises:
        LuminaError: If it is not on this machine.
    """
    return _within(_text_part(source), "text_encoder")


def tokenizer_folder(source: str | Path) -> Path:
    """Folder of the tokenizer of a text encoder.

    Raises:
        LuminaError: If it is not on this machine, or the folder has none.
    """
    folder = _within(_text_part(source), "tokenizer")
    # Transformers makes a tokenizer without any words of a folder that has none.
    if not any((folder / name).is_file() for name in TOKENIZERS):
        raise LuminaError(
            f"{folder} has no tokenizer: none of {', '.join(TOKENIZERS)}",
            hint="name the folder that holds the folders text_encoder and tokenizer",
        )
    return folder


def _text_part(source: str | Path) -> Path:
    return find_part(source, TEXT_ENCODERS, kind="text encoder", flag="--text-encoder")


def _within(folder: Path, part: str) -> Path:
    own = part_folder(folder, part)
    return own if own.is_dir() else folder


def _find_vae(source: str | Path | None, config: Mapping[str, Any]) -> tuple[str | Path, Path]:
    name = source or ("sdxl" if config["num_classes"] is None else "ema")
    return name, find_part(name, AUTOENCODERS, kind="VAE", flag="--vae")


def _find_text_encoder(
    source: str | Path | None, config: Mapping[str, Any]
) -> tuple[str | Path, Path]:
    width = config["cross_attention_dim"]
    known = {part.width: name for name, part in TEXT_ENCODERS.items()}
    if source is None and width not in known:
        raise LuminaError(
            f"the network reads texts of width {width}, which no known text encoder has",
            hint="name the text encoder that it was trained with: --text-encoder",
        )
    name = source or known[width]
    return name, _text_part(name)


def _load_vae(
    source: str | Path | None, backbone: FlowTransformer, dtype: torch.dtype
) -> AutoencoderKL:
    name, folder = _find_vae(source, backbone.config)
    folder = _within(folder, "vae")
    vae = _read(lambda: AutoencoderKL.from_pretrained(folder, dtype=dtype), "VAE", folder)
    if str(name) in AUTOENCODERS:
        vae.register_to_config(scaling_factor=AUTOENCODERS[str(name)].scaling_factor)
    channels, wanted = vae.config["latent_channels"], backbone.config["in_channels"]
    if channels != wanted:
        raise LuminaError(
            f"the VAE {name} has {channels} latent channels, and the network takes {wanted}",
            hint="give the VAE that the network was trained with: --vae",
        )
    return vae


def _load_text_encoder(
    source: str | Path | None, backbone: FlowTransformer, dtype: torch.dtype
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    width = backbone.config["cross_attention_dim"]
    name, folder = _find_text_encoder(source, backbone.config)
    model_folder, words_folder = _within(folder, "text_encoder"), tokenizer_folder(name)
    encoder = _read(
        lambda: load_text_encoder(model_folder, dtype=dtype), "text encoder", model_folder
    )
    # The older release ends texts with a mark; the later one does not.
    options = {"add_eos_token": True} if isinstance(backbone, FlagDiT) else {}
    tokenizer = _read(
        lambda: AutoTokenizer.from_pretrained(words_folder, **options), "tokenizer", words_folder
    )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
    if encoder.config.hidden_size != width:
        raise LuminaError(
            f"the text encoder {name} is {encoder.config.hidden_size} wide, and the network reads"
            f" texts of width {width}",
            hint="give the text encoder that the network was trained with: --text-encoder",
        )
    return encoder, tokenizer


def _read(load: Any, kind: str, folder: Path) -> Any:
    try:
        return load()
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise LuminaError(
            f"{folder} holds no {kind} that can be loaded: {reason}",
            hint="give a folder that `save_pretrained` wrote, or a hub id",
        ) from error
