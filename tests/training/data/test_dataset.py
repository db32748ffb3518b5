import json

import pytest

from lumina import LuminaError
from lumina.training.data.dataset import encode, survey
from lumina.training.data.encoding import Encoding
from lumina.types import Size

SQUARE = {"sizes": ["64x64"]}


def find(*tables, **settings):
    return survey(tables, **{"crops": SQUARE, "validation": 0.0} | settings)


@pytest.fixture
def labelled(tmp_path, make_picture):
    """Lists pictures with what is given for each, as a table of data."""

    def labelled(*notes):
        records = []
        for number, note in enumerate(notes):
            make_picture(tmp_path / f"{number}.png", seed=number)
            records.append(json.dumps({"image": f"{number}.png", **note}))
        (tmp_path / "list.jsonl").write_text("\n".join(records))
        return {"kind": "jsonl", "path": str(tmp_path / "list.jsonl")}

    return labelled


def test_a_class_without_a_caption_is_trained_on_where_classes_are(labelled):
    table = labelled({"label": 1}, {"label": 0, "caption": "zero"}, {})
    found = find(table, classes=2)
    assert [(one.example.key, one.example.label) for one in found.placed[0]] == [
        ("0.png", 1),
        ("1.png", 0),
    ]
    assert found.reports[0].without_caption == ["2.png"]
    table = labelled({"label": 1}, {"label": 0, "caption": "zero"})
    found = find(table)
    assert [one.example.key for one in found.placed[0]] == ["1.png"]
    assert found.reports[0].without_caption == ["0.png"]
    assert found.reports[0].used == 1


@pytest.mark.parametrize(
    ("note", "told"),
    [({"label": 2}, "the class 2"), ({"label": -1}, "the class -1"), ({}, "no class")],
)
def test_a_class_that_is_not_trained_on_is_named(labelled, note, told):
    table = labelled({"label": 1}, {"caption": "one", **note})
    with pytest.raises(LuminaError, match=f"1.png of jsonl .* has {told}, not one of 0 to 1"):
        find(table, classes=2)


def test_the_first_that_validate_are_of_all_sources_and_classes():
    tables = [{"kind": "shapes", "pictures": 600, "seed": seed} for seed in range(2)]
    unseen = find(*tables, validation=0.3).unseen
    first = [one.example for one in unseen[:64]]
    assert {example.key.partition("-")[0] for example in first} == {"0", "1"}
    folders = [(example.label, example.key) for example in first]
    assert folders != sorted(folders)
    assert unseen == find(*tables, validation=0.3).unseen


def test_a_scene_that_validates_at_one_size_is_trained_on_at_none(font):
    sizes = ["64x64", "96x64", "64x96"]
    table = {"kind": "drawings", "scenes": 60, "sizes": sizes}
    found = find(table, validation=0.3)
    shown = [{one.example.medium.scene for one in some} for some in (found.unseen, *found.placed)]
    assert all(shown)
    assert not shown[0] & shown[1]
    assert {one.size for one in found.unseen} == {Size(64, 64), Size(96, 64), Size(64, 96)}


def test_broken_pictures_that_validate_are_reported(tmp_path, tiny_folder, make_picture):
    for number in range(8):
        make_picture(tmp_path / "pictures" / f"{number}.png", (64, 64), seed=number)
    table = {"kind": "folder", "path": str(tmp_path / "pictures"), "caption": "a picture"}
    found = find(table, validation=0.5)
    assert len(found.unseen) > 1
    name = found.unseen[0].example.key
    content = (tmp_path / "pictures" / name).read_bytes()
    (tmp_path / "pictures" / name).write_bytes(content[: len(content) // 2])
    encoded = encode(found, _encoding(tmp_path, tiny_folder), with_texts=False)
    assert encoded.survey.unseen == found.unseen[1:]
    assert f"1 broken: {name}" in "\n".join(encoded.survey.lines())


def test_where_all_but_those_that_validate_are_broken_there_is_nothing_to_train_on(
    tmp_path, tiny_folder, make_picture
):
    for number in range(8):
        make_picture(tmp_path / "pictures" / f"{number}.png", (64, 64), seed=number)
    table = {"kind": "folder", "path": str(tmp_path / "pictures"), "caption": "a picture"}
    found = find(table, validation=0.5)
    for placed in found.placed[0]:
        path = tmp_path / "pictures" / placed.example.key
        path.write_bytes(path.read_bytes()[:-40])
    count = len(found.placed[0])
    with pytest.raises(LuminaError, match=rf"no example to train on\nhint: {count} broken"):
        encode(found, _encoding(tmp_path, tiny_folder), with_texts=False)


def _encoding(folder, models):
    return Encoding(cache=str(folder / "cache"), autoencoder=str(models / "vae"), device="cpu")
