import numpy as np
import pytest
from PIL import Image

from lumina import LuminaError
from lumina.worlds.drawings import reference
from lumina.worlds.references import (
    COLOR_STEP,
    NOTICE,
    OPACITY_STEP,
    SHEET,
    load_references,
    write_references,
)


@pytest.mark.parametrize("count", [1, 40])
def test_references_come_back_in_order_and_nearly_as_they_were(patterns, tmp_path, count):
    things = list(patterns)[:count]
    write_references(tmp_path, things, drawing_of=patterns.get)
    loaded, drawings = load_references(tmp_path)
    assert loaded == things
    assert len(drawings) == count
    for thing, drawing in zip(things, drawings, strict=True):
        difference = np.abs(reference(thing, drawing_of=patterns.get) - drawing.astype(int))
        is_seen = drawing[..., 3] > 0
        assert difference[is_seen][:, :3].max() <= COLOR_STEP / 2 + 1
        assert difference[..., 3].max() <= OPACITY_STEP / 2


def test_a_last_row_that_is_not_full_is_read(patterns, tmp_path):
    things = [*patterns, "🧭"]
    drawing_of = (patterns | {"🧭": Image.new("RGBA", (50, 50), "red")}).get
    write_references(tmp_path, things, drawing_of=drawing_of)
    _, drawings = load_references(tmp_path)
    assert len(drawings) == 41
    assert drawings[40, 16, 16].tolist() == [255, 0, 0, 255]


def test_the_notice_names_the_license(patterns, tmp_path):
    write_references(tmp_path, list(patterns)[:1], drawing_of=patterns.get)
    notice = (tmp_path / NOTICE).read_text()
    assert "SIL Open Font License, Version 1.1" in notice
    assert "Google" in notice
    assert SHEET in notice


def test_a_folder_without_references_is_named(tmp_path):
    with pytest.raises(LuminaError, match=r"has no vocabulary\.json"):
        load_references(tmp_path)
