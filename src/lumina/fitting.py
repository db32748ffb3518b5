"""Whether a request fits its model and the machine."""

import dataclasses
import math
from collections.abc import Mapping
from functools import partial
from typing import Any

from lumina.catalog import Checkpoint
from lumina.errors import LuminaError
from lumina.footprint import Footprint
from lumina.requests import (
    ADAPTIVE,
    OF_MODALITIES,
    ImageRequest,
    MediaRequest,
    Panorama,
    TextRequest,
    nearest_size,
    read_size,
)
from lumina.settings import names_of

TILED_SHARE = 0.3
"""How much of the memory of decoding is left in tiles, at most."""


def check_wish(
    settings: Mapping[str, Any], given: Mapping[str, Any], checkpoint: Checkpoint, *, model: str
) -> None:
    """Refuse what a model of the other kind is asked for by; `model` is how it was named."""
    label = settings.get("class_label")
    if checkpoint.classes is None:
        if label is not None:
            raise LuminaError(f"{model} draws prompts, not classes", hint="leave --class-label out")
        return
    if "prompt" in given or label is None:
        raise LuminaError(
            f"{model} draws classes, not prompts",
            hint=f"give --class-label, 0 to {checkpoint.classes - 1}, and no prompt",
        )
    if label >= checkpoint.classes:
        raise LuminaError(
            f"class_label is {label}, which is out of range",
            hint=f"allowed: 0 to {checkpoint.classes - 1}",
        )


def settings_for(kind: type[ImageRequest]) -> list[str]:
    """Settings that mean something for a kind of request."""
    without: set[str] = set()
    if issubclass(kind, MediaRequest) and not kind.has_size:
        without |= {"size"}
    if not issubclass(kind, TextRequest):  # the presets are for pictures from texts
        without |= {"preset"}
    return [name for name in names_of(kind) if name not in without]


def refuse_others(
    given: Mapping[str, Any], names: list[str], checkpoint: Checkpoint, *, model: str
) -> None:
    """Refuse settings that requests to models of this kind do not have."""
    makes = f"is a model of {_MADE.get(checkpoint.modality, checkpoint.modality)}"
    if checkpoint.classes is not None:
        makes = "draws classes"
    for name in given:
        if name not in names:
            raise LuminaError(
                f"{model} {makes}, for which {_flag(name)} has no meaning",
                hint=f"leave {_flag(name)} out{_tell_owners(name)}",
            )


_MADE = {"image": "pictures"}


def _tell_owners(name: str) -> str:
    """Models of which media have a setting."""
    owners = [modality for modality, kind in OF_MODALITIES.items() if name in settings_for(kind)]
    return f"; it is for models of {' or '.join(owners)}" if owners else ""


def refuse_misfits(request: ImageRequest, given: Mapping[str, Any], checkpoint: Checkpoint) -> None:
    """Refuse settings that mean nothing for a solver, or for a model.

    Args:
        request: All settings.
        given: Those that were chosen.
        checkpoint: The model.

    Raises:
        LuminaError: If there are any.
    """
    _refuse_unread(request, checkpoint)
    _refuse_steps(request, given)
    _refuse_own_parts(request, checkpoint)
    _refuse_planes(request, checkpoint)
    _refuse_one_window(request, checkpoint)
    _refuse_one_stage(request, checkpoint)


def choose_device(request: ImageRequest, footprint: Footprint) -> ImageRequest:
    """The request with the device and dtype that will be used."""
    from lumina.devices import free_memory, pick_device, pick_dtype

    device = pick_device(request.device)
    dtype = pick_dtype(request.dtype, device)
    if request.size is not None:
        _refuse_too_large(request, footprint, dtype.itemsize, free_memory(device))
    names = {"device": str(device), "dtype": str(dtype).removeprefix("torch.")}
    return dataclasses.replace(request, **names)


