"""Models by name: what can be loaded, where it is, and with which settings it works well."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lumina.backbones.named import NETWORKS
from lumina.checkpoints.folder import (
    INDEX,
    check_folder,
    fingerprint,
    fingerprint_of,
    read_config,
    read_index,
    read_setting_of,
)
from lumina.errors import LuminaError, UnknownNameError
from lumina.footprint import Footprint
from lumina.hub import fetch, find_in_cache, is_hub_id, tell_consent
from lumina.requests import OF_MODALITIES, read_axes

if TYPE_CHECKING:
    import torch

    from lumina.pipelines.images import ImagePipeline

WEIGHTS = Path(__file__).parent / "weights"
"""Where the models that ship with the package are."""

MODALITY_OF = {kind.pipeline: name for name, kind in OF_MODALITIES.items()}
MODALITY_OF |= {"LuminaRecognitionPipeline": "labels", "OriginalAudioPipeline": "sound"}
"""What pipelines make, where it is not pictures."""

_GEMMA_2B, _LLAMA_2_7B, _T5_LARGE = 2_506_172_416, 6_607_343_616, 334_939_648
"""Weights of the text encoders of released models, without a head."""

_FLAG_DIT_OF_SOUND = 197_940_244


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model that can be asked for by name."""

    name: str
    summary: str
    task: str = "text to image"
    hub_id: str | None = None
    """Where to download it. None is a model that ships with the package."""
    footprint: Footprint | None = None
    """Known before it is downloaded. None is read from the files that ship."""
    defaults: Mapping[str, Any]
    """Settings of `lumina.requests.TextToImage` that suit it better than those declared."""

    def folder(self) -> Path | None:
        """Where its files are on this machine, if they are."""
        return WEIGHTS / self.name if self.hub_id is None else find_in_cache(self.hub_id)


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A model on this machine."""

    folder: Path
    """A whole pipeline in diffusers' layout; or a file or folder that holds a network alone."""
    defaults: Mapping[str, Any]
    is_network: bool = False
    """Whether there is only a network, to which a text encoder and a VAE have to be given."""
    classes: int | None = None
    """How many classes it draws. None is a model of text."""
    is_sequence: bool = False
    """Whether its network is a Flag-DiT, which sees a picture as one sequence, not as a plane."""
    modality: str = "image"
    """What it makes: a name of `lumina.modalities`, or "labels"."""
    is_release: bool = False
    """Whether it is of the files of sound or music as they were released."""

    @property
    def is_recognizer(self) -> bool:
        """Whether it tells what pictures show, instead of making them."""
        return self.modality == "labels"

    def footprint(self) -> Footprint:
        """How much memory it takes, from its files."""
        if self.is_recognizer:
            return Footprint.of_recognizer(self.folder)
        if self.is_release:
            return Footprint(
                parameters=_T5_LARGE + _count_release(self.folder), numbers_per_pixel=0
            )
        of_files = Footprint.of_network if self.is_network else Footprint.of_folder
        return of_files(self.folder)

    def fingerprint(self) -> str:
        """Twelve hex digits that tell its weights from those of another."""
        if self.is_release:
            from lumina.checkpoints.sound import find_checkpoint

            file = find_checkpoint(self.folder)
            return fingerprint_of({file.name: file})
        if not self.is_network:
            return fingerprint(self.folder)
        from lumina.checkpoints.network import find_network

        return fingerprint_of({file.name: file for file in find_network(self.folder, {}).files})


