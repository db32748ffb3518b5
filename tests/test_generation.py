from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import lumina
from lumina.catalog import find
from lumina.errors import LuminaError
from lumina.flow.scheduler import FlowSolverScheduler
from lumina.generation import run
from lumina.media import read_record, write_png
from lumina.media.sound import write_sound
from lumina.planning import plan, settings_of


@pytest.fixture
def settings(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return {"model": str(tiny_folder), "steps": 2, "seed": 5, "device": "cpu"}


def pixels(path):
    return Image.open(path).tobytes()


def draw(prompts, settings, **options):
    return plan("generate", settings, prompts=prompts, **options)


def refusal(*arguments, **options):
    with pytest.raises(LuminaError) as caught:
        draw(*arguments, **options)
    return str(caught.value)


def test_a_picture_is_named_after_its_prompt_and_seed_and_numbered(settings):
    first, *_ = run(draw(["A cat!"], settings))
    second, *_ = run(draw(["A cat!"], settings))
    assert [first, second] == [Path("a-cat-5.png"), Path("a-cat-5-2.png")]
    assert pixels(first) == pixels(second)


def test_every_setting_is_stored_with_the_value_that_was_used(settings):
    (path,) = run(draw(["a cat"], settings | {"dtype": "auto"}))
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
            "tolerance": None,
            "diffusion": None,
            "diffusion_norm": None,
            "last_step": None,
            "last_step_size": None,
            "text_encoder": None,
            "vae": None,
            "loras": [],
            "times": None,
            "resolution_shift": False,
            "guidance_interval": None,
            "guidance_rescale": None,
            "guide_all": False,
            "extrapolation": None,
            "scale_by": None,
            "context_drop": None,
            "tiled": False,
            "two_stage": False,
        }
        | settings
    )
    assert record["request"]["dtype"] in ("float32", "bfloat16")
    assert set(record) == {"version", "task", "model_hash", "request"}
    assert record["task"] == "generate"


def test_each_of_several_pictures_is_made_again_alone_from_its_file(settings):
    paths = list(run(draw(["a cat", "a dog"], settings, images=2, output=Path("many"))))
    assert [path.name for path in paths] == [
        "a-cat-5.png",
        "a-cat-6.png",
        "a-dog-7.png",
        "a-dog-8.png",
    ]
    stored = settings_of(paths[2])
    (again,) = run(draw([stored["prompt"]], stored, output=Path("again.png")))
    assert pixels(again) == pixels(paths[2])
    assert pixels(paths[0]) != pixels(paths[1])


def test_without_a_name_several_pictures_go_into_a_new_folder(settings):
    paths = list(run(draw(["a cat"], settings, images=2)))
    assert paths == [Path("a-cat-5/a-cat-5.png"), Path("a-cat-5/a-cat-6.png")]
    assert draw(["a cat"], settings, images=2).output == Path("a-cat-5-2")


def test_a_random_seed_is_chosen_when_none_is_given(settings):
    del settings["seed"]
    seeds = {draw(["a cat"], settings).requests[0].seed for _ in range(3)}
    assert len(seeds) == 3


def test_a_grid_is_one_file_that_holds_the_request_of_each_picture(settings):
    (path,) = run(draw(["a cat", "a dog"], settings, grid=True, output=Path("grid.png")))
    assert [request["prompt"] for request in read_record(path)["requests"]] == ["a cat", "a dog"]
    (alone,) = run(draw(["a dog"], settings | {"seed": 6}))
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
    pictures = [pixels(*run(draw([prompt], settings | extra))) for extra, prompt in variants]
    assert len(set(pictures)) == len(variants)


def test_previews_lead_to_the_picture(settings):
    job = draw(["a cat"], settings | {"steps": 4}, preview=Path("steps"))
    (path,) = run(job)
    names = [f"a-cat-5-step-{step:03}.png" for step in (1, 2, 3, 4)]
    assert sorted(file.name for file in Path("steps").iterdir()) == names
    final, last = (
        np.asarray(Image.open(file), float) for file in (path, Path("steps") / names[-1])
    )
    # Rounding to 8 bits may fall on either side.
    assert np.abs(final - last).max() <= 1


def previews(*prompts, settings, **options):
    """Names of the previews of a job, and when each was written."""
    list(run(draw(prompts, settings, preview=Path("steps"), **options)))
    return {file.name: file.stat().st_mtime_ns for file in Path("steps").iterdir()}


def test_previews_of_two_stages_are_counted_on(settings):
    chosen = settings | {"steps": 4, "two_stage": True, "size": "128x128"}
    names = previews("a cat", settings=chosen)
    assert sorted(names) == [f"a-cat-5-step-{step:03}.png" for step in range(1, 8)]
    sizes = [Image.open(Path("steps") / name).size for name in sorted(names)]
    assert sizes == [(64, 64)] * 4 + [(128, 128)] * 3