def _refuse_unread(request: ImageRequest, checkpoint: Checkpoint) -> None:
    """Refuse a prompt of which cleaning leaves nothing, by models whose prompts are cleaned."""
    from lumina.encoders.cleaning import clean_caption

    is_flag_dit = checkpoint.is_sequence and isinstance(request, TextRequest)
    if request.preset or is_flag_dit or checkpoint.is_release or checkpoint.modality == "speech":
        return
    texts = [getattr(request, name, None) for name in ("prompt", "to_prompt")]
    for text in (*texts, *getattr(request, "prompts", ())):
        if text and not clean_caption(text):
            raise LuminaError(
                f"nothing of the prompt {text!r} is read: brackets, names of files, addresses and"
                " the like are left out",
                hint='say what to make in words: "a red apple"',
            )


def _refuse_steps(request: ImageRequest, given: Mapping[str, Any]) -> None:
    """Refuse a number of steps for a solver that chooses it; the usual one has no effect there."""
    if request.solver in ADAPTIVE and "steps" in given:
        raise LuminaError(
            f"the solver {request.solver} chooses its steps itself, and steps says how many",
            hint="leave one out; --tolerance says how exact it is",
        )


def _refuse_one_window(request: ImageRequest, checkpoint: Checkpoint) -> None:
    """Refuse a panorama that is seen as a whole anyway."""
    if not isinstance(request, Panorama) or request.around:
        return
    width, height = read_size(str(request.size))
    own = checkpoint.defaults["size"]
    own_width, own_height = read_size(own)
    if width <= own_width and height <= own_height:
        raise LuminaError(
            f"{request.size} is no more than the model draws at once ({own}), so that there is"
            " only one part",
            hint="ask for a wider picture, or use `lumina generate`",
        )


def _refuse_one_stage(request: ImageRequest, checkpoint: Checkpoint) -> None:
    """Refuse a second stage for a picture that the first one draws as a whole."""
    if not getattr(request, "two_stage", False):
        return
    own = checkpoint.defaults["size"]
    width, height = read_size(own)
    if math.prod(read_size(str(request.size))) <= width * height:
        raise LuminaError(
            f"{request.size} is no more than the model draws at once ({own}), so that there is"
            " only one stage",
            hint=f"add --size {2 * width}x{2 * height}, or leave --two-stage out",
        )


def _refuse_own_parts(request: ImageRequest, checkpoint: Checkpoint) -> None:
    """Refuse parts for a model that has them."""
    comes_alone = checkpoint.is_network or checkpoint.is_release
    for name in () if comes_alone else ("text_encoder", "vae"):
        if getattr(request, name, None) is not None:
            flag = _flag(name)
            raise LuminaError(
                f"{request.model} has what {flag} names",
                hint=f"leave {flag} out: only a network alone takes another",
            )


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _refuse_planes(request: ImageRequest, checkpoint: Checkpoint) -> None:
    """Refuse settings for a plane where a model sees one sequence."""
    if not (checkpoint.is_sequence and isinstance(request, TextRequest)):
        return
    if request.scale_by == "axis":
        raise LuminaError(
            f"positions of {request.model}, a Flag-DiT, have one axis, which cannot be scaled"
            " by each side",
            hint="use --scale-by area",
        )
    if request.context_drop not in (None, "none"):
        raise LuminaError(
            f"context drop averages over a plane, and {request.model}, a Flag-DiT, sees one"
            " sequence",
            hint="leave --context-drop out",
        )


def _refuse_too_large(
    request: ImageRequest, footprint: Footprint, bytes_per_number: int, available: int
) -> None:
    is_tiled = isinstance(request, TextRequest) and request.tiled
    share = TILED_SHARE if is_tiled else 1
    numbers = round(footprint.numbers_per_pixel * share * len(request.labels))
    footprint = dataclasses.replace(footprint, numbers_per_pixel=numbers)
    frames = request.pictures_at_once
    needed = partial(footprint.bytes, bytes_per_number=bytes_per_number, frames=frames)
    largest = size = str(request.size)
    if needed(size) <= available:
        return
    while needed(largest) > available and largest != "16x16":
        width, height = read_size(largest)
        largest = "{}x{}".format(*nearest_size(width * 0.9, height * 0.9))
    many = f" of {frames} pictures" if frames > 1 else ""
    raise LuminaError(
        f"size {size}{many} needs about {needed(size) / 1e9:,.0f} GB of memory,"
        f" and {available / 1e9:.0f} GB are free",
        hint=f"the nearest that fits is about {largest}",
    )
