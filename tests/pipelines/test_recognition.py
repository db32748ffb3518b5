import json

import jaxtyping
import numpy as np
import pytest
import torch
from PIL import Image

import lumina
from lumina.catalog import find, load
from lumina.cli import main
from lumina.errors import LuminaError
from lumina.pipelines import recognition
from lumina.pipelines.recognition import MOST_PIXELS, LuminaRecognitionPipeline, load_recognizer


@pytest.fixture
def pipeline(recognizer_folder):
    return LuminaRecognitionPipeline.from_pretrained(recognizer_folder)


@pytest.fixture
def pictures():
    rng = np.random.default_rng(0)
    sizes = ((16, 16), (30, 9), (8, 41), (23, 23))
    return [Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)) for size in sizes]


@pytest.fixture
def files(pictures, tmp_path):
    paths = [tmp_path / f"{number}.png" for number in range(len(pictures))]
    for path, picture in zip(paths, pictures, strict=True):
        picture.save(path)
    return paths


def test_files_and_pictures_alone_or_together_get_the_same_guesses(pipeline, pictures, files):
    together = pipeline(pictures, top=6)
    assert pipeline(files, top=6) == pipeline([str(file) for file in files], top=6) == together
    for picture, expected in zip(pictures, together, strict=True):
        (alone,) = pipeline(picture, top=6)
        assert [guess.label for guess in alone] == [guess.label for guess in expected]
        probabilities = [guess.probability for guess in alone]
        assert probabilities == pytest.approx([guess.probability for guess in expected], abs=1e-5)
        assert sum(probabilities) == pytest.approx(1)


def test_many_pictures_in_parts_have_the_features_that_they_have_at_once(
    pipeline, pictures, monkeypatch
):
    at_once = pipeline.features(pictures)
    monkeypatch.setattr(recognition, "_TOKENS_AT_ONCE", 20)
    torch.testing.assert_close(pipeline.features(pictures), at_once)


def test_top_guesses_are_the_first_of_all(pipeline, pictures):
    everything = pipeline(pictures, top=6)
    assert pipeline(pictures, top=2) == [some[:2] for some in everything]


def test_what_is_transparent_counts_as_white(pipeline):
    clear = Image.new("RGBA", (16, 16), (10, 20, 30, 0))
    white = Image.new("RGB", (16, 16), "white")
    assert pipeline(clear) == pipeline(white)


def test_a_folder_of_it_is_known_to_the_catalog(recognizer_folder, pipeline, pictures):
    checkpoint = find(recognizer_folder)
    assert checkpoint.is_recognizer
    assert checkpoint.defaults == {"size": "16x16"}
    weights = sum(weight.numel() for weight in pipeline.transformer.parameters())
    assert checkpoint.footprint().parameters == weights
    loaded = load(recognizer_folder, dtype="float32", device="cpu")
    assert type(loaded) is lumina.LuminaRecognitionPipeline
    torch.testing.assert_close(loaded.features(pictures), pipeline.features(pictures))


def test_an_index_says_that_diffusers_alone_cannot_open_it(recognizer_folder):
    index = json.loads((recognizer_folder / "model_index.json").read_text())
    assert index["_class_name"] == "LuminaRecognitionPipeline (open it with lumina.load)"
    assert index["id2label"]["1"] == "cat"


def test_labels_are_numbers_where_no_names_are_known(pipeline):
    assert LuminaRecognitionPipeline(pipeline.transformer).labels == list("012345")
    with pytest.raises(ValueError, match="has to name each of 0 to 5"):
        LuminaRecognitionPipeline(pipeline.transformer, {"0": "cat"})


@pytest.mark.parametrize("top", [0, 7, -1])
def test_more_labels_than_there_are_cannot_be_told(pipeline, pictures, top):
    with pytest.raises(LuminaError, match="allowed: 1 to 6"):
        pipeline(pictures, top=top)


def test_no_picture_is_refused(pipeline):
    with pytest.raises(LuminaError, match="there is no picture"):
        pipeline([])


def test_arrays_of_bytes_are_pictures(pipeline, pictures):
    arrays = [np.asarray(picture) for picture in pictures]
    assert pipeline(arrays) == pipeline(pictures)
    assert pipeline(arrays[0]) == pipeline(pictures[0])
    assert pipeline(np.stack([arrays[0]] * 2)) == pipeline([pictures[0]] * 2)


