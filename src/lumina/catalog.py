"""Models by name: what can be loaded, where it is, and with which settings it works well."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lumina.checkpoints.folder import (
    INDEX,
    check_folder,
    count_parameters,
    read_index,
    read_setting_of,
)
from lumina.errors import LuminaError, UnknownNameError
from lumina.requests import read_size

if TYPE_CHECKING:
    import torch

    from lumina.pipelines.text_to_image import LuminaPipeline

WEIGHTS = Path(__file__).parent / "weights"
"""Where the models that ship with the package are."""


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """How much memory a model takes."""

    parameters: int
    numbers_per_pixel: int
    """Numbers alive for each pixel while the picture is decoded, which takes more than a step."""

    def bytes(self, size: str, *, bytes_per_number: int) -> int:
        """Bytes that making a picture of this size takes, weights included."""
        width, height = read_size(size)
        return (self.parameters + width * height * self.numbers_per_pixel) * bytes_per_number


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
        return WEIGHTS / self.name if self.hub_id is None else _in_cache(self.hub_id)


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A model on this machine."""

    folder: Path
    defaults: Mapping[str, Any]

    def footprint(self) -> Footprint:
        """How much memory it takes, from its files."""
        channels = read_setting_of(self.folder / "vae", "block_out_channels")
        # The last upsampling works on the channels of the block before it.
        widest = channels[min(1, len(channels) - 1)]
        return Footprint(
            parameters=count_parameters(self.folder), numbers_per_pixel=_COPIES * widest
        )


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
            name="lumina-next-sft",
            summary="photographs and paintings, at 1024x1024",
            hub_id="Alpha-VLLM/Lumina-Next-SFT-diffusers",
            # Transformer, Gemma 2B and the autoencoder of SDXL.
            footprint=Footprint(
                parameters=1_754_898_976 + 2_506_172_416 + 83_653_863, numbers_per_pixel=1024
            ),
            defaults={"size": "1024x1024"},
        ),
    )
}


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
    read_index(folder)
    if model is not None:
        return Checkpoint(folder=folder, defaults=model.defaults)
    side = read_setting_of(folder / "transformer", "sample_size") * PIXELS_PER_LATENT
    return Checkpoint(folder=folder, defaults={"size": f"{side}x{side}"})


def load(
    name: str | Path, *, dtype: "str | torch.dtype | None" = None, device: str | None = None
) -> "LuminaPipeline":
    """Load a pipeline that is on this machine.

    Args:
        name: A name from `lumina models`, a folder in diffusers' layout, or a hub id that was
            downloaded before.
        dtype: Numbers to compute with. None is bfloat16 where the device is fast at it, else
            float32.
        device: Where to compute. None is the accelerator, or the CPU without one.

    Raises:
        LuminaError: If there is no such model or device here, or files of the model are missing
            or damaged.
    """
    from lumina.devices import pick_device, pick_dtype
    from lumina.pipelines.text_to_image import LuminaPipeline

    folder = find(name).folder
    place = pick_device(device or "auto")
    numbers = pick_dtype(dtype or "auto", place)
    check_folder(folder)
    pipeline = LuminaPipeline.from_pretrained(folder, dtype=numbers, local_files_only=True)
    return pipeline.to(place)


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
    if not _HUB_ID.fullmatch(hub_id):
        raise _unknown(name)

    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(hub_id, allow_patterns=_FILES))
    except HfHubHTTPError as error:
        raise LuminaError(
            f"the hub does not give {hub_id}: {error.response.status_code}",
            hint="check the id; log in with `hf auth login` if the model asks for it",
        ) from error
    except (LocalEntryNotFoundError, OSError) as error:
        raise LuminaError(
            f"cannot download {hub_id}", hint="check the network and the free disk space"
        ) from error


def list_models() -> list[dict[str, str]]:
    """The catalog as a table: one text for each column of each model."""
    return [_row(model) for model in MODELS.values()]


PIXELS_PER_LATENT = 8

_COPIES = 4
"""Pictures of the widest channels that a decoder holds at once."""

# What the hub allows: no run of dots or dashes, none at an end.
_HUB_ID = re.compile(r"\w+(?:[.-]\w+)*/\w+(?:[.-]\w+)*")
_FILES = ["*.json", "*.safetensors", "*.model", "*.txt"]


def _row(model: Model) -> dict[str, str]:
    folder = model.folder()
    footprint = model.footprint or find(model.name).footprint()
    size = model.defaults["size"]
    memory = (footprint.bytes(size, bytes_per_number=count) / 1e9 for count in (2, 4))
    files = 0 if folder is None else sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
    return {
        "name": model.name,
        "task": model.task,
        "parameters": f"{footprint.parameters / 1e6:,.0f} M",
        "memory (16/32 bit)": "{:.1f}/{:.1f} GB".format(*memory),
        "on disk": f"{files / 1e9:.2f} GB" if folder else f"no: lumina get {model.name}",
        "draws": model.summary,
    }


def _find_folder(name: str) -> Path | None:
    folder = Path(name)
    if folder.is_dir():
        return folder
    if folder.is_file():
        raise LuminaError(f"{name} is a file", hint=f"give the folder that holds {INDEX}")
    if not _HUB_ID.fullmatch(name):
        raise _unknown(name)
    return _in_cache(name)


def _in_cache(hub_id: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    index = try_to_load_from_cache(hub_id, INDEX)
    return Path(index).parent if isinstance(index, str) else None


def _unknown(name: str) -> UnknownNameError:
    return UnknownNameError.among(MODELS, name, kind="model")
