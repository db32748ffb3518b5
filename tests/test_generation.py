from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import lumina
from lumina.errors import LuminaError
from lumina.flow.scheduler import FlowSolverScheduler
from lumina.generation import plan, run, settings_of
from lumina.media import read_record, write_png


@pytest.fixture
def settings(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return {"model": str(tiny_folder), "steps": 2, "seed": 5, "device": "cpu"}


def pixels(path):
    return Image.open(path).tobytes()


def refusal(*arguments, **options):
    with pytest.raises(LuminaError) as caught:
        plan(*arguments, **options)
    return str(caught.value)


def test_a_picture_is_named_after_its_prompt_and_seed_and_numbered(settings):
    first, *_ = run(plan(["A cat!"], settings))
    second, *_ = run(plan(["A cat!"], settings))
    assert [first, second] == [Path("a-cat-5.png"), Path("a-cat-5-2.png")]
    assert pixels(first) == pixels(second)


def test_every_setting_is_stored_with_the_value_that_was_used(settings):
    (path,) = run(plan(["a cat"], settings | {"dtype": "auto"}))
    record = read_record(path)
    assert (
        record["request"]
        == {
            "prompt": "a cat",
            "negative": "",
            "size": "64x64",
            "guidance": 4.0,
            "dtype": record["request"]["dtype"],
            "preset": None,
            "schedule": None,
            "shift": None,
            "solver": None,
            "text_encoder": None,
            "vae": None,
        }
        | settings
    )
    assert record["request"]["dtype"] in ("float32", "bfloat16")
    assert set(record) == {"version", "model_hash", "request"}


def test_each_of_several_pictures_is_made_again_alone_from_its_file(settings):
    paths = list(run(plan(["a cat", "a dog"], settings, images=2, output=Path("many"))))
    assert [path.name for path in paths] == [
        "a-cat-5.png",
        "a-cat-6.png",
        "a-dog-7.png",
        "a-dog-8.png",
    ]
    stored = settings_of(paths[2])
    (again,) = run(plan([stored["prompt"]], stored, output=Path("again.png")))
    assert pixels(again) == pixels(paths[2])
    assert pixels(paths[0]) != pixels(paths[1])


def test_without_a_name_several_pictures_go_into_a_new_folder(settings):
    paths = list(run(plan(["a cat"], settings, images=2)))
    assert paths == [Path("a-cat-5/a-cat-5.png"), Path("a-cat-5/a-cat-6.png")]
    assert plan(["a cat"], settings, images=2).output == Path("a-cat-5-2")


def test_a_random_seed_is_chosen_when_none_is_given(settings):
    del settings["seed"]
    seeds = {plan(["a cat"], settings).requests[0].seed for _ in range(3)}
    assert len(seeds) == 3


def test_a_grid_is_one_file_that_holds_the_request_of_each_picture(settings):
    (path,) = run(plan(["a cat", "a dog"], settings, grid=True, output=Path("grid.png")))
    assert [request["prompt"] for request in read_record(path)["requests"]] == ["a cat", "a dog"]
    (alone,) = run(plan(["a dog"], settings | {"seed": 6}))
    dog = Image.open(alone)
    assert Image.open(path).crop((68, 0, 132, 64)).tobytes() == dog.tobytes()
    with pytest.raises(LuminaError, match="is a grid of 2 pictures"):
        settings_of(path)


def test_the_prompt_and_the_negative_prompt_change_the_picture(settings):
    variants = [
        ({}, "a cat"),
        ({}, "a dog"),
        ({"negative": "fur"}, "a cat"),
        ({"guidance": 1.0}, "a cat"),
    ]
    pictures = [pixels(*run(plan([prompt], settings | extra))) for extra, prompt in variants]
    assert len(set(pictures)) == len(variants)


def test_previews_lead_to_the_picture(settings):
    job = plan(["a cat"], settings | {"steps": 4}, preview=Path("steps"))
    (path,) = run(job)
    names = [f"a-cat-5-step-{step:03}.png" for step in (2, 3, 4)]
    assert sorted(file.name for file in Path("steps").iterdir()) == names
    final, last = (
        np.asarray(Image.open(file), float) for file in (path, Path("steps") / names[-1])
    )
    # Rounding to 8 bits may fall on either side.
    assert np.abs(final - last).max() <= 1


def test_a_size_other_than_the_trained_one_is_made(settings):
    (path,) = run(plan(["a cat"], settings | {"size": "96x48"}))
    assert Image.open(path).size == (96, 48)


def test_a_size_that_does_not_fit_into_memory_is_refused_with_one_that_does(settings):
    told = refusal(["a cat"], settings | {"size": "1600000x1600000"})
    assert "GB of memory" in told
    width, height = told.rpartition(" ")[2].split("x")
    plan(["a cat"], settings | {"size": f"{width}x{height}"})


def test_an_existing_file_is_replaced_only_by_force(settings):
    Path("a.png").write_bytes(b"precious")
    assert "--force" in refusal(["a cat"], settings, output=Path("a.png"))
    assert Path("a.png").read_bytes() == b"precious"
    list(run(plan(["a cat"], settings, output=Path("a.png"), force=True)))
    assert Image.open("a.png").size == (64, 64)


@pytest.mark.parametrize("place", ["nowhere/a.png", "/proc/a.png", "file/a.png", "file/folder"])
def test_a_place_that_cannot_be_written_is_refused(settings, place):
    Path("file").touch()
    assert "cannot" in refusal(["a cat"], settings, output=Path(place))


def test_only_png_files_are_written(settings):
    assert "a.jpg is no PNG file" in refusal(["a cat"], settings, output=Path("a.jpg"))


def test_several_pictures_do_not_fit_into_one_file(settings):
    assert "--grid" in refusal(["a cat", "a dog"], settings, output=Path("a.png"))


def test_no_pictures_are_refused(settings):
    assert "images is 0" in refusal(["a cat"], settings, images=0)


def test_nothing_is_left_behind_by_a_refusal(settings, tmp_path):
    refusal(["a cat"], settings | {"device": "cuda:99"}, output=Path("a.png"))
    assert list(tmp_path.iterdir()) == []


def test_settings_of_a_later_version_are_refused(tmp_path):
    path = tmp_path / "a.png"
    write_png(path, Image.new("RGB", (8, 8)), {"request": {"prompt": "a", "sparkle": 3}})
    with pytest.raises(LuminaError, match="unknown setting 'sparkle'"):
        settings_of(path)


def test_a_solver_and_a_schedule_are_used_and_what_they_cost_is_told(settings, tiny_folder):
    told = []
    choice = {"solver": "midpoint", "schedule": "sigmoid", "shift": 2.0, "dtype": "float32"}
    job = plan(["a cat"], settings | choice)
    (path,) = run(job, told.append)
    assert told == ["evaluations: 4 pairs, 8 passes through the network for each picture"]
    pipeline = lumina.load(tiny_folder, dtype="float32", device="cpu")
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = FlowSolverScheduler(solver="midpoint", schedule="sigmoid", shift=2.0)
    generator = torch.Generator().manual_seed(5)
    picture = pipeline("a cat", num_inference_steps=2, generator=generator).images[0]
    assert np.array_equal(np.asarray(Image.open(path)), np.asarray(picture))