@pytest.fixture
def unchecked():
    """Types as users have them, whom nothing else checks them for."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (None, "NoneType 'None', which is no picture"),
        (3, "int '3', which is no picture"),
        (b"bytes", "bytes .*, which is no picture"),
        ([None], "NoneType 'None', which is no picture"),
        (torch.zeros(1, 3, 16, 16), "Tensor .*, which is no picture"),
        (np.zeros((16, 16, 3)), r"array \(16, 16, 3\) of float64, which is no picture"),
        (np.zeros((16, 16), np.uint8), r"array \(16, 16\) of uint8, which is no picture"),
        ([np.zeros((16, 16, 4), np.uint8)], r"array \(16, 16, 4\) of uint8"),
        (Image.new("RGB", (0, 0)), "a picture of 0x0 pixels shows nothing"),
        (Image.new("RGB", (4, 0)), "a picture of 4x0 pixels shows nothing"),
        (np.zeros((0, 4, 3), np.uint8), "a picture of 4x0 pixels shows nothing"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_something_else_than_a_picture_is_refused(pipeline, given, told):
    for recognize in (pipeline, pipeline.features):
        with pytest.raises(LuminaError, match=told):
            recognize(given)


@pytest.mark.parametrize("top", [2.5, True, "3", None])
@pytest.mark.usefixtures("unchecked")
def test_a_number_of_labels_is_a_whole_number(pipeline, pictures, top):
    with pytest.raises(LuminaError, match="which is no whole number\nhint: allowed: 1 to 6"):
        pipeline(pictures, top=top)


def test_a_huge_picture_is_refused_with_the_limit(pipeline, tmp_path):
    huge = Image.new("L", (MOST_PIXELS, 2))
    huge.save(tmp_path / "huge.png")
    for given in (huge, tmp_path / "huge.png"):
        with pytest.raises(LuminaError, match="allowed: 262,144 pixels"):
            pipeline(given)


def test_a_line_of_pixels_is_as_many_patches_as_it_is_long(pipeline):
    line = Image.new("L", (MOST_PIXELS, 1))
    with pytest.raises(LuminaError, match="allowed: 8,192, those that are not full included"):
        pipeline(line)


def test_the_largest_picture_is_taken(pipeline):
    patch = pipeline.transformer.config["patch_size"]
    assert pipeline(Image.new("RGB", (128 * patch, patch)))


@pytest.mark.parametrize("content", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n broken"])
def test_what_is_no_picture_is_refused(pipeline, tmp_path, content):
    path = tmp_path / "damaged.png"
    path.write_bytes(content)
    with pytest.raises(LuminaError, match="not a picture"):
        pipeline(path)


def test_a_missing_file_is_named(pipeline, tmp_path):
    with pytest.raises(LuminaError, match="absent.png"):
        pipeline(tmp_path / "absent.png")


@pytest.fixture
def recognize(recognizer_folder, capsys):
    def recognize(*arguments):
        words = ["recognize", *map(str, arguments), "--model", str(recognizer_folder)]
        return main([*words, "--dtype", "float32", "--device", "cpu"]), *capsys.readouterr()

    return recognize


def test_the_command_prints_what_the_pipeline_says(recognize, pipeline, files):
    code, printed, _ = recognize(*files, "--top", "2", "--json")
    assert code == 0
    told = json.loads(printed)
    assert [entry["file"] for entry in told] == [str(file) for file in files]
    for entry, expected in zip(told, pipeline(files, top=2), strict=True):
        assert [guess["label"] for guess in entry["guesses"]] == [g.label for g in expected]
    code, printed, _ = recognize(files[0], "--top", "2")
    first, *lines = printed.splitlines()
    assert first == str(files[0])
    assert len(lines) == 2
    assert all("%" in line for line in lines)


def test_the_command_needs_a_picture_and_a_good_one(recognize, files, tmp_path):
    assert recognize()[0] == 1
    (tmp_path / "text.txt").write_text("no picture")
    code, printed, told = recognize(files[0], tmp_path / "text.txt")
    assert (code, printed) == (1, "")
    assert "text.txt is not a picture" in told
    code, _, told = recognize(files[0], "--top", "0")
    assert code == 1
    assert "allowed: 1 to 6" in told


def test_models_that_make_pictures_do_not_recognize_and_the_other_way_round(
    tiny_folder, recognizer_folder, capsys
):
    with pytest.raises(LuminaError, match="makes pictures"):
        load_recognizer(tiny_folder)
    assert main(["generate", "a cat", "--model", str(recognizer_folder)]) == 1
    assert "tells what pictures show" in capsys.readouterr().err