@pytest.mark.parametrize("force", [False, True])
def test_previews_of_requests_of_one_name_are_told_apart(settings, force):
    names = previews("a cat", settings=settings, vary=["guidance=1,4"], force=force)
    assert sorted(names) == [
        f"a-cat-5{number}-step-{step:03}.png" for number in ("-2", "") for step in (1, 2)
    ]


def test_previews_that_are_there_are_replaced_only_by_force(settings):
    first = previews("a cat", settings=settings)
    second = previews("a cat", settings=settings | {"steps": 1})
    assert second.keys() - first.keys() == {"a-cat-5-2-step-001.png"}
    assert first.items() <= second.items()
    third = previews("a cat", settings=settings, force=True)
    assert third.keys() == second.keys()
    assert {name for name in third if third[name] != second[name]} == first.keys()


def test_previews_of_several_pictures_are_kept_as_well(settings, tiny_folder):
    def style():
        options = {"source": None, "preview": Path("steps"), "output": Path("set")}
        list(run(plan("style", settings | {"prompts": ("a cat", "a dog")}, **options)))
        return {file.name: file.read_bytes() for file in Path("steps").iterdir()}

    first, second = style(), style()
    assert len(second) == 2 * len(first) == 8
    assert first.items() <= second.items()


def test_a_size_other_than_the_trained_one_is_made(settings):
    (path,) = run(draw(["a cat"], settings | {"size": "96x48"}))
    assert Image.open(path).size == (96, 48)


def test_a_size_that_does_not_fit_into_memory_is_refused_with_one_that_does(settings):
    told = refusal(["a cat"], settings | {"size": "1600000x1600000"})
    assert "GB of memory" in told
    width, height = told.rpartition(" ")[2].split("x")
    draw(["a cat"], settings | {"size": f"{width}x{height}"})


def test_an_existing_file_is_replaced_only_by_force(settings):
    Path("a.png").write_bytes(b"precious")
    assert "--force" in refusal(["a cat"], settings, output=Path("a.png"))
    assert Path("a.png").read_bytes() == b"precious"
    list(run(draw(["a cat"], settings, output=Path("a.png"), force=True)))
    assert Image.open("a.png").size == (64, 64)


@pytest.mark.parametrize("place", ["file/new/a.png", "/proc/a.png", "file/a.png", "file/folder"])
def test_a_place_that_cannot_be_written_is_refused(settings, place):
    Path("file").touch()
    assert "cannot" in refusal(["a cat"], settings, output=Path(place))


def test_the_folder_of_a_file_is_made(settings):
    assert draw(["a cat"], settings, output=Path("new/folder/a.png")).output.parent.is_dir()


def test_an_interval_of_guidance_between_two_steps_is_told(settings, caplog):
    chosen = settings | {"guidance_interval": (0.1, 0.4), "solver": "euler"}
    list(run(draw(["a cat"], chosen)))
    assert "no step begins within --guidance-interval 0.1,0.4" in caplog.text
    caplog.clear()
    list(run(draw(["a cat"], chosen | {"steps": 4})))
    assert not caplog.text


def test_a_negative_prompt_without_guidance_is_warned_of(settings, caplog):
    chosen = settings | {"steps": 1, "negative": "a dog"}
    list(run(draw(["a cat"], chosen | {"guidance": 2.0})))
    assert not caplog.text
    list(run(draw(["a cat"], chosen | {"guidance": 1.0})))
    assert "--negative has no effect without guidance" in caplog.text


def test_only_png_files_are_written(settings):
    assert "a.jpg does not end in .png" in refusal(["a cat"], settings, output=Path("a.jpg"))


@pytest.mark.parametrize("options", [{"grid": True}, {"vary": ["guidance=1,2"]}], ids=str)
def test_a_grid_of_clips_is_told_to_be_a_picture(options):
    chosen = {"model": "lumina-mini-video", "device": "cpu"}
    with pytest.raises(LuminaError, match=r"grid.mp4 does not end in .png") as caught:
        draw(["a cat"], chosen, output=Path("grid.mp4"), **options)
    assert "name a file that ends in .png" in caught.value.hint
    assert "--model" not in caught.value.hint


@pytest.mark.parametrize(
    ("model", "vary"),
    [
        ("lumina-mini-multiview", "each=false,true"),
        ("lumina-mini-multiview", "each=true,false"),
        ("lumina-mini-sound", "spectrogram=false,true"),
    ],
)
def test_files_beside_some_results_of_a_table_are_refused(tmp_path, model, vary):
    chosen = {"model": model, "device": "cpu"}
    told = refusal(["a red car"], chosen, vary=[vary], output=tmp_path / "table.png")
    assert "does not fit into one picture" in told
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("model", ["lumina-mini-video", "lumina-mini-speech"])
def test_a_preset_for_other_media_is_refused_before_anything_is_loaded(model):
    chosen = {"model": model, "device": "cpu", "preset": "original"}
    told = refusal(["a red car"], chosen)
    assert f"{model} is a model of " in told
    assert "for which --preset has no meaning" in told


