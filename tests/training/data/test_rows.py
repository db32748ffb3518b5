import pytest

from lumina import LuminaError
from lumina.training.data.sources import DatasetsSource, find_examples

datasets = pytest.importorskip("datasets")


@pytest.fixture
def saved(tmp_path, make_picture):
    for number in range(3):
        make_picture(tmp_path / f"{number}.png", seed=number)
    columns = {
        "image": [str(tmp_path / f"{number}.png") for number in range(3)],
        "text": ["zero", "one", ""],
        "kind": [5, 6, 7],
    }
    rows = datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image())
    datasets.DatasetDict({"train": rows}).save_to_disk(tmp_path / "saved")
    return tmp_path / "saved"


def test_rows_are_examples(saved, make_picture, tmp_path):
    ((examples, report),) = find_examples([DatasetsSource(path=str(saved), label="kind")])
    assert [(one.key, one.captions.every(), one.label) for one in examples] == [
        ("row 0", ("zero",), 5),
        ("row 1", ("one",), 6),
    ]
    assert report.without_caption == ["row 2"]
    assert examples[1].medium.open().tobytes() == make_picture(tmp_path / "x.png", seed=1).tobytes()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"caption": "txt"}, r"unknown column 'txt'\nhint: did you mean 'text'"),
        ({"split": "traim"}, r"unknown split 'traim'\nhint: did you mean 'train'"),
        ({"image": "picture"}, "unknown column 'picture'"),
    ],
)
def test_what_a_dataset_lacks_is_named(saved, settings, message):
    with pytest.raises(LuminaError, match=message):
        find_examples([DatasetsSource(path=str(saved), **settings)])


def test_a_folder_that_is_no_dataset_is_refused(tmp_path):
    with pytest.raises(LuminaError, match="no dataset"):
        find_examples([DatasetsSource(path=str(tmp_path))])


def test_a_class_alone_is_enough_where_classes_are_trained_on(saved):
    source = DatasetsSource(path=str(saved), label="kind")
    ((examples, _),) = find_examples([source], of_classes=True)
    assert [one.label for one in examples] == [5, 6, 7]
    source = DatasetsSource(path=str(saved), caption="", label="kind")
    ((examples, report),) = find_examples([source], of_classes=True)
    assert report.used == len(examples) == 3


def test_a_column_of_labels_that_nobody_asked_for_is_not_read(saved, tmp_path):
    rows = datasets.load_from_disk(saved)["train"]
    rows.add_column("label", ["cat", "dog", "fox"]).save_to_disk(tmp_path / "named")
    ((examples, report),) = find_examples([DatasetsSource(path=str(tmp_path / "named"))])
    assert [one.label for one in examples] == [None, None]
    assert not report.broken
