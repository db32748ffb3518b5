import base64
import itertools
import json
import re

import numpy as np
import pytest

from lumina.errors import LuminaError
from lumina.media import read_record
from lumina.media.ply import MOST_BYTES, ply_bytes, read_ply_record, read_points
from lumina.media.point_pictures import AZIMUTH, ELEVATION, PAPER, draw_points, look_at
from lumina.media.point_viewer import viewer_page

RECORD = {"prompt": "a chair\nwith </script> and \u6905\u5b50", "points": 300, "seed": 7}

CORNERS = np.array(list(itertools.product((-0.5, 0.5), repeat=3)))


def cloud(count: int = 300) -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.5, 0.5, (count, 3)).astype(np.float32)


def test_a_ply_file_gives_back_its_points_and_its_record(tmp_path):
    path, points = tmp_path / "chair.ply", cloud()
    path.write_bytes(ply_bytes(points, RECORD))
    assert np.array_equal(read_points(path), points)
    assert read_ply_record(path) == RECORD


def test_a_prompt_may_say_how_headers_end(tmp_path):
    path, points, record = tmp_path / "chair.ply", cloud(), {"prompt": "an end_header"}
    path.write_bytes(ply_bytes(points, record))
    assert np.array_equal(read_points(path), points)
    assert read_ply_record(path) == record


def test_another_reader_sees_the_same_points(tmp_path):
    trimesh = pytest.importorskip("trimesh")
    path, points = tmp_path / "chair.ply", cloud()
    path.write_bytes(ply_bytes(points, RECORD))
    assert np.allclose(trimesh.load(path).vertices, points)


@pytest.mark.parametrize("encoding", ["binary", "ascii"])
def test_the_corners_of_a_mesh_by_another_program_are_points(tmp_path, encoding):
    trimesh = pytest.importorskip("trimesh")
    path, mesh = tmp_path / "box.ply", trimesh.creation.box()
    path.write_bytes(mesh.export(file_type="ply", encoding=encoding))
    assert np.allclose(read_points(path), mesh.vertices)


def header(count: int, form: str = "ascii") -> str:
    numbers = "".join(f"property float {name}\n" for name in "xyz")
    return f"ply\nformat {form} 1.0\nelement vertex {count}\n{numbers}end_header\n"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"not a cloud", "is not a PLY file"),
        (b"ply\nformat ascii 1.0\n", "is not a PLY file"),
        (b"ply\nformat ascii 1.0\nelement face 3\nend_header\n", "has no points"),
        (header(0).encode(), "has no points"),
        (header(10**20 - 1, "binary_little_endian").encode() + bytes(12), "has no points"),
        (header(10**12 - 1, "binary_little_endian").encode() + bytes(12), "ends before"),
        (header(10**12 - 1).encode() + b"0 0 0\n", "ends before its last point"),
        (header(2, "morse").encode() + b"0 0 0\n0 0 0\n", "has no points"),
        (header(2).encode() + b"0 0 0\n", "ends before its last point"),
        (header(2).encode() + b"0 0 0\n0 0\n", "ends before its last point"),
        (header(2, "binary_little_endian").encode() + bytes(20), "ends before its last point"),
        (header(1).encode() + b"0 nan 0\n", "nowhere"),
        (
            header(1).replace("end_", "property list uchar int near\nend_").encode()
            + b"0 0 0 1 5\n",
            "has no points .* that can be read\nhint: .* no lists",
        ),
    ],
)
def test_a_damaged_file_is_refused(tmp_path, data, message):
    path = tmp_path / "bad.ply"
    path.write_bytes(data)
    with pytest.raises(LuminaError, match=message):
        read_points(path)


def test_a_missing_or_huge_file_is_refused(tmp_path):
    with pytest.raises(LuminaError, match="cannot read"):
        read_points(tmp_path / "none.ply")
    huge = tmp_path / "huge.ply"
    with huge.open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    with pytest.raises(LuminaError, match="256 are read at most"):
        read_points(huge)


def test_a_file_without_a_record_says_so(tmp_path):
    path = tmp_path / "other.ply"
    path.write_text(header(1) + "0 0 0\n")
    with pytest.raises(LuminaError, match="does not say how it was made"):
        read_ply_record(path)


@pytest.mark.parametrize("said", ["[1]", "{", "7"])
@pytest.mark.parametrize("kind", ["ply", "html"])
def test_a_damaged_record_is_refused(tmp_path, said, kind):
    path = tmp_path / f"a.{kind}"
    if kind == "ply":
        path.write_text(header(1).replace("end_", f"comment lumina {said}\nend_") + "0 0 0\n")
    else:
        path.write_text(f'<script type="application/json" id="record">{said}</script>')
    with pytest.raises(LuminaError, match="does not say how it was made"):
        read_record(path)


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
def test_what_is_near_covers_what_is_behind_it(order):
    toward = [np.cos(AZIMUTH), np.sin(AZIMUTH), np.tan(ELEVATION)]
    far, near = np.zeros(3), 0.3 * np.array(toward) / np.linalg.norm(toward)
    assert np.allclose(look_at(np.array([*CORNERS, far, near]))[-2:, :2], 0)

    def drawn(*points):
        return np.asarray(draw_points(np.array([*CORNERS, *points], np.float32), side=128))

    both = drawn(*np.stack([far, near])[order])
    assert np.array_equal(both, drawn(near))
    assert not np.array_equal(both, drawn(far))


def test_a_picture_has_the_cloud_in_its_middle_and_paper_around_it():
    pixels = np.asarray(draw_points(cloud(), side=128)).astype(int)
    is_ink = (pixels != PAPER).any(-1)
    rows, cols = np.nonzero(is_ink)
    assert abs(rows.min() + rows.max() - 127) <= 4
    assert abs(cols.min() + cols.max() - 127) <= 4
    assert min(rows.min(), cols.min()) > 0
    assert 0.8 <= (max(np.ptp(rows), np.ptp(cols)) + 1) / 128 <= 0.95


def test_up_is_up_and_moving_or_enlarging_a_cloud_changes_nothing():
    pole = np.array([[0, 0, 0], [0, 0, 1.0]], np.float32)
    seen = look_at(pole)
    assert seen[1, 1] > seen[0, 1]
    points = cloud()
    assert look_at(3 * points + 7) == pytest.approx(look_at(points), abs=1e-5)


def test_a_page_holds_the_points_the_record_and_the_title_and_loads_nothing():
    points = cloud()
    page = viewer_page(points, RECORD, title="a <b>chair</b>")
    encoded = re.search(r'atob\("([^"]+)"\)', page)
    assert encoded is not None
    held = np.frombuffer(base64.b64decode(encoded[1]), "<f4").reshape(-1, 3)
    assert np.array_equal(held, points)
    record = re.search(r'<script type="application/json" id="record">(.*?)</script>', page)
    assert record is not None
    assert json.loads(record[1]) == RECORD
    assert "a &lt;b&gt;chair&lt;/b&gt;" in page
    assert "{{" not in page
    assert not re.search(r"https?://|src=|<link", page)