def test_the_preset_of_a_picture_is_left_out_for_other_media(settings, caplog):
    (path,) = run(draw(["a car"], settings | {"steps": 1, "preset": "original"}))
    job = draw([], {"model": "lumina-mini-points"}, source=path)
    assert job.requests[0].preset is None
    assert "--preset" in caplog.text


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
    job = draw(["a cat"], settings | choice)
    (path,) = run(job, told.append)
    assert told == ["evaluations: 4 pairs, 8 passes through the network for each result"]
    pipeline = lumina.load(tiny_folder, dtype="float32", device="cpu")
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = FlowSolverScheduler(solver="midpoint", schedule="sigmoid", shift=2.0)
    generator = torch.Generator().manual_seed(5)
    picture = pipeline("a cat", num_inference_steps=2, generator=generator).images[0]
    assert np.array_equal(np.asarray(Image.open(path)), np.asarray(picture))


SHARED = {
    "guidance_interval": (0.1, 0.8),
    "guidance_rescale": 0.7,
    "guide_all": True,
    "extrapolation": "time-aware",
    "scale_by": "axis",
    "context_drop": "all",
    "times": (0.0, 0.1, 1.0),
    "resolution_shift": True,
    "negative": "fur",
}


@pytest.mark.parametrize("name", SHARED)
def test_every_setting_changes_the_picture(settings, name):
    larger = settings | {"size": "96x48"}
    chosen = larger | {name: SHARED[name]}
    usual, other = (next(iter(run(draw(["a cat"], each)))) for each in (larger, chosen))
    assert pixels(usual) != pixels(other)


def test_decoding_in_tiles_makes_the_picture_and_ends_with_it(settings):
    tiled, whole = (
        np.asarray(Image.open(next(iter(run(draw(["a cat"], settings | {"tiled": tiled}))))), float)
        for tiled in (True, False)
    )
    assert np.abs(tiled - whole).max() <= 1


def test_times_are_stopped_at_whatever_the_scheduler_would_do(settings, tiny_folder):
    del settings["steps"]
    (path,) = run(draw(["a cat"], settings | {"times": (0, 0.1, 0.4, 1), "dtype": "float32"}))
    assert read_record(path)["request"]["steps"] == 3
    pipeline = lumina.load(tiny_folder, dtype="float32", device="cpu")
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(5)
    picture = pipeline("a cat", sigmas=[1, 0.9, 0.6], generator=generator).images[0]
    difference = np.asarray(Image.open(path), float) - np.asarray(picture, float)
    assert np.abs(difference).max() <= 1


def test_a_chosen_setting_replaces_those_of_a_file_that_say_the_same(settings):
    del settings["steps"]
    (path,) = run(draw(["a cat"], settings | {"times": (0, 0.4, 1)}))
    assert draw([], {"steps": 3}, source=path).requests[0].times is None
    (path,) = run(draw(["a cat"], settings | {"steps": 2, "schedule": "sigmoid", "shift": 2.0}))
    request = draw([], {"times": (0, 0.4, 0.5, 1)}, source=path).requests[0]
    assert (request.steps, request.schedule, request.shift) == (3, None, None)


def test_resolution_shift_depends_on_the_size_alone(settings):
    trained, larger = (
        [
            pixels(next(iter(run(draw(["a cat"], settings | {"size": size} | shift)))))
            for shift in ({"resolution_shift": True}, {"shift": factor})
        ]
        for size, factor in (("64x64", 1.0), ("128x128", 2.0))
    )
    assert trained[0] == trained[1]
    assert larger[0] == larger[1]


def test_a_table_has_rows_by_the_first_setting_and_columns_by_the_second(settings):
    del settings["steps"]
    job = draw(["a cat"], settings, vary=["guidance=1,4", "steps=1,2,3"], output=Path("t.png"))
    (path,) = run(job)
    requests = read_record(path)["requests"]
    assert [(r["guidance"], r["steps"]) for r in requests] == [
        (guidance, steps) for guidance in (1, 4) for steps in (1, 2, 3)
    ]
    assert {r["seed"] for r in requests} == {5}
    (alone,) = run(draw(["a cat"], settings | {"guidance": 4.0, "steps": 3}))
    table, last = Image.open(path), Image.open(alone)
    corner = (table.width - 64, table.height - 68, table.width, table.height - 4)
    assert table.crop(corner).tobytes() == last.tobytes()