MODELS = {
    model.name: model
    for model in (
        Model(
            name="lumina-mini",
            summary="things on plain backgrounds, at 128x128",
            # It finds as many things in 10 steps as in 30.
            defaults={"size": "128x128", "steps": 12},
        ),
        Model(
            name="lumina-mini-sound",
            summary="23 instruments and 15 effects, 3 seconds long as usual",
            task="text to sound",
            defaults={},
        ),
        Model(
            name="lumina-mini-music",
            summary="scales, melodies and chords in a key, at a tempo, on eight instruments",
            task="text to sound",
            defaults={},
        ),
        Model(
            name="lumina-mini-speech",
            summary="English sentences in three voices, best of 161 words",
            task="text to speech",
            defaults={},
        ),
        Model(
            name="lumina-mini-video",
            summary="clips of 120 things that move, spin, grow, fade or bounce",
            task="text to video",
            defaults={},
        ),
        Model(
            name="lumina-mini-multiview",
            summary="ten kinds of items in eight colors, from up to eight sides",
            task="text to views",
            defaults={},
        ),
        Model(
            name="lumina-mini-points",
            summary="clouds of twelve kinds of solids, of 256 to 8,192 points",
            task="text to points",
            defaults={},
        ),
        Model(
            name="lumina-mini-recognition",
            summary="tells 120 drawings and the ten digits, at any size",
            task="picture to label",
            defaults={},
        ),
        Model(
            name="lumina-next-sft",
            summary="photographs and paintings, at 1024x1024",
            hub_id="Alpha-VLLM/Lumina-Next-SFT-diffusers",
            # Diffusers' file holds the queries of each block twice.
            footprint=Footprint.around(1_754_898_976, _GEMMA_2B),
            defaults={"size": "1024x1024"},
        ),
        Model(
            name="lumina-next-sft-original",
            summary="the same, as the original release draws it",
            hub_id="Alpha-VLLM/Lumina-Next-SFT",
            footprint=Footprint.around(NETWORKS["next-dit-2b-gqa"].parameters, _GEMMA_2B),
            defaults={"size": "1024x1024", "preset": "original"},
        ),
        Model(
            name="lumina-next-t2i",
            summary="photographs and paintings, before the last tuning",
            hub_id="Alpha-VLLM/Lumina-Next-T2I",
            footprint=Footprint.around(NETWORKS["next-dit-2b-gqa"].parameters, _GEMMA_2B),
            defaults={"size": "1024x1024", "preset": "original"},
        ),
        Model(
            name="lumina-t2i",
            summary="photographs and paintings, by the older Flag-DiT",
            hub_id="Alpha-VLLM/Lumina-T2I",
            footprint=Footprint.around(NETWORKS["flag-dit-5b"].parameters, _LLAMA_2_7B),
            defaults={"size": "1024x1024", "preset": "original"},
        ),
        Model(
            name="next-dit-imagenet-600m",
            summary="the 1000 classes of ImageNet, at 256x256",
            task="class to image",
            hub_id="Alpha-VLLM/Next-DiT",
            footprint=Footprint.around(NETWORKS["next-dit-imagenet-600m"].parameters),
            defaults={"size": "256x256"},
        ),
        Model(
            name="lumina-t2audio",
            summary="sounds of all kinds, ten seconds long as usual",
            task="text to sound",
            hub_id="Alpha-VLLM/Lumina-T2Audio",
            footprint=Footprint.around(_FLAG_DIT_OF_SOUND, _T5_LARGE),
            defaults={"seconds": 10.0, "steps": 99, "guidance": 3.0},
        ),
        Model(
            name="lumina-t2music",
            summary="music of all kinds, ten seconds long as usual",
            task="text to sound",
            hub_id="Alpha-VLLM/Lumina-T2Music",
            footprint=Footprint.around(_FLAG_DIT_OF_SOUND, _T5_LARGE),
            defaults={"seconds": 10.0, "steps": 39, "guidance": 5.0},
        ),
    )
}


@dataclass(frozen=True, kw_only=True)
class Part:
    """A text encoder or VAE that released models were trained with."""

    hub_id: str
    is_gated: bool = False
    width: int = 0
    """Of a text encoder's hidden states."""
    scaling_factor: float = 1.0
    """What a VAE's latents are multiplied by."""


TEXT_ENCODERS = {
    "gemma-2b": Part(hub_id="google/gemma-2b", is_gated=True, width=2048),
    "llama-2-7b": Part(hub_id="meta-llama/Llama-2-7b-hf", is_gated=True, width=4096),
}
OF_SOUND = {
    "flan-t5-large": Part(hub_id="google/flan-t5-large", width=1024),
    "t5-v1.1-large": Part(hub_id="google/t5-v1_1-large", width=1024),
    "bert-base-uncased": Part(hub_id="google-bert/bert-base-uncased"),
}
"""What reads texts for the released models of music and of sound."""

AUTOENCODERS = {
    "sdxl": Part(hub_id="stabilityai/sdxl-vae", scaling_factor=0.13025),
    "ema": Part(hub_id="stabilityai/sd-vae-ft-ema", scaling_factor=0.18215),
    "mse": Part(hub_id="stabilityai/sd-vae-ft-mse", scaling_factor=0.18215),
}


