"""What pictures show: any sizes in, the most probable labels out."""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from diffusers import DiffusionPipeline
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from lumina.backbones.recognizer import NextDiTClassifier, Recognition
from lumina.catalog import find, load
from lumina.checkpoints.folder import OPENED_BY_US
from lumina.errors import LuminaError
from lumina.media import open_picture, see_on
from lumina.modalities.labels import Guess, rank, to_tensor
from lumina.pipelines import checks

MOST_PIXELS = 512 * 512
"""Of a picture: with patches of 8 pixels these are 4,096 tokens, all of which see each other."""

MOST_PATCHES = 8192
"""Of a picture, where its sides are no multiples of a patch."""

TOP = 5
"""How many labels are told."""

_TOKENS_AT_ONCE = 4096

Picture = str | Path | Image.Image | UInt8[np.ndarray, "_ _ 3"]
Pictures = Picture | Sequence[Picture] | UInt8[np.ndarray, "_ _ _ 3"]


class LuminaRecognitionPipeline(DiffusionPipeline):
    """Tell what pictures show, each at its own size and aspect ratio.

    Args:
        transformer: What was trained to tell classes.
        id2label: The name of each class, by its number as text. None names them by numbers.

    Raises:
        ValueError: If there are more or fewer names than classes.
    """

    model_cpu_offload_seq = "transformer"

    def __init__(
        self, transformer: NextDiTClassifier | None, id2label: dict[str, str] | None = None
    ):
        super().__init__()
        if transformer is not None and id2label is not None:
            classes = transformer.config["num_classes"]
            if set(id2label) != {str(number) for number in range(classes)}:
                raise ValueError(
                    f"`id2label` has to name each of 0 to {classes - 1}, and has {len(id2label)}"
                    " names"
                )
        self.register_modules(transformer=transformer)
        self.register_to_config(id2label=id2label)

    def to_json_string(self) -> str:
        """The index of a saved pipeline, which says that diffusers alone cannot open it."""
        index = json.loads(super().to_json_string())
        index["_class_name"] += OPENED_BY_US
        return json.dumps(index, indent=2, sort_keys=True) + "\n"

    @property
    def labels(self) -> list[str]:
        """The names of all classes, in the order of the logits."""
        numbers = [str(number) for number in range(self.transformer.config["num_classes"])]
        known = self.config["id2label"] or {}
        return [known.get(number, number) for number in numbers]

    @torch.no_grad()
    def __call__(self, pictures: Pictures, top: int = TOP) -> list[list[Guess]]:
        """Name what pictures show.

        Args:
            pictures: A picture, an array of bytes (height, width, 3) or a file, or several. None is
                resized; what is transparent counts as white.
            top: How many labels of each to tell.

        Returns:
            For each picture its most probable labels, the first first.

        Raises:
            LuminaError: If there is no picture, or something else in its place, a file cannot be
                read, a picture has no pixels, more than `MOST_PIXELS`, or more than `MOST_PATCHES`
                patches, or there are fewer than `top` labels.
        """
        self.check_top(top)
        return rank(self._recognize(pictures).logits, self.labels, top=top)

    @torch.no_grad()
    def features(self, pictures: Pictures) -> Float[Tensor, "b d"]:
        """What a picture shows, as numbers that are near for pictures of like things.

        Args:
            pictures: As of a call.

        Raises:
            LuminaError: As of a call.
        """
        return self._recognize(pictures).features

    def check_top(self, top: int) -> None:
        """Refuse a number of labels that there are not.

        Raises:
            LuminaError: If it is out of range.
        """
        classes = self.transformer.config["num_classes"]
        checks.number("top", top, least=1, most=classes)

    def _recognize(self, pictures: Pictures) -> Recognition:
        given = _listed(pictures)
        if not given:
            raise LuminaError("there is no picture", hint="give one or more")
        patch = self.transformer.config["patch_size"]
        pixels = [np.asarray(read_picture(picture)) for picture in given]
        for picture in pixels:
            _check_patches(len(picture), picture.shape[1], patch)
        tensors = [to_tensor(picture, patch_size=patch) for picture in pixels]
        device, dtype = self._execution_device, self.transformer.dtype
        found = [
            self.transformer([tensor.to(device, dtype) for tensor in part])
            for part in _parts(tensors, _TOKENS_AT_ONCE * patch**2)
        ]
        self.maybe_free_model_hooks()
        return Recognition(*(torch.cat(values) for values in zip(*found, strict=True)))


