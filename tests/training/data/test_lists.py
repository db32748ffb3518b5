import json

import pytest

from lumina import LuminaError
from lumina.training.data.sources import JsonlSource, OriginalSource, find_examples


def find(source):
    return find_examples([source])[0]


def write_lines(path, records):
    path.write_text("\n".join(json.dumps(record) for record in records) + "\n")


@pytest.fixture
def root(tmp_path, make_picture):
    for number in range(4):
        make_picture(tmp_path / "pictures" / f"{number}.png", seed=number)
    return tmp_path


def test_lines_name_pictures_and_what_is_said_of_them(root):
    write_lines(
        root / "list.jsonl",
        [
            {"image": "0.png", "caption": "zero", "label": 7, "loss_weight": 2},
            {"image": "1.png", "text": ["one", "1"]},
            {"image": "0.png", "caption": "zero again"},
        ],
    )
    source = JsonlSource(path=str(root / "list.jsonl"), root=str(root / "pictures"))
    examples, _ = find(source)
    assert [one.key for one in examples] == ["0.png", "1.png", "0.png#2"]
    assert (examples[0].label, examples[0].loss_weight) == (7, 2.0)
    assert examples[1].captions.every() == ("one", "1")


def test_fields_may_have_other_names_and_paths_start_at_the_list(root):
    write_lines(root / "list.jsonl", [{"file": "pictures/2.png", "words": "two", "kind": 1}])
    source = JsonlSource(path=str(root / "list.jsonl"), image="file", caption="words", label="kind")
    (example,) = find(source).examples
    assert (example.captions.every(), example.label) == (("two",), 1)


def test_bad_lines_are_counted_with_the_reason(root):
    good = json.dumps({"image": "pictures/0.png", "caption": "zero"})
    bad = ["{", '{"image": 3}', '{"image": "none.png", "caption": "x"}']
    bad += ['{"image": "pictures/1.png", "caption": 5}']
    bad += ['{"image": "pictures/1.png", "caption": "x", "loss_weight": -1}']
    (root / "list.jsonl").write_text("\n".join([good, "", *bad]))
    _, report = find(JsonlSource(path=str(root / "list.jsonl")))
    assert (report.found, report.used) == (6, 1)
    reasons = dict(report.broken)
    assert reasons["line 3"] == "it is not JSON"
    assert "not a path" in reasons["line 4"]
    assert reasons["line 5"] == "no such file"
    assert "not text" in reasons["line 6"]
    assert "loss_weight is -1" in reasons["line 7"]


@pytest.fixture
def original(root):
    talk = [{"from": "human", "value": "Describe it."}, {"from": "gpt", "value": "a talk"}]
    (root / "talks.json").write_text(
        json.dumps([{"conversations": talk, "image": "0.png"}, {"conversations": talk}])
    )
    write_lines(
        root / "prompts.jsonl",
        [{"path": f"{number}.png", "prompt": f"prompt {number}"} for number in range(4)],
    )

    def write(prompts=""):
        (root / "data.yaml").write_text(
            "META:\n  - {path: talks.json, root: pictures, type: image_text}\n"
            f"  - {{path: prompts.jsonl, root: pictures{prompts}}}\n"
        )
        return OriginalSource(path=str(root / "data.yaml"))

    return write


def test_items_of_the_original_release_are_talks_or_prompts(original):
    examples, report = find(original())
    assert [one.captions.every()[0] for one in examples] == [
        "a talk",
        *(f"prompt {number}" for number in range(4)),
    ]
    assert [name for name, _ in report.broken] == ["talks.json: item 1"]


def test_a_ratio_keeps_always_the_same_share(original):
    some = [one.key for one in find(original(", ratio: 0.5")).examples]
    assert len(some) == 1 + 2
    assert some == [one.key for one in find(original(", ratio: 0.5")).examples]


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        (", ratio: 2", "ratio is 2"),
        (", ratoi: 1", "unknown field of META 'ratoi'"),
    ],
)
def test_a_bad_entry_is_refused(original, prompts, message):
    with pytest.raises(LuminaError, match=message):
        find(original(prompts))


def test_a_file_that_lists_nothing_is_refused(root):
    (root / "data.yaml").write_text("DATA: []")
    with pytest.raises(LuminaError, match="no list META"):
        find(OriginalSource(path=str(root / "data.yaml")))
    (root / "data.yaml").write_text("META: [{path: none.json}]")
    with pytest.raises(LuminaError, match=r"there is no file .*none.json"):
        find(OriginalSource(path=str(root / "data.yaml")))


def test_a_record_ends_with_its_line_alone(root):
    caption = "one\u2028and \x85more"
    record = json.dumps({"image": "pictures/0.png", "caption": caption}, ensure_ascii=False)
    (root / "list.jsonl").write_bytes(f"{record}\r\n{record}\r\n".encode())
    examples, report = find(JsonlSource(path=str(root / "list.jsonl"), clean=False))
    assert [one.captions.every() for one in examples] == [(caption,)] * 2
    assert report.used == report.found == 2
