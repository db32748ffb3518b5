"""What an evaluation that was stopped has made is not made again."""

import numpy as np
import pytest

from lumina.catalog import load
from lumina.errors import LuminaError
from lumina.evaluation import media
from lumina.evaluation.clouds import CloudExam
from lumina.evaluation.keeping import FOLDER, Keeper
from lumina.evaluation.results import GRID, RESULT
from lumina.media import read_record
from lumina.pipelines.images import Evaluations


def medium(number):
    return np.full((2, 3), number, np.float32)


def keeper_of(folder, **identity):
    return Keeper(folder, identity, lambda: Evaluations(pairs=3, singles=1))


def refuse():
    raise AssertionError("it was there already")


def test_what_was_made_comes_back(tmp_path):
    made = keeper_of(tmp_path, model="a").make(4, lambda: [medium(4), medium(5)])
    again = keeper_of(tmp_path, model="a")
    for one, same in zip(again.make(4, refuse), made, strict=True):
        np.testing.assert_array_equal(one, same)
        assert one.dtype == same.dtype
    assert again.seconds > 0
    assert again.evaluations == Evaluations(pairs=3, singles=1)
    assert again.make(6, lambda: [medium(6)])[0][0, 0] == 6


def test_order_is_kept_beyond_ten(tmp_path):
    many = [medium(number) for number in range(12)]
    keeper_of(tmp_path).make(0, lambda: many)
    assert [int(one[0, 0]) for one in keeper_of(tmp_path).make(0, refuse)] == list(range(12))


def test_what_something_else_has_made_is_not_taken(tmp_path):
    keeper_of(tmp_path, model="a").make(0, lambda: [medium(0)])
    with pytest.raises(LuminaError, match="of something else") as caught:
        keeper_of(tmp_path, model="b")
    assert f"remove {tmp_path / FOLDER}" in str(caught.value)


def test_files_of_others_are_left_alone(tmp_path):
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "mine.txt").write_text("dear")
    with pytest.raises(LuminaError, match="holds other files"):
        keeper_of(tmp_path)
    assert (tmp_path / FOLDER / "mine.txt").read_text() == "dear"


def test_without_a_folder_nothing_is_kept():
    keeper = keeper_of(None)
    keeper.make(0, lambda: [medium(0)])
    assert keeper.make(0, lambda: [medium(1)])[0][0, 0] == 1
    keeper.forget()


def test_nothing_is_left_of_it_in_the_end(tmp_path):
    keeper = keeper_of(tmp_path)
    keeper.make(0, lambda: [medium(0)])
    keeper.forget()
    assert not list(tmp_path.iterdir())


def stop_when_two_are_made(line):
    if line.startswith("2 of"):
        raise KeyboardInterrupt


@pytest.mark.usefixtures("few_clouds")
def test_a_stopped_evaluation_goes_on(tmp_path, points_folder):
    """It ends as one that was not stopped, and makes nothing twice."""
    pipeline = load(points_folder, device="cpu", dtype="float32")
    pipeline.set_progress_bar_config(disable=True)
    how = {"steps": 1, "guidance": 2.0, "languages": ["fr"], "names": 2, "batch_size": 1}
    whole = media.evaluate(pipeline, CloudExam({}), **how)
    how |= {"output": tmp_path, "model": "a"}
    with pytest.raises(KeyboardInterrupt):
        media.evaluate(pipeline, CloudExam({}), progress=stop_when_two_are_made, **how)
    for number, file in enumerate(sorted((tmp_path / FOLDER).glob("*.npz"))):
        with np.load(file) as kept:
            arrays = dict(kept)
        # What is made again would not be so far away.
        np.savez(file, **arrays | {"0": arrays["0"] + 100 * (number + 1)})
    for other in ({"model": "b"}, {"guidance": 3.0}, {"names": 1}):
        with pytest.raises(LuminaError, match="of something else, or in another way"):
            media.evaluate(pipeline, CloudExam({}), **how | other)
    resumed = media.evaluate(pipeline, CloudExam({}), **how)
    assert [one["right"] for one in resumed["samples"][2:]] == [
        one["right"] for one in whole["samples"][2:]
    ]
    assert resumed["lines"][1] != whole["lines"][1]  # how near they are to true ones
    assert resumed["evaluations"] == whole["evaluations"]
    assert {path.name for path in tmp_path.iterdir()} >= {"grid.png", "result.json"}
    assert not (tmp_path / FOLDER).exists()


def stop_when_all_are_made(line):
    if line.startswith("judging"):
        raise KeyboardInterrupt


@pytest.mark.usefixtures("few_clouds")
def test_an_evaluation_that_was_stopped_while_it_wrote_goes_on(tmp_path, points_folder):
    """A grid without a result is written once more; one beside nothing that was begun is kept."""
    pipeline = load(points_folder, device="cpu", dtype="float32")
    pipeline.set_progress_bar_config(disable=True)
    how = {"steps": 1, "languages": ["en"], "names": 1, "output": tmp_path, "model": "a"}
    with pytest.raises(KeyboardInterrupt):
        media.evaluate(pipeline, CloudExam({}), progress=stop_when_all_are_made, **how)
    assert not (tmp_path / RESULT).exists()
    (tmp_path / GRID).write_text("half a picture")
    result = media.evaluate(pipeline, CloudExam({}), **how)
    assert read_record(tmp_path / GRID)["settings"] == result["settings"]
    assert (tmp_path / RESULT).is_file()
    with pytest.raises(LuminaError, match=f"{GRID} exists"):
        media.evaluate(pipeline, CloudExam({}), **how)
