"""Models of the original release that are split into parts, put together again.

The original code can spread each layer over several machines (fairscale's model parallelism), and
then saves what each of them holds as `consolidated.00-of-02.pth`, `consolidated.01-of-02.pth`.
"""

import logging
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from lumina.checkpoints.headers import AGAIN
from lumina.checkpoints.weights import Weight, Weights, open_file
from lumina.errors import LuminaError

_PART = re.compile(r"(consolidated(?:_ema)?)\.(\d+)-of-(\d+)\.(safetensors|pth)")

# Columns of the output of a layer are rows of its weight.
_ROWS = re.compile(
    r"(x_embedder|t_embedder\.mlp\.0|cap_embedder\.1|final_layer\.linear"
    r"|(layers\.\d+|final_layer)\.adaLN_modulation\.1"
    r"|layers\.\d+\.attention\.(w[qkv]|w[kv]_y|q_norm|k_norm|ky_norm)"
    r"|layers\.\d+\.feed_forward\w*\.(experts\.\d+\.)?w[13])\.(weight|bias)"
    r"|layers\.\d+\.attention\.gate"
)
_COLUMNS = re.compile(
    r"(t_embedder\.mlp\.2|y_embedder\.embedding_table"
    r"|layers\.\d+\.attention\.wo"
    r"|layers\.\d+\.feed_forward\w*\.(experts\.\d+\.)?w2)\.weight"
)


def find_parts(path: Path) -> list[Path]:
    """Files of one original model, in the order of their parts.

    Args:
        path: One of the files; or their folder, where averaged weights come before those of the
            last step, and safetensors before pickles.

    Returns:
        Nothing, if there is no such file.

    Raises:
        LuminaError: If parts are missing.
    """
    files = [path] if path.is_file() else sorted(path.glob("consolidated*"))
    found = [match for file in files if (match := _PART.fullmatch(file.name))]
    if not found:
        return []
    folder = path.parent if path.is_file() else path
    averaged = [match for match in found if match[1].endswith("_ema")]
    found = averaged or found
    suffix = max(match[4] for match in found)
    counts = {match[3] for match in found if match[4] == suffix}
    if len(counts) > 1:
        raise LuminaError(
            f"{folder} holds parts of several models: of {' and of '.join(sorted(counts))}",
            hint="keep those of one model",
        )
    stem, count = found[0][1], counts.pop()
    parts = [folder / f"{stem}.{part:02}-of-{count}.{suffix}" for part in range(int(count))]
    if missing := [part.name for part in parts if not part.is_file()]:
        raise LuminaError(f"{folder} lacks {', '.join(missing)}", hint=AGAIN)
    return parts


def open_parts(files: Sequence[Path]) -> dict[str, Weight]:
    """Weights of a model that is split over files.

    Raises:
        LuminaError: If a file is damaged, or the files are no parts of one model.
    """
    parts = [open_file(file) for file in files]
    if len(parts) == 1:
        return parts[0]
    for file, part in zip(files, parts, strict=True):
        if different := part.keys() ^ parts[0].keys():
            raise LuminaError(
                f"{file} and {files[0].name} are no parts of one model: only one of them has "
                f"{min(different)}",
                hint=AGAIN,
            )
    if any(".q_norm." in name for name in parts[0]):
        logging.getLogger("lumina").warning(
            "%s: %d parts normalised queries and keys each on its own; together they do so over "
            "all heads, which gives slightly other pictures",
            files[0].parent,
            len(files),
        )
    return join(parts)


def join(parts: Sequence[Weights]) -> dict[str, Weight]:
    """Weights of a model from those of its parts, which have the same names.

    Raises:
        LuminaError: If the shapes of the parts of a weight do not fit together.
    """
    width = _width(parts[0])
    return {
        name: _join(name, [part[name] for part in parts], _axis(name, weight.shape, width))
        for name, weight in parts[0].items()
    }


def _width(part: Weights) -> int | None:
    """Width of the tokens, told by a norm, which each part holds whole."""
    names = ("layers.0.attention_norm.weight", "layers.0.attention_norm1.weight")
    return next((part[name].shape[0] for name in names if name in part), None)


def _axis(name: str, shape: tuple[int, ...], width: int | None) -> int | None:
    """Along which axis a weight is split; None if each part holds all of it."""
    axis = 0 if _ROWS.fullmatch(name) else 1 if _COLUMNS.fullmatch(name) else None
    # Some copies of the original code have plain layers here, which each part holds whole.
    is_whole = axis is not None and width is not None and shape[axis] == _size(name, width)
    return None if is_whole else axis


def _size(name: str, width: int) -> int | None:
    """How long the split axis is in the whole model, where the width of the tokens tells it."""
    if name.startswith(("t_embedder.", "cap_embedder.", "y_embedder.")):
        return min(width, 1024)
    return width if re.search(r"x_embedder\.|\.wq\.|\.wo\.|\.q_norm\.", name) else None


def _join(name: str, parts: list[Weight], axis: int | None) -> Weight:
    first = parts[0]
    if axis is None:
        shapes = {part.shape for part in parts}
        if len(shapes) > 1:
            raise LuminaError(f"parts of {name} have the shapes {sorted(shapes)}", hint=AGAIN)
        return first
    others = {part.shape[:axis] + part.shape[axis + 1 :] for part in parts}
    if len(others) > 1:
        shapes = sorted(part.shape for part in parts)
        raise LuminaError(f"parts of {name} have the shapes {shapes}", hint=AGAIN)
    size = sum(part.shape[axis] for part in parts)
    shape = (*first.shape[:axis], size, *first.shape[axis + 1 :])
    return Weight(shape, first.dtype, partial(_read_joined, parts, axis))


def _read_joined(parts: list[Weight], axis: int) -> torch.Tensor:
    return torch.cat([part.read() for part in parts], dim=axis)
