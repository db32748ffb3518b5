import io
import json
import tarfile

import pytest

from lumina import LuminaError
from lumina.training.data.sources import WebdatasetSource, find_examples


def find(path):
    return find_examples([WebdatasetSource(path=str(path))])[0]


def write_shard(path, files):
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


@pytest.fixture
def picture(tmp_path, make_picture):
    def picture(seed):
        make_picture(tmp_path / "one.png", seed=seed)
        return (tmp_path / "one.png").read_bytes()

    return picture


@pytest.fixture
def shards(tmp_path, picture):
    for shard in range(2):
        files = {}
        for number in range(2):
            stem = f"0{shard}{number}"
            files[f"{stem}.png"] = picture(10 * shard + number)
            files[f"{stem}.txt"] = f"picture {stem}".encode()
            files[f"{stem}.cls"] = b"5"
        write_shard(tmp_path / f"data-{shard}.tar", files)
    return tmp_path


def test_a_range_and_a_star_name_the_same_shards(shards):
    starred, ranged = find(shards / "data-*.tar"), find(shards / "data-{0..1}.tar")
    assert starred.examples == ranged.examples
    assert len(starred.examples) == 4
    assert starred.examples[3].key == "data-1.tar: 011"
    assert starred.examples[3].captions.every() == ("picture 011",)
    assert starred.examples[3].label == 5


def test_pictures_are_read_from_anywhere_in_a_shard(shards, make_picture):
    examples = find(shards / "data-*.tar").examples
    for seed, example in zip((11, 0, 10, 1), (examples[i] for i in (3, 0, 2, 1)), strict=True):
        expected = make_picture(shards / "expected.png", seed=seed)
        assert example.medium.open().tobytes() == expected.tobytes()


def test_captions_may_be_json_and_pictures_without_any_are_counted(tmp_path, picture):
    write_shard(
        tmp_path / "a.tar",
        {
            "x/1.png": picture(1),
            "x/1.json": json.dumps({"caption": "first", "loss_weight": 3}).encode(),
            "x/2.png": picture(2),
            "x/3.txt": b"no picture beside",
        },
    )
    examples, report = find(tmp_path / "a.tar")
    assert [(one.key, one.loss_weight) for one in examples] == [("a.tar: x/1", 3.0)]
    assert report.without_caption == ["a.tar: x/2"]
    assert report.found == 2


def test_a_shard_that_is_cut_off_gives_what_is_before_the_cut(shards):
    content = (shards / "data-1.tar").read_bytes()
    (shards / "data-1.tar").write_bytes(content[: 512 + 100])
    examples, report = find(shards / "data-*.tar")
    assert len(examples) == 2
    assert [name for name, _ in report.broken] == ["data-1.tar"]


def test_missing_and_compressed_shards_are_refused(shards):
    with pytest.raises(LuminaError, match=r"there is no file .*data-2.tar"):
        find(shards / "data-{0..2}.tar")
    (shards / "data.tar.gz").touch()
    with pytest.raises(LuminaError, match=r"not a \.tar file"):
        find(shards / "data.tar.gz")


def test_a_caption_ends_with_its_line_alone(tmp_path, picture):
    texts = "an\u2028ant\x0cand more\r\na bee\r\n".encode()
    write_shard(tmp_path / "a.tar", {"1.png": picture(1), "1.txt": texts})
    source = WebdatasetSource(path=str(tmp_path / "a.tar"), clean=False)
    (((example,), _),) = find_examples([source])
    assert example.captions.every() == ("an\u2028ant\x0cand more", "a bee")


def test_a_class_alone_is_enough_where_classes_are_trained_on(tmp_path, picture):
    write_shard(tmp_path / "a.tar", {"0.png": picture(1), "0.cls": b"7", "1.png": picture(2)})
    source = WebdatasetSource(path=str(tmp_path / "a.tar"))
    (((example,), report),) = find_examples([source], of_classes=True)
    assert (example.key, example.label, example.captions.every()) == ("a.tar: 0", 7, ())
    assert report.without_caption == ["a.tar: 1"]
    with pytest.raises(LuminaError, match="2 without a caption"):
        find(tmp_path / "a.tar")
