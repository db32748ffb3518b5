"""A page that shows a point cloud and lets a person turn it: one file that needs nothing else."""

import base64
import html
import importlib.resources
import json
from typing import Any

import numpy as np
from jaxtyping import Float

from lumina.modalities.point_pictures import AZIMUTH, ELEVATION

PAGE = "point_viewer.html"


def viewer_page(points: Float[np.ndarray, "n 3"], record: dict[str, Any], *, title: str) -> str:
    """HTML of a page with a cloud in it.

    Args:
        points: One or more; z is up.
        record: How it was made; anything that JSON can hold.
        title: What is written above it, such as the prompt.
    """
    page = importlib.resources.files("lumina.modalities").joinpath(PAGE).read_text("utf-8")
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
