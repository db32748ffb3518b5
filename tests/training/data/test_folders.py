import json

import pytest

from lumina import LuminaError
from lumina.encoders.cleaning import clean_caption
from lumina.training.data.sources import ClassesSource, FolderSource, find_examples


@pytest.fixture
def folder(tmp_path, make_picture):
    folder = tmp_path / "pictures"
    make_picture(folder / "b.png", seed=1)
    (folder / "b.txt").write_text("a bee\n\n a large bee \n")
    make_picture(folder / "a.jpg", seed=2)
    (folder / "a.json").write_text(
        json.dumps({"captions": ["an ant"], "label": 3, "loss_weight": 0.5})
    )
    make_picture(folder / "more" / "c.webp", seed=3)
    (folder / "more" / "c.txt").write_text("a cat")
    return folder


def find(source):
    return find_examples([source])[0]


def test_pictures_come_by_name_with_what_stands_beside_them(folder):
    examples, report = find(FolderSource(path=str(folder)))
    assert [example.key for example in examples] == ["a.jpg", "b.png", "more/c.webp"]
    assert [example.captions.every() for example in examples] == [
        ("an ant",),
        ("a bee", "a large bee"),
        ("a cat",),
    ]
    assert (examples[0].label, examples[0].loss_weight) == (3, 0.5)
    assert (report.found, report.used) == (3, 3)


@pytest.mark.parametrize("clean", [True, False])
def test_captions_are_read_as_prompts_are(folder, clean):
    said = "A Red Zibbo  by @someone https://example.com"
    (folder / "b.txt").write_text(said)
    (folder / "more" / "c.txt").write_text("https://example.com")
    examples, report = find(FolderSource(path=str(folder), clean=clean))
    wanted = clean_caption(said) if clean else said
    assert examples[1].captions.every() == (wanted,)
    assert report.without_caption == (["more/c.webp"] if clean else [])


def test_what_cannot_be_used_is_counted_and_named(folder, make_picture):
    (folder / "d.png").write_text("no picture")
    (folder / "d.txt").write_text("a dog")
    make_picture(folder / "e.png")
    make_picture(folder / "f.png")
    (folder / "f.json").write_text("[]")
    make_picture(folder / ".hidden" / "g.png")
    examples, report = find(FolderSource(path=str(folder)))
    assert (report.found, report.used) == (6, 3)
    assert len(examples) == 3
    assert [name for name, _ in report.broken] == ["d.png", "f.png"]
    assert report.without_caption == ["e.png"]
    text = "\n".join(report.lines())
    assert "2 broken: d.png (not a picture), f.png (f.json is not an object of JSON)" in text
    assert "1 without a caption: e.png" in text


def test_a_caption_for_all_stands_in_for_missing_ones(folder, make_picture):
    make_picture(folder / "e.png")
    examples, report = find(FolderSource(path=str(folder), caption="a thing"))
    assert examples[2].captions.every() == ("a thing",)
    assert examples[2].key == "e.png"
    assert report.used == 4


def test_folders_without_pictures_or_captions_are_refused(tmp_path, make_picture):
    with pytest.raises(LuminaError, match="has no examples"):
        find(FolderSource(path=str(tmp_path)))
    make_picture(tmp_path / "a.png")
    with pytest.raises(LuminaError, match=r"no example to train on\nhint: 1 without a caption"):
        find(FolderSource(path=str(tmp_path)))


def test_classes_are_numbered_by_name(tmp_path, make_picture):
    for name in ("tree_frog", "ant"):
        for number in range(2):
            make_picture(tmp_path / name / f"{number}.png")
    examples, _ = find(ClassesSource(path=str(tmp_path)))
    assert [(one.key, one.label, one.captions.every()) for one in examples[1:3]] == [
        ("ant/1.png", 0, ("ant",)),
        ("tree_frog/0.png", 1, ("tree frog",)),
    ]
    with pytest.raises(LuminaError, match="has no folders"):
        find(ClassesSource(path=str(tmp_path / "ant")))


def test_hidden_folders_are_no_classes(tmp_path, make_picture):
    for name in (".ipynb_checkpoints", "ant", "bee"):
        make_picture(tmp_path / name / "0.png")
    examples, report = find(ClassesSource(path=str(tmp_path)))
    assert [(one.key, one.label) for one in examples] == [("ant/0.png", 0), ("bee/0.png", 1)]
    assert report.found == 2


def test_a_caption_ends_with_its_line_alone(tmp_path, make_picture):
    make_picture(tmp_path / "a.png")
    (tmp_path / "a.txt").write_bytes("an\u2028ant\x0cand\x85more\r\na bee\r\n".encode())
    ((example,), _) = find(FolderSource(path=str(tmp_path), clean=False))
    assert example.captions.every() == ("an\u2028ant\x0cand\x85more", "a bee")
