"""A page that shows a point cloud and lets a person turn it: one file that needs nothing else."""

import base64
import html
import importlib.resources
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from lumina.errors import LuminaError
from lumina.media.files import parse_record, write_whole
from lumina.media.point_pictures import AZIMUTH, ELEVATION

PAGE = "point_viewer.html"


def viewer_page(points: Float[np.ndarray, "n 3"], record: dict[str, Any], *, title: str) -> str:
    """HTML of a page with a cloud in it.

    Args:
        points: One or more; z is up.
        record: How it was made; anything that JSON can hold.
        title: What is written above it, such as the prompt.
    """
    page = importlib.resources.files("lumina.media").joinpath(PAGE).read_text("utf-8")
    parts = {
        "count": f"{len(points):,}",
        "azimuth": f"{AZIMUTH:.4f}",
        "elevation": f"{ELEVATION:.4f}",
        "points": base64.b64encode(points.astype("<f4").tobytes()).decode(),
        # Text in a script ends at its closing tag, whatever JSON thinks of it.
        "record": json.dumps(record).replace("<", "\\u003c"),
        "title": html.escape(title),
    }
    first, *pieces = page.split("{{")
    filled = [first]
    for piece in pieces:
        name, _, rest = piece.partition("}}")
        filled += [parts[name], rest]
    return "".join(filled)


def write_viewer(
    path: Path, points: Float[np.ndarray, "n 3"], record: dict[str, Any], *, force: bool = False
) -> None:
    """Write a page with a cloud in it, titled by its prompt. As `write_ply`."""
    title = str(record.get("request", {}).get("prompt", "points"))
    write_whole(path, viewer_page(points, record, title=title).encode(), force=force)


def read_viewer_record(path: Path) -> dict[str, Any]:
    """How the cloud of a page was made.

    Raises:
        LuminaError: If it cannot be read, or was not made by lumina.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise LuminaError(f"cannot read {path}", hint=_FROM_LUMINA) from error
    found = re.search(r'<script type="application/json" id="record">(.*?)</script>', text)
    return parse_record(path, found and found[1], hint=_FROM_LUMINA)


_FROM_LUMINA = "give a page that `lumina generate` wrote"
