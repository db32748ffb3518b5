"""Every task from its command line to its files, with a tiny random model."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

import lumina
from lumina.cli import main
from lumina.errors import LuminaError
from lumina.media import read_record
from lumina.planning import plan
from lumina.requests import TextRequest
from lumina.settings import names_of
from lumina.tasks import TASKS

WORDS = {
    "generate": ["a cat"],
    "edit": ["photo.png", "a dog", "--strength", "0.5"],
    "inpaint": ["photo.png", "mask.png", "a dog"],
    "outpaint": ["photo.png", "a dog", "--size", "96x64"],
    "upscale": ["photo.png", "a dog", "--size", "96x96"],
    "variations": ["photo.png", "a dog", "--images", "1"],
    "interpolate": ["a cat", "a dog", "--frames", "3"],
    "compose": [*["--region", "0,0,64,64=a cat"], *["--region", "64,0,32,64=a dog"]]
    + ["--size", "96x64"],
    "style": ["a cat", "a dog"],
    "anagram": ["--view", "identity=a cat", "--view", "rotate180=a dog"],
    "panorama": ["a cat", "--size", "128x64"],
    "tile": ["a cat"],
}
SEVERAL = {"interpolate": 3, "style": 2}


NEEDS = {"style": "LuminaStylePipeline", "compose": "LuminaComposePipeline"}


def skip_if_missing(name: str) -> None:
    if name in NEEDS and NEEDS[name] not in lumina.__all__:
        pytest.skip("the pipeline is not there")


def distance(first: str, second: str) -> float:
    """Largest difference of pixels, of 255: sums of another order round in another way."""
    one, other = (np.asarray(Image.open(path), float) for path in (first, second))
    return np.abs(one - other).max()


@pytest.fixture
def command(tiny_folder, tmp_path, monkeypatch, capfd):
    """Run a task of two steps in a folder with a photo and a mask: code, output, messages."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save("photo.png")
    mask = Image.new("L", (64, 64))
    ImageDraw.Draw(mask).rectangle((16, 16, 40, 40), fill=255)
    mask.save("mask.png")

    def command(*arguments):
        usual = {"--model": tiny_folder, "--steps": 2, "--seed": 5, "--device": "cpu"} | {
            "--dtype": "float32"
        }
        if "--from" in arguments:
            usual = {}
        added = [str(x) for pair in usual.items() if pair[0] not in arguments for x in pair]
        return main([*map(str, arguments), *added]), *capfd.readouterr()

    return command


def refused(result):
    code, output, messages = result
    assert (code, output) == (1, "")
    lines = [line for line in messages.splitlines() if not line.startswith("warning: ")]
    assert [line.partition(":")[0] for line in lines] == ["error", "hint"]
    return messages


@pytest.mark.parametrize("name", TASKS)
def test_a_task_makes_its_pictures_again_from_one_of_their_files(command, name):
    skip_if_missing(name)
    code, output, messages = command(name, *WORDS[name], "-o", "first")
    assert code == 0, messages
    first = output.splitlines()
    assert len(first) == SEVERAL.get(name, 1)
    record = read_record(first[-1])
    assert record["task"] == name
    assert set(record["request"]) == set(names_of(TASKS[name].request))
    code, output, messages = command(name, "--from", first[-1], "-o", "again")
    assert code == 0, messages
    again = output.splitlines()
    for one, other in zip(first, again, strict=True):
        assert Image.open(one).tobytes() == Image.open(other).tobytes()
        assert read_record(one)["request"] == read_record(other)["request"]


@pytest.mark.parametrize("name", SEVERAL)
def test_results_that_are_several_pictures_make_one_labelled_file(command, name):
    skip_if_missing(name)
    code, output, messages = command(name, *WORDS[name], "--grid", "-o", "all.png")
    assert (code, output) == (0, "all.png\n"), messages
    assert len(read_record("all.png")["requests"]) == 1
    assert Image.open("all.png").width > 2 * 64
    assert "--grid" in refused(command(name, *WORDS[name], "-o", "one.png"))