def find_part(name: str | Path, known: Mapping[str, Part], *, kind: str, flag: str) -> Path:
    """The folder of a part of a pipeline, if this machine has it.

    Args:
        name: A name in `known`, a model of the catalog that has such a part, a folder, or a hub
            id.
        known: Parts of this kind by name.
        kind: What it is, for errors.
        flag: Which flag names another, for errors.

    Raises:
        UnknownNameError: If it is none of them.
        LuminaError: If it is not on this machine.
    """
    if Path(name).is_dir():
        return Path(name)
    if str(name) in MODELS:
        return find(name).folder
    part = known.get(str(name))
    hub_id = str(name) if part is None else part.hub_id
    if not is_hub_id(hub_id):
        raise UnknownNameError.among([*known, *MODELS], str(name), kind=kind)
    folder = find_in_cache(hub_id)
    if folder is None:
        gated = tell_consent(hub_id) if part is not None and part.is_gated else ""
        raise LuminaError(
            f"the {kind} {hub_id} is not on this machine",
            hint=f"`lumina get {hub_id}` downloads it{gated}; {flag} FOLDER names another",
        )
    return folder


def find(name: str | Path) -> Checkpoint:
    """The model of a name, a folder or a hub id, if this machine has its files.

    Raises:
        UnknownNameError: If it is none of them.
        LuminaError: If the folder is no checkpoint, or the files are not on this machine.
    """
    model = MODELS.get(str(name))
    folder = _find_folder(str(name)) if model is None else model.folder()
    if folder is None:
        where = "" if model else f"there is no folder {name}; if it is the id of a model, "
        raise LuminaError(
            f"{name} is not on this machine", hint=f"{where}`lumina get {name}` downloads it"
        )
    if not (folder / INDEX).is_file():
        release = _find_release(folder)
        if release is not None:
            return release
        network = _find_network(folder)
        return network if model is None else replace(network, defaults=model.defaults)
    index = read_index(folder)
    modality = MODALITY_OF.get(index["_class_name"], "image")
    if modality != "image":
        defaults = {} if model is None else model.defaults
        return Checkpoint(
            folder=folder,
            defaults={**usual_settings(modality, index, folder), **defaults},
            modality=modality,
        )
    if model is not None:
        return Checkpoint(folder=folder, defaults=model.defaults)
    side = read_setting_of(folder / "transformer", "sample_size") * PIXELS_PER_LATENT
    config = read_config(folder / "transformer")
    return Checkpoint(
        folder=folder,
        defaults={"size": f"{side}x{side}"},
        classes=config.get("num_classes"),
        is_sequence=config.get("_class_name") == _FLAG_DIT,
    )


_USUAL = {"steps": "usual_steps", "guidance": "usual_guidance"}
"""Settings of media, and what they are called in the index of a pipeline."""


