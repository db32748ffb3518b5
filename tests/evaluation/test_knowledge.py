"""What models know by name, and which words of a prompt they do not."""

import shutil
import sys
import unicodedata

import numpy as np
import pytest

from lumina.catalog import MODELS, WEIGHTS
from lumina.cli import main
from lumina.errors import LuminaError
from lumina.evaluation.knowledge import known_names, unknown_words
from lumina.worlds import WORLDS, find_world, vocabulary, words_in

pytest.importorskip("emoji")


@pytest.mark.parametrize("name", [name for name, model in MODELS.items() if model.hub_id is None])
def test_each_model_that_ships_tells_names(name):
    for called, names in known_names(name).items():
        assert called
        assert len(names) > 1
        assert len(set(names)) == len(names)
        assert all(names)


def test_labels_are_in_the_order_of_their_numbers():
    labels = known_names("lumina-mini-recognition")["labels"]
    assert len(labels) == 130
    assert [label[-1] for label in labels[-10:]] == list("0123456789")


@pytest.mark.parametrize("name", WORLDS)
def test_names_are_made_of_words_that_captions_have(name):
    world = find_world(name)
    words = world.words()
    told = {"music": ("forms", "instruments", "beats per minute")}
    for called, names in world.names().items():
        if called in told.get(name, [called]) and called != "voices":
            assert {word for one in names for word in words_in(one)} <= words, called


@pytest.mark.parametrize("name", [name for name in WORLDS if name != "motion"])
def test_nearly_all_words_of_captions_are_known(name):
    world = find_world(name)
    rng = np.random.default_rng(5)
    captions = [text for _ in range(100) for text in world.captions(world.draw(rng))]
    words = world.words()
    found = [word in words for text in captions for word in words_in(text)]
    assert np.mean(found) > 0.99


def test_words_of_all_languages_with_spaces_are_read():
    assert words_in("Ein Fahrrad: l'île, 左へ動く 3x — ÉTÉ") == [
        "ein",
        "fahrrad",
        "l'île",
        "左",
        "動",
        "3",
        "x",
        "été",
    ]
    assert words_in("Бас-гитара! پایین‌رونده 판다 얼굴") == [
        "бас-гитара",
        "پایین‌رونده",
        "판다",
        "얼굴",
    ]


def test_accents_are_read_alike_however_they_are_stored():
    for text in ("été", "판다", "پس‌زمینهٔ", "パンダ"):
        assert words_in(unicodedata.normalize("NFD", text)) == words_in(text)


@pytest.mark.parametrize(
    ("model", "prompt", "unknown"),
    [
        ("lumina-mini-sound", "a dog barking", ["dog", "barking"]),
        ("lumina-mini-sound", "a violin plays two low notes", []),
        ("lumina-mini-sound", "eine Geige", []),
        ("lumina-mini-speech", "hello red hello", ["hello"]),
        ("lumina-mini-video", "a robot moving to the left", []),
        ("lumina-mini-video", "ein fahrrad bewegt sich nach rechts", []),
        ("lumina-mini-video", "左へ動くパンダの顔", []),
        ("lumina-mini-video", "a robot driving", ["driving"]),
        ("lumina-mini-video", "дракон", ["дракон"]),
        ("lumina-mini-video", "морда панды движется влево", []),
        ("lumina-mini-video", "犬が吠える", ["犬", "吠"]),
        ("lumina-mini-video", "パンダが左へ動く", []),
        ("lumina-mini-video", "ドラゴン", ["ドラゴン"]),
        ("lumina-mini-video", "一只熊猫向左移动", []),
        ("lumina-mini-video", "판다가 왼쪽으로 움직이는", []),
        ("lumina-mini-video", "용이 왼쪽으로 움직이는", ["용이"]),
        ("lumina-mini-video", "🐼", ["🐼"]),
        ("lumina-mini-video", "???", ["???"]),
        ("lumina-mini-video", "3 pandas", ["3", "pandas"]),
        ("lumina-mini-music", "a melody in E♭ major on a piano", []),
        ("lumina-mini-music", "a melody in C# on a piano", ["c#"]),
        ("lumina-mini-music", "a melody in K major on a piano", ["k"]),
        ("lumina-mini-music", "chords at 60 beats per minute", ["60"]),
        ("lumina-mini-music", "和音, 毎分60拍", ["60"]),
        ("lumina-mini-points", "a chair with a tall back", []),
        ("lumina-mini-multiview", "two blue cars", ["two", "cars"]),
        ("lumina-mini", "anything that nobody knows", []),  # of other sources than a world
    ],
)
def test_words_that_were_not_trained_on_are_found(model, prompt, unknown):
    assert unknown_words(model, prompt) == unknown


@pytest.mark.parametrize("name", ["lumina-mini", "lumina-mini-video"])
def test_names_and_words_are_known_without_the_package_of_emoji(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "emoji", None)
    vocabulary.names.cache_clear()
    assert "panda" in known_names(name)["things"]
    assert unknown_words("lumina-mini-video", "a robot driving") == ["driving"]


def test_words_that_cannot_be_checked_are_said(tmp_path, caplog):
    """As those of a world that another version of lumina has."""
    folder = shutil.copytree(WEIGHTS / "lumina-mini-points", tmp_path / "points")
    for record in folder.rglob("training.json"):
        record.write_text('{"recipe": {"world": "gone"}}')
    words = ["generate", "--model", str(folder), "a chair", "--points", "256", "--steps", "1"]
    assert main([*words, "-o", str(tmp_path / "a.ply")]) == 0
    assert "'a chair' was not checked for unknown words: unknown world 'gone'" in caplog.text


def test_models_of_which_nothing_is_known_are_refused(tiny_folder):
    with pytest.raises(LuminaError, match="nothing is known"):
        known_names(tiny_folder)


def test_the_command_lists_names_and_warns_of_words(tmp_path, capsys):
    assert main(["models", "lumina-mini-points"]) == 0
    assert capsys.readouterr().out.startswith("solids: chair, table")
    words = ["generate", "--model", "lumina-mini-points", "a wooden stool", "--points", "256"]
    assert main([*words, "--steps", "1", "-o", str(tmp_path / "a.ply")]) == 0
    told = capsys.readouterr().err
    assert "lumina-mini-points was not trained on the words wooden, stool: `lumina models" in told