@pytest.mark.parametrize("name", TASKS)
def test_every_field_is_a_flag_or_a_word_and_no_other_is_declared(name, capsys):
    with pytest.raises(SystemExit):
        main([name, "--help"])
    shown = capsys.readouterr().out
    for field in dataclasses.fields(TASKS[name].request):
        flags = field.metadata["flags"] or [f"--{field.name.replace('_', '-')}"]
        words = field.metadata["metavar"] if field.metadata["is_word"] else None
        assert all(flag in shown for flag in flags) if words is None else words in shown


def test_requests_of_tasks_have_one_base(command):
    assert all(task.request.__bases__ == (TextRequest,) for task in TASKS.values())


def test_the_size_of_a_picture_is_brought_to_the_nearest_and_told(command):
    Image.open("photo.png").resize((70, 50)).save("odd.png")
    code, _, messages = command("edit", "odd.png", "a dog", "-o", "a.png")
    assert code == 0
    assert "warning: odd.png is 70x50 pixels, and is resized to 64x48" in messages
    assert Image.open("a.png").size == (64, 48)
    assert read_record("a.png")["request"]["size"] == "64x48"


def test_repainting_a_part_keeps_the_size_of_any_picture_and_what_is_black(command):
    odd = Image.open("photo.png").resize((90, 70))
    odd.save("odd.png")
    mask = Image.new("L", odd.size)
    mask.paste(255, (4, 4, 20, 20))
    mask.save("small.png")
    words = ["inpaint", "odd.png", "small.png", "a dog", "--crop", "16"]
    code, _, messages = command(*words, "-o", "a.png")
    assert code == 0, messages
    assert "warning" not in messages
    after, before = np.asarray(Image.open("a.png")), np.asarray(odd)
    assert np.array_equal(after[40:], before[40:])
    assert not np.array_equal(after[:20, :20], before[:20, :20])


def test_a_mask_follows_the_picture_to_another_size(command):
    code, _, messages = command(
        "inpaint", "photo.png", "mask.png", "a dog", "--size", "96x96", "-o", "a.png"
    )
    assert code == 0, messages
    assert Image.open("a.png").size == (96, 96)


def test_a_mask_of_another_size_is_refused_and_a_gray_one_is_told(command):
    Image.new("L", (32, 64), "white").save("other.png")
    told = refused(command("inpaint", "photo.png", "other.png", "a dog"))
    assert "the mask other.png is 32x64 pixels, and the picture 64x64" in told
    Image.linear_gradient("L").resize((64, 64)).save("gray.png")
    code, _, messages = command("inpaint", "photo.png", "gray.png", "a dog", "-o", "a.png")
    assert code == 0
    assert messages.count("from 128 of 255 on they count as white") == 1
    Image.new("L", (64, 64), 100).save("dark.png")
    assert "nothing of the mask dark.png is white" in refused(
        command("inpaint", "photo.png", "dark.png", "a dog")
    )


def planned(name, folder, **settings):
    """The call of a task at 64x64 pixels."""
    settings = {"model": str(folder), "steps": 2, "seed": 5, "size": "64x64"} | settings
    return plan(name, settings).calls[0]


def paint_mask(path, left, around):
    """A mask of one color in the left half, and another elsewhere."""
    mask = Image.new("RGBA", (64, 64), around)
    mask.paste(left, (0, 0, 32, 64))
    mask.save(path)


def test_what_is_transparent_in_a_mask_is_black(command, tiny_folder, caplog):
    paint_mask("half.png", (255, 255, 255, 255), (255, 255, 255, 0))
    words = {"image": "photo.png", "mask": "half.png", "prompt": "a dog"}
    mask = planned("inpaint", tiny_folder, **words).arguments["mask_image"]
    assert mask.getbbox() == (0, 0, 32, 64)
    assert "half.png is transparent in places, which count as black" in caplog.text
    call = planned("compose", tiny_folder, regions=("half.png=a dog",))
    assert call.arguments["regions"][0].mask.getbbox() == (0, 0, 32, 64)


