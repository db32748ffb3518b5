"""Reference drawings as files, so that judging pictures needs no font."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from lumina.errors import LuminaError
from lumina.worlds.drawings import reference, sprite

VOCABULARY = "vocabulary.json"
SHEET = "references.png"
NOTICE = "NOTICE-drawings.txt"

SIDE = 32  # pixels of one drawing
COLUMNS = 40  # drawings in a row of the sheet
# Bytes are rounded to multiples of these, which takes a quarter off the file and moves no nearest
# drawing: color to 2 levels of what it was, opacity to 8.
COLOR_STEP, OPACITY_STEP = 4, 17

NOTICE_TEXT = f"""\
{SHEET} holds drawings from the font Noto Color Emoji, reduced to {SIDE} pixels.

Copyright 2013-2017 Google Inc., Arjen Nienhuis <a.g.nienhuis@gmail.com>
https://github.com/googlefonts/noto-emoji

The font is licensed under the SIL Open Font License, Version 1.1, and so are these drawings.
The license is at https://openfontlicense.org
"""


def write_references(
    folder: Path, things: list[str], *, drawing_of: Callable[[str], Image.Image] = sprite
) -> None:
    """Write a vocabulary, a sheet of its drawings, and the notice that their license asks for.

    Args:
        folder: An existing folder.
        things: The emoji.
        drawing_of: What each looks like, as RGBA.
    """
    rows = -(-len(things) // COLUMNS)
    sheet = np.zeros((rows, SIDE, COLUMNS, SIDE, 4), np.uint8)
    for index, emoji in enumerate(things):
        sheet[index // COLUMNS, :, index % COLUMNS] = _coarsen(
            reference(emoji, SIDE, drawing_of=drawing_of)
        )
    picture = Image.fromarray(sheet.reshape(rows * SIDE, COLUMNS * SIDE, 4))
    picture.save(folder / SHEET, optimize=True)
    (folder / VOCABULARY).write_text(json.dumps(things, ensure_ascii=False), encoding="utf-8")
    (folder / NOTICE).write_text(NOTICE_TEXT, encoding="utf-8")


def load_references(folder: Path) -> tuple[list[str], UInt8[np.ndarray, "n side side 4"]]:
    """Emoji of a vocabulary, and the drawing of each as RGBA bytes.

    Raises:
        LuminaError: If the folder holds no references.
    """
    try:
        things = json.loads((folder / VOCABULARY).read_text(encoding="utf-8"))
        sheet = np.asarray(Image.open(folder / SHEET))
    except FileNotFoundError as error:
        raise LuminaError(
            f"{folder} has no {Path(error.filename).name}: it is no model of drawings",
            hint="lumina-mini is one",
        ) from error
    rows = sheet.shape[0] // SIDE
    drawings = sheet.reshape(rows, SIDE, COLUMNS, SIDE, 4).swapaxes(1, 2)
    return things, drawings.reshape(-1, SIDE, SIDE, 4)[: len(things)]


def _coarsen(drawing: UInt8[np.ndarray, "side side 4"]) -> UInt8[np.ndarray, "side side 4"]:
    steps = np.array([COLOR_STEP, COLOR_STEP, COLOR_STEP, OPACITY_STEP])
    coarse = np.clip(np.round(drawing / steps) * steps, 0, 255)
    return (coarse * (coarse[..., 3:] > 0)).astype(np.uint8)