def usual_settings(modality: str, index: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """What the index of a pipeline says of media that nothing else is asked of."""
    if modality == "labels":
        side = read_setting_of(folder / "transformer", "sample_size")
        return {"size": f"{side}x{side}"}
    size = read_axes(index["usual_size"]) if "usual_size" in index else ()
    chosen = {name: index[key] for name, key in _USUAL.items() if key in index}
    return OF_MODALITIES[modality].usual(size) | chosen


def load(
    name: str | Path,
    *,
    dtype: "str | torch.dtype | None" = None,
    device: str | None = None,
    text_encoder: str | Path | None = None,
    vae: str | Path | None = None,
    preset: str | None = None,
) -> "ImagePipeline":
    """Load a pipeline that is on this machine.

    Args:
        name: A name from `lumina models`, a folder in diffusers' layout, a hub id that was
            downloaded before, or a file or folder with a network alone, in any format that
            `load_backbone` reads.
        dtype: Numbers to compute with. None is bfloat16 where the device is fast at it, else
            float32.
        device: Where to compute. None is the accelerator, or the CPU without one.
        text_encoder: For a network alone: a name, a folder or a hub id. None is what the released
            model of its width was trained with.
        vae: The same for the VAE: "sdxl", "ema", "mse", a folder or a hub id.
        preset: "original" samples as the original release did. None is what suits a named model,
            and for others how diffusers samples.

    Raises:
        LuminaError: If there is no such model, part or device here, or files of the model are
            missing or damaged.
    """
    from lumina.checkpoints.backbone import load_backbone
    from lumina.checkpoints.network import find_network
    from lumina.devices import pick_device, pick_dtype
    from lumina.pipelines.assembly import assemble, check_preset, find_parts, load_folder

    checkpoint = find(name)
    preset = checkpoint.defaults.get("preset") if preset is None else preset
    check_preset(preset)
    place = pick_device(device or "auto")
    numbers = pick_dtype(dtype or "auto", place)
    if checkpoint.is_release:
        from lumina.pipelines.original_audio import OriginalAudioPipeline

        if vae is not None or preset is not None:
            part = "preset" if vae is None else "vae"
            raise LuminaError(
                f"{name}, a model of sound as it was released, takes no {part}", hint="leave it out"
            )
        released = OriginalAudioPipeline.from_release(
            checkpoint.folder, text_encoder=text_encoder, dtype=numbers
        )
        usual = {key: checkpoint.defaults[name] for name, key in _USUAL.items()}
        released.register_to_config(**usual)
        return released.to(place)
    if checkpoint.is_network:
        config = find_network(checkpoint.folder, {}).build().config
        find_parts(config, text_encoder=text_encoder, vae=vae)
        backbone = load_backbone(checkpoint.folder, dtype=numbers)
        pipeline = assemble(backbone, text_encoder=text_encoder, vae=vae, preset=preset)
        return pipeline.to(place)
    for flag, part in (("text_encoder", text_encoder), ("vae", vae)):
        if part is not None:
            raise LuminaError(
                f"{name} has its own {flag}", hint="only a network alone takes another"
            )
    check_folder(checkpoint.folder)
    return load_folder(checkpoint.folder, dtype=numbers, preset=preset).to(place)


def download(name: str) -> Path:
    """Fetch a model from the hub, or what is missing of it, into the cache.

    Args:
        name: A name from `lumina models` or a hub id.

    Returns:
        The folder of the model.

    Raises:
        UnknownNameError: If it is neither.
        LuminaError: If the hub does not have it or cannot be reached.
    """
    model = MODELS.get(name)
    hub_id = name if model is None else model.hub_id
    if hub_id is None:
        return WEIGHTS / name
    if not is_hub_id(hub_id):
        raise _unknown(name)
    return fetch(hub_id)


def list_models() -> list[dict[str, str]]:
    """The catalog as a table: one text for each column of each model."""
    return [_row(model) for model in MODELS.values()]


def list_networks() -> list[dict[str, str]]:
    """The named networks as a table, in the same form."""
    return [
        {
            "name": name,
            "class": network.kind,
            "parameters": f"{network.parameters / 1e6:,.0f} M",
            "original release": network.original,
        }
        for name, network in NETWORKS.items()
    ]


PIXELS_PER_LATENT = 8
_FLAG_DIT = "FlagDiT"


def _row(model: Model) -> dict[str, str]:
    folder = model.folder()
    footprint = model.footprint or find(model.name).footprint()
    size = model.defaults.get("size", "0x0")
    memory = (footprint.bytes(size, bytes_per_number=count) / 1e9 for count in (2, 4))
    files = 0 if folder is None else sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
    return {
        "name": model.name,
        "task": model.task,
        "parameters": f"{footprint.parameters / 1e6:,.0f} M",
        "memory (16/32 bit)": "/".join(map(_round, memory)) + " GB",
        "on disk": f"{_round(files / 1e9)} GB" if folder else f"no: lumina get {model.name}",
        "draws": model.summary,
    }


def _round(size: float) -> str:
    return f"{size:.1f}" if size >= 1 else f"{size:.2f}"


def _find_folder(name: str) -> Path | None:
    folder = Path(name)
    if folder.exists():
        return folder
    if not is_hub_id(name):
        raise _unknown(name)
    return find_in_cache(name)


def _find_network(path: Path) -> Checkpoint:
    """A checkpoint without a text encoder and a VAE."""
    from lumina.checkpoints.network import find_network

    network = find_network(path, {})
    config = network.build().config
    side = config["sample_size"] * PIXELS_PER_LATENT
    return Checkpoint(
        folder=path,
        defaults={"size": f"{side}x{side}"},
        is_network=True,
        classes=config["num_classes"],
        is_sequence=network.kind == _FLAG_DIT,
    )


def _find_release(path: Path) -> Checkpoint | None:
    """A checkpoint of sound or music as it was released, with the settings of its demo."""
    from lumina.checkpoints.sound import CLAP, find_beside, find_checkpoint, is_original_audio

    if not is_original_audio(path):
        return None
    is_sound = find_beside(find_checkpoint(path), CLAP) is not None
    like = "lumina-t2audio" if is_sound else "lumina-t2music"
    return Checkpoint(
        folder=path, defaults=MODELS[like].defaults, modality="sound", is_release=True
    )


def _count_release(path: Path) -> int:
    """Weights of 32 bits in the files of a release."""
    from lumina.checkpoints.sound import CLAP, find_beside, find_checkpoint

    checkpoint = find_checkpoint(path)
    files = [checkpoint, find_beside(checkpoint, CLAP)]
    return sum(file.stat().st_size for file in files if file is not None) // 4


def _unknown(name: str) -> UnknownNameError:
    return UnknownNameError.among(MODELS, name, kind="model")