def test_a_mask_that_is_white_everywhere_is_told(command, tiny_folder, caplog):
    Image.new("L", (64, 64), 255).save("white.png")
    planned("inpaint", tiny_folder, image="photo.png", mask="white.png", prompt="a dog")
    assert "all of the mask white.png is white" in caplog.text


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"regions": ("0,0,8,8=a cat",)}, "8x8 pixels, which is narrower than its soft border"),
        ({"regions": ("16,16,16,16=a cat", "0,0,64,64=a dog"), "order": True}, "nothing of it"),
        ({"regions": ("0,0,64,64=a cat",), "cells": "1x1", "prompts": ("a",)}, "nothing of it"),
        ({"regions": ("0,0,32,32=a cat",), "background": "photo.png"}, "is no color"),
    ],
    ids=str,
)
def test_a_composition_is_refused_before_anything_is_loaded(command, tiny_folder, settings, told):
    with pytest.raises(LuminaError, match=told):
        planned("compose", tiny_folder, **settings)


def test_a_small_region_may_have_a_small_border(command, tiny_folder):
    planned("compose", tiny_folder, regions=("0,0,8,8=a cat",), border=0)


def test_a_named_file_gets_one_variation(command, tiny_folder):
    settings = {"model": str(tiny_folder), "image": "photo.png", "prompt": "a dog", "seed": 5}
    assert len(plan("variations", settings, output=Path("x.png")).requests) == 1
    assert len(plan("variations", settings, output=Path("x.png"), grid=True).requests) == 4
    assert len(plan("variations", settings, output=Path("x")).requests) == 4


def test_a_picture_of_another_program_does_not_say_what_it_shows(command):
    told = refused(command("upscale", "photo.png", "--size", "96x96"))
    assert "photo.png does not say what it was made from" in told


def test_regions_that_overlap_need_an_order(command):
    regions = ["--region", "0,0,64,64=a cat", "--region", "32,0,64,64=a dog", "--size", "96x64"]
    told = refused(command("compose", *regions))
    assert "the regions of 'a cat' and 'a dog' overlap" in told
    mask = ["--region", "0,0,32,32=a cat", "--mask", "mask.png=a dog", "--size", "64x64"]
    assert "overlap" in refused(command("compose", *mask))
    assert "outside of the picture of 64x64" in refused(
        command("compose", "--region", "32,0,64,64=a cat", "--size", "64x64")
    )
    skip_if_missing("compose")
    assert command("compose", *regions, "--order", "-o", "a.png")[0] == 0


def test_cells_are_regions_of_a_grid(command):
    skip_if_missing("compose")
    command("compose", "--cells", "2x1", "a cat", "a dog", "--size", "128x64", "-o", "a.png")
    boxes = ["--region", "0,0,64,64=a cat", "--region", "64,0,64,64=a dog", "--size", "128x64"]
    command("compose", *boxes, "-o", "b.png")
    assert Image.open("a.png").tobytes() == Image.open("b.png").tobytes()


def test_a_picture_that_lumina_drew_says_what_its_variations_are_of(command):
    command("generate", "a cat", "--guidance", "2", "-o", "cat.png", "--seed", "8")
    made = ["variations", "cat.png", "--amount", "0", "--images", "1", "-o"]
    code, _, messages = command(*made, "same.png")
    assert code == 0, messages
    request = read_record("same.png")["request"]
    assert (request["prompt"], request["guidance"], request["origin"]) == ("a cat", 2, 8)
    assert distance("same.png", "cat.png") <= 2
    assert "the prompt is empty" in refused(command("variations", "photo.png"))


def test_an_interpolation_ends_at_the_pictures_of_its_ends(command):
    command("interpolate", "a cat", "--to-seed", "9", "--frames", "3", "-o", "way")
    for seed, frame in ((5, 1), (9, 3)):
        command("generate", "a cat", "--seed", seed, "-o", f"{seed}.png")
        ends = f"{seed}.png", f"way/a-cat-5-{frame:02}.png"
        assert distance(*ends) <= 2


def test_settings_of_tasks_vary_in_a_table(command):
    vary = ["--vary", "strength=0.5,1", "--vary", "prompt=a dog|a cow"]
    code, _, messages = command("edit", "photo.png", *vary, "-o", "t.png")
    assert code == 0, messages
    requests = read_record("t.png")["requests"]
    assert [(r["strength"], r["prompt"]) for r in requests] == [
        (strength, prompt) for strength in (0.5, 1) for prompt in ("a dog", "a cow")
    ]