def load_recognizer(
    name: str | Path, *, dtype: str | None = None, device: str | None = None
) -> LuminaRecognitionPipeline:
    """Load a pipeline that tells what pictures show. Arguments as of `lumina.load`.

    Raises:
        LuminaError: If it is not on this machine, or makes pictures.
    """
    if not find(name).is_recognizer:
        raise LuminaError(
            f"{name} makes pictures, and does not tell what they show",
            hint="lumina-mini-recognition does",
        )
    pipeline = load(name, dtype=dtype, device=device)
    pipeline.set_progress_bar_config(disable=True)
    return cast(Any, pipeline)


def describe(
    names: Sequence[str | Path], guesses: Sequence[Sequence[Guess]], *, as_json: bool = False
) -> str:
    """What pictures show, as lines for people or as JSON for programs."""
    if as_json:
        found = [
            {"file": str(name), "guesses": [guess._asdict() for guess in some]}
            for name, some in zip(names, guesses, strict=True)
        ]
        return json.dumps(found, indent=2, ensure_ascii=False)
    lines = []
    for name, some in zip(names, guesses, strict=True):
        lines.append(f"{name}")
        lines += [f"  {guess.probability:7.2%}  {guess.label}" for guess in some]
    return "\n".join(lines)


def read_picture(picture: Picture) -> Image.Image:
    """A picture or file, upright, in red, green and blue; what is transparent is white.

    Raises:
        LuminaError: If it is none or cannot be read, has no pixels, or more than `MOST_PIXELS`.
    """
    if isinstance(picture, str | Path):
        return open_picture(Path(picture), most_pixels=MOST_PIXELS)
    checks.pictures("what is recognized", [picture])
    is_array = isinstance(picture, np.ndarray)
    width, height = picture.shape[1::-1] if is_array else picture.size
    if not width * height:
        raise LuminaError(
            f"a picture of {width}x{height} pixels shows nothing", hint="give one with pixels"
        )
    if width * height > MOST_PIXELS:
        raise LuminaError(
            f"a picture of {width}x{height} pixels is too large",
            hint=f"allowed: {MOST_PIXELS:,} pixels; make it smaller, or cut out a part",
        )
    return Image.fromarray(picture) if is_array else see_on(picture)


def _listed(pictures: Any) -> list[Any]:
    """What was given, as a list, whether these are pictures or not."""
    is_array_of_one = isinstance(pictures, np.ndarray) and pictures.ndim != 4
    is_one = isinstance(pictures, str | bytes) or not isinstance(pictures, Iterable)
    return [pictures] if is_one or is_array_of_one else list(pictures)


def _check_patches(rows: int, cols: int, patch: int) -> None:
    """Refuse pictures so narrow that most of their patches are padding."""
    count = -(-rows // patch) * -(-cols // patch)
    if count > MOST_PATCHES:
        raise LuminaError(
            f"a picture of {cols}x{rows} pixels has {count:,} patches of {patch}x{patch} pixels",
            hint=f"allowed: {MOST_PATCHES:,}, those that are not full included; cut out a part",
        )


def _parts(tensors: Sequence[Tensor], pixels: int) -> Iterator[list[Tensor]]:
    """Neighbours that have so many pixels together, or one picture if it has more."""
    part: list[Tensor] = []
    for tensor in tensors:
        if part and sum(t[0].numel() for t in [*part, tensor]) > pixels:
            yield part
            part = []
        part.append(tensor)
    yield part
