import pytest

from lumina import LuminaError
from lumina.training.data.sources import (
    DrawingsSource,
    FolderSource,
    ShapesSource,
    find_examples,
    read_source,
    read_sources,
    refuse_missing_library,
)


def test_tables_are_sources():
    sources = read_sources(
        [
            {"kind": "shapes", "side": 32, "weight": 2},
            {"kind": "drawings", "sizes": ["64x64"], "name": "emoji"},
        ]
    )
    assert sources == [
        ShapesSource(side=32, weight=2),
        DrawingsSource(sizes=("64x64",), name="emoji"),
    ]
    assert [source.title for source in sources] == ["shapes", "emoji"]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"kind": "foldr"}, r"unknown kind of data 'foldr'\nhint: did you mean 'folder'"),
        ({"path": "x"}, r"has no kind\nhint: choose one of folder"),
        ({"kind": "folder", "pth": "x"}, r"unknown setting 'pth'\nhint: did you mean 'path'"),
        ({"kind": "folder", "weight": 0}, "weight is 0, which is out of range"),
        ({"kind": "shapes", "side": 8}, "side is 8, which is out of range"),
    ],
)
def test_bad_tables_are_refused(table, message):
    with pytest.raises(LuminaError, match=message):
        read_source(table)


def test_no_data_are_refused():
    with pytest.raises(LuminaError, match="no data are named"):
        read_sources([])


def test_all_sources_are_checked_before_any_is_read(tmp_path, make_picture):
    make_picture(tmp_path / "a.png")
    first = FolderSource(path=str(tmp_path))  # without captions: refused when it is read
    with pytest.raises(LuminaError, match=r"there is no folder .*missing"):
        find_examples([first, FolderSource(path=str(tmp_path / "missing"))])
    with pytest.raises(LuminaError, match="has no path"):
        find_examples([first, FolderSource()])


def test_a_missing_library_names_the_extra_that_brings_it():
    with pytest.raises(LuminaError, match=r"pip install 'lumina-t2x\[data\]'"):
        refuse_missing_library("surely_not_installed", extra="data")