def test_each_step_of_a_task_can_be_watched(command):
    photo = ["photo.png", "a dog", "--strength", "0.5", "--steps", "6"]
    code, _, messages = command("edit", *photo, "--preview", "steps", "-o", "a.png")
    assert code == 0, messages
    names = sorted(path.name for path in Path("steps").iterdir())
    assert names == [f"a-dog-5-step-00{step}.png" for step in (1, 2, 3)]
    assert distance(f"steps/{names[-1]}", "a.png") <= 2


@pytest.mark.parametrize(
    "chosen",
    [["dopri5", "--tolerance", "0.01"], ["sde", "--steps", "3"], ["sde-heun", "--steps", "3"]],
)
def test_solvers_that_choose_steps_or_add_noise_make_a_picture_again(
    command, chosen, tiny_folder, capfd
):
    where = ["--model", str(tiny_folder), "--device", "cpu", "-o", "a.png"]
    code = main(["generate", "a cat", "--solver", *chosen, *where])
    messages = capfd.readouterr().err
    assert code == 0, messages
    assert "evaluations: " in messages
    assert command("generate", "--from", "a.png", "-o", "b.png")[0] == 0
    assert Image.open("a.png").tobytes() == Image.open("b.png").tobytes()


def test_what_a_picture_costs_is_told_for_each_value_that_varies(command):
    messages = command("generate", "a cat", "--vary", "guidance=1,2", "-o", "t.png")[2]
    assert "guidance 1.0, evaluations: 2 passes through the network" in messages
    assert "guidance 2.0, evaluations: 2 pairs, 4 passes through the network" in messages
    messages = command("anagram", *WORDS["anagram"], "-o", "a.png")[2]
    assert "evaluations: 4 pairs, 8 passes through the network" in messages


def test_a_panorama_of_one_part_and_a_smaller_picture_are_refused(command):
    told = refused(command("panorama", "a cat", "--size", "64x64"))
    assert "no more than the model draws at once (64x64)" in told
    told = refused(command("upscale", "photo.png", "a dog", "--size", "48x48"))
    assert "64x64" in told
    assert "48x48" in told


def test_a_variation_by_nothing_is_the_picture_or_is_refused(command):
    words = ["variations", "photo.png", "a dog", "--images", "1", "--amount", "0"]
    assert "add --guidance 1, which gives the picture back" in refused(
        command(*words, "-o", "a.png")
    )
    code, _, messages = command(*words, "--guidance", "1", "-o", "a.png")
    assert code == 0
    assert "back to its noise in 2 steps" in messages


def test_a_picture_with_noise_added_on_the_way_is_followed_back(command):
    command("generate", "a cat", "--solver", "sde", "-o", "cat.png")
    code, _, messages = command("variations", "cat.png", "--images", "1", "-o", "like.png")
    assert code == 0, messages
    request = read_record("like.png")["request"]
    assert (request["origin"], request["solver"], request["prompt"]) == (None, None, "a cat")


def test_a_mask_is_refused_before_a_picture_is_resized(command):
    Image.open("photo.png").resize((70, 50)).save("odd.png")
    code, _, messages = command("inpaint", "odd.png", "mask.png", "a dog", "--size", "64x48")
    assert code == 1
    assert "the mask mask.png is 64x64 pixels" in messages
    assert "resized" not in messages


def test_settings_of_another_task_that_have_no_meaning_are_told(command):
    command("edit", *WORDS["edit"], "-o", "a.png")
    code, _, messages = command("generate", "--from", "a.png", "-o", "b.png")
    assert code == 0
    assert "made by `lumina edit`: image, --strength left out" in messages


def test_show_prints_the_files_that_a_task_began_from(command, capfd):
    command("inpaint", *WORDS["inpaint"], "-o", "a.png")
    main(["show", "a.png"])
    request = json.loads(capfd.readouterr().out)["request"]
    assert (request["image"], request["mask"]) == ("photo.png", "mask.png")
