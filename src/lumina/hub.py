"""Models on the Hugging Face hub: which of them are on this machine, and how others get here."""

import re
from pathlib import Path

from lumina.checkpoints.folder import INDEX
from lumina.errors import LuminaError

# What the hub allows: no run of dots or dashes, none at an end.
_HUB_ID = re.compile(r"\w+(?:[.-]\w+)*/\w+(?:[.-]\w+)*")
_OF_SOUND = ["*.ckpt", "*bigvnat/*", "*CLAP/*"]  # as sound and music were released
_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "model_args.pth", "consolidated*.pth"]
_WEIGHTS = ("*.safetensors", "*.pth", "*.ckpt")
_KNOWN = (INDEX, "config.json", "consolidated*", "*/*.ckpt", "*/*/*.ckpt")
"""Files of which each tells a format that can be loaded."""


def is_hub_id(name: str) -> bool:
    """Whether a text may be the id of a model."""
    return _HUB_ID.fullmatch(name) is not None


def find_in_cache(hub_id: str) -> Path | None:
    """The folder of a model that was downloaded, if it holds any of the known formats."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(hub_id, local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    return folder if any(file for name in _KNOWN for file in folder.glob(name)) else None


def fetch(hub_id: str) -> Path:
    """Download a model, or what is missing of it, into the cache, and return its folder.

    Raises:
        LuminaError: If the hub does not have it or cannot be reached.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
    )

    try:
        folder = Path(snapshot_download(hub_id, allow_patterns=_FILES + _OF_SOUND))
        if not any(file for name in _WEIGHTS for file in folder.rglob(name)):
            # Some older text encoders, such as T5 v1.1, are there in PyTorch's format alone.
            snapshot_download(hub_id, allow_patterns=["pytorch_model*.bin"])
        return folder
    except GatedRepoError as error:
        raise LuminaError(
            f"the hub asks for your consent before it gives {hub_id}",
            hint=f"`lumina get {hub_id}` downloads it{tell_consent(hub_id)}",
        ) from error
    except HfHubHTTPError as error:
        raise LuminaError(
            f"the hub does not give {hub_id}: {error.response.status_code}",
            hint="check the id; log in with `hf auth login` if the model asks for it",
        ) from error
    except (LocalEntryNotFoundError, OSError) as error:
        raise LuminaError(
            f"cannot download {hub_id}", hint="check the network and the free disk space"
        ) from error


def tell_consent(hub_id: str) -> str:
    """What has to be done before a model is downloaded that asks for consent."""
    page = f"https://huggingface.co/{hub_id}"
    return f" once you accept its licence at {page} and log in with `hf auth login`"