def test_further_settings_prompts_and_images_make_a_table_each(settings):
    del settings["steps"]
    job = draw(
        ["a cat", "a dog"],
        settings,
        images=2,
        vary=["guidance=1,2", "steps=1,2", "solver=euler,heun"],
    )
    assert len(job.requests) == 2 * 2 * 2 * 4
    first = job.requests[:4]
    assert {(r.prompt, r.seed, r.solver) for r in first} == {("a cat", 5, "euler")}
    assert {(r.prompt, r.seed, r.solver) for r in job.requests[-4:]} == {("a dog", 8, "heun")}
    (large,) = run(job)
    (small,) = run(draw(["a cat"], settings, vary=["guidance=1,2", "steps=1,2"]))
    assert Image.open(large).height > 8 * Image.open(small).height


def test_prompts_seeds_sizes_and_models_can_vary(settings, tiny_folder, own_folder):
    del settings["seed"]
    axes = ["prompt=a cat, sitting|a dog", "seed=3,4", "size=64x64,96x48"]
    job = draw([], settings, vary=axes)
    assert [r.prompt for r in job.requests[:4]] == ["a cat, sitting"] * 2 + ["a dog"] * 2
    assert [r.seed for r in job.requests[:2]] == [3, 4]
    (path,) = run(job)
    del settings["model"]
    (path,) = run(draw(["a cat"], settings, vary=[f"model={tiny_folder},{own_folder}"]))
    assert set(read_record(path)["model_hashes"]) == {str(tiny_folder), str(own_folder)}


@pytest.mark.parametrize(
    ("vary", "told"),
    [
        (["guidanc=2,4"], "did you mean 'guidance'?"),
        (["guidance=2,high"], "guidance is 'high', not a number"),
        (["guidance=2,50"], "allowed: 1 to 20"),
        (["guidance="], "lacks a value"),
        (["guidance"], "lacks a value"),
        (["steps=1,2"], "steps is given twice"),
        (["guidance=1,2", "guidance=3"], "guidance is given twice"),
        (["prompt=a|b"], "prompt is given twice"),
        (["solver=euler,midpint"], "did you mean 'midpoint'?"),
        (["tiled=true,maybe"], "tiled is 'maybe', not true or false"),
    ],
    ids=str,
)
def test_what_cannot_vary_is_refused(settings, vary, told):
    assert told in refusal(["a cat"], settings, vary=vary)


@pytest.fixture
def sound_file(settings):
    """A file of the model of sound, with what is usual for it."""
    pytest.importorskip("soundfile")
    usual = find("lumina-mini-sound").defaults
    request = {"prompt": "a cat", "model": "lumina-mini-sound", "seed": 5}
    request |= {"steps": usual["steps"], "guidance": usual["guidance"]}
    path = Path("a.wav")
    record = {"task": "generate", "modality": "sound", "model_hash": "0", "request": request}
    write_sound(path, np.zeros(4096, np.float32), record)
    return path


def test_what_was_usual_for_the_model_of_a_file_is_that_of_the_new_one(sound_file, caplog):
    usual = find("lumina-mini-music").defaults
    job = plan("generate", {"model": "lumina-mini-music"}, source=sound_file)
    (request,) = job.requests
    assert (request.steps, request.guidance) == (usual["steps"], usual["guidance"])
    assert "--guidance is 2.5, as is usual for lumina-mini-music; the file has 4.0" in caplog.text
    assert "--steps" not in caplog.text  # which are as many


def test_what_was_chosen_for_a_file_holds_for_a_new_model(sound_file, caplog):
    given = {"model": "lumina-mini-music"}
    (chosen,) = plan("generate", given | {"guidance": 4.0}, source=sound_file).requests
    assert chosen.guidance == 4.0
    record = read_record(sound_file)
    record["request"] |= {"guidance": 7.0}
    write_sound(Path("b.wav"), np.zeros(4096, np.float32), record)
    (kept,) = plan("generate", given, source=Path("b.wav")).requests
    assert kept.guidance == 7.0
    assert not caplog.text


def test_settings_for_a_plane_are_refused_for_a_flag_dit(settings, tmp_path):
    config = {"hidden_size": 48, "num_layers": 1, "num_attention_heads": 2, "multiple_of": 16}
    lumina.FlagDiT(sample_size=8, cross_attention_dim=16, **config).save_pretrained("flag")
    flag = settings | {"model": "flag"}
    assert "have one axis" in refusal(["a cat"], flag | {"scale_by": "axis"})
    assert "sees one sequence" in refusal(["a cat"], flag | {"context_drop": "all"})
    draw(["a cat"], flag | {"scale_by": "area", "context_drop": "none"})


def test_tiles_allow_for_larger_pictures(settings, monkeypatch):
    large = settings | {"size": "1600000x1600000"}
    whole, tiled = (
        int(refusal(["a cat"], large | {"tiled": tiled}).rpartition("x")[2])
        for tiled in (False, True)
    )
    assert tiled > 1.3 * whole
