import dataclasses
from typing import get_type_hints

import pytest

from lumina.errors import LuminaError
from lumina.requests import (
    Anagram,
    Compose,
    EditImage,
    InpaintImage,
    Interpolate,
    OutpaintImage,
    StyleSet,
    TextToImage,
    nearest_size,
    read_size,
)
from lumina.settings import check_names, read_setting
from lumina.tasks import TASKS

HINTS = get_type_hints(TextToImage)
FIELDS = {field.name: field for field in dataclasses.fields(TextToImage)}


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"prompt": " \n"}, "the prompt is empty"),
        ({"steps": 0}, "allowed: 1 to 1000"),
        ({"steps": 2.5}, "not a whole number"),
        ({"steps": True}, "not a whole number"),
        ({"guidance": float("nan")}, "not a number"),
        ({"guidance": float("inf")}, "not a number"),
        ({"guidance": "strong"}, "not a number"),
        ({"guidance": 0}, "allowed: 1 to 20"),
        ({"seed": -1}, "allowed: 0 to"),
        ({"dtype": "bf16"}, "did you mean 'bfloat16'?"),
        ({"size": "128"}, "write width and height"),
        ({"size": "100x128"}, "the nearest that works is 96x128"),
        ({"size": "0x128"}, "the nearest that works is 16x128"),
        ({"times": [0.0, 1.0]}, "not numbers with commas"),
        ({"times": (0.0, 0.5, 0.5, 1.0), "steps": 3}, "do not increase"),
        ({"times": (0.0, 1.5), "steps": 1}, "in [0, 1]"),
        ({"times": (0.1, 1.0), "steps": 1}, "put 0 first and 1 last"),
        ({"times": (0.0, 0.5), "steps": 1}, "put 0 first and 1 last"),
        ({"times": (0.0, float("nan"), 1.0), "steps": 2}, "not a number"),
        ({"times": (0.0, 0.5, 1.0), "steps": 3}, "3 times make 2 steps"),
        ({"times": (0.0, 1.0), "steps": 1, "schedule": "sigmoid"}, "both say where"),
        ({"times": (0.0, 1.0), "steps": 1, "shift": 2.0}, "both say where"),
        ({"shift": 2.0, "resolution_shift": True}, "both say how far"),
        ({"guidance_interval": (0.8, 0.1)}, "do not increase"),
        ({"guidance_interval": (0.8, 0.1)}, "of --guidance-interval"),
        ({"guidance_interval": (0.1, 1.5)}, "two times in [0, 1]"),
        ({"times": (0.0, 0.5, 0.5, 1.0), "steps": 3}, "each of them once"),
        ({"times": (0.0, 0.5, 0.2, 1.0), "steps": 3}, "sort them"),
        ({"size": "0x0"}, "has no pixels"),
        ({"guidance_interval": (0.1, 0.5, 0.8)}, "not two numbers"),
        ({"guidance_rescale": 1.5}, "allowed: 0 to 1"),
        ({"guide_all": 1}, "not true or false"),
        ({"extrapolation": "ntl"}, "did you mean 'ntk'?"),
        ({"scale_by": "side"}, "known: area, axis"),
        ({"context_drop": "some"}, "known: none, time-aware, all"),
        ({"solver": "dopri6"}, "did you mean 'dopri5'?"),
        ({"solver": "dopri5", "shift": 2.0}, "chooses its steps itself, and shift says"),
        ({"solver": "dopri5", "times": (0.0, 1.0), "steps": 1}, "and times says"),
        ({"solver": "euler", "tolerance": 0.01}, "tolerance is a setting of the solver dopri5"),
        ({"tolerance": 0.0, "solver": "dopri5"}, "allowed: 1e-06 to 0.1"),
        ({"diffusion": "sigma"}, "add --solver sde"),
        ({"solver": "sde", "diffusion": "sgma"}, "did you mean 'sigma'?"),
        ({"solver": "sde", "last_step": "none", "last_step_size": 0.1}, "leave one out"),
        ({"solver": "sde", "steps": 1}, "adds no noise in its last"),
        ({"solver": "sde", "two_stage": True}, "this task goes by the noise"),
        ({"solver": "unipc", "steps": 1, "two_stage": True}, "2 steps or more"),
        ({"solver": "unipc", "steps": 1}, "2 steps or more"),
        ({"solver": "ab2", "steps": 1}, "2 steps or more"),
    ],
    ids=str,
)
def test_a_value_that_no_model_can_use_is_refused_with_what_would_work(settings, told):
    with pytest.raises(LuminaError) as caught:
        TextToImage(**{"prompt": "a cat"} | settings)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "settings", "told"),
    [
        (EditImage, {"image": ""}, "no picture is given"),
        (EditImage, {"strength": 0.0}, "allowed: above 0, up to 1"),
        (EditImage, {"strength": 1.1}, "allowed: above 0, up to 1"),
        (EditImage, {"was": " "}, "the prompt is empty"),
        (EditImage, {"was": ""}, "--was: the prompt"),
        (EditImage, {"strength": 0.5, "steps": 2, "solver": "unipc"}, "2 steps or more"),
        (EditImage, {"was": "a dog", "solver": "sde"}, "adds noise on the way"),
        (InpaintImage, {"mask": ""}, "no picture is given"),
        (InpaintImage, {"border": -1}, "allowed: 0 to"),
        (OutpaintImage, {}, "the size is not given"),
        (OutpaintImage, {"size": "64x64", "at": "left"}, "write pixels from left and top"),
        (Interpolate, {"prompts": ()}, "the prompt is empty"),
        (Interpolate, {"prompts": ("a",)}, "another prompt, or --to-seed"),
        (Interpolate, {"prompts": ("a", "b", "c"), "to_seed": 3}, "3 prompts on the way"),
        (Interpolate, {"prompts": ("a", "b"), "frames": 1}, "allowed: 2 to"),
        (Interpolate, {"prompts": ("a", "a")}, "both ends are 'a'"),
        (Compose, {"regions": ("0,0,16,16=a",), "background": "cat.png"}, "is no color"),
        (Compose, {}, "there is no region"),
        (Compose, {"regions": ("a cat",)}, "lacks its place or its prompt"),
        (Compose, {"regions": ("0,0,16=a cat",)}, "write left, top, width and height"),
        (Compose, {"regions": ("0,0,65,16=a cat",)}, "outside of the picture of 64x64"),
        (Compose, {"regions": ("-8,0,16,16=a cat",)}, "outside of the picture of 64x64"),
        (Compose, {"regions": ("0,0,0,16=a cat",)}, "has 0x16 pixels"),
        (Compose, {"cells": "2x2", "prompts": ("a", "b")}, "2x2 cells need 4 prompts"),
        (Compose, {"prompts": ("a",)}, "the region of 'a' is not given"),
        (Compose, {"prompts": ("2x2", "a", "b")}, "write --cells 2x2 for a grid of prompts"),
        (Compose, {"cells": "0x2", "prompts": ("a", "b")}, "write both, from 1 on: 2x3"),
        (Compose, {"regions": ("0,0,16.5,16=a cat",)}, "in whole pixels"),
        (Compose, {"regions": ("0;0;16;16=a cat",)}, "in whole pixels"),
        (StyleSet, {"prompts": ("a",)}, "two prompts or more"),
        (StyleSet, {"prompts": ("a", "b"), "sharing": 200.0}, "allowed: 0 to 100"),
        (Anagram, {}, "there is no view"),
        (Anagram, {"views": ("rotate180",)}, "lacks its name or its prompt"),
        (Anagram, {"views": ("identity=a",), "strength": 0.5}, "add --two-stage"),
        (Anagram, {"views": ("identity=a",), "hold": 0.5}, "add --two-stage"),
        (Anagram, {"views": ("identity=a",), "through": "latent"}, "did you mean 'latents'?"),
    ],
    ids=str,
)
def test_what_a_task_cannot_do_is_refused_with_what_would_work(kind, settings, told):
    usual = {"image": "a.png", "mask": "b.png", "prompt": "a cat"}
    if kind in (Interpolate, StyleSet, Anagram, Compose):
        usual = {"size": "64x64"}
    names = {field.name for field in dataclasses.fields(kind)}
    usual = {name: value for name, value in usual.items() if name in names}
    with pytest.raises(LuminaError) as caught:
        kind(**usual | settings)
    assert told in str(caught.value)


def test_the_ends_between_two_seeds_are_told_apart():
    request = Interpolate(prompts=("a cat",), seed=3, to_seed=5, frames=3)
    assert request.labels == ["a cat, seed 3", "2", "a cat, seed 5"]


def test_a_whole_number_is_a_number():
    assert TextToImage(prompt="a cat", guidance=3).guidance == 3


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("steps", "12", 12),
        ("guidance", "2.5", 2.5),
        ("seed", "8", 8),
        ("negative", "x", "x"),
        ("times", "0,0.1,0.4,1", (0, 0.1, 0.4, 1)),
        ("guidance_interval", "0.1, 0.8", (0.1, 0.8)),
        ("dtype", "bf16", "bfloat16"),
        ("dtype", "float32", "float32"),
        ("tiled", "true", True),
        ("tiled", "False", False),
    ],
)
def test_the_text_of_a_flag_becomes_a_value_of_the_type_of_its_field(name, text, value):
    assert read_setting(FIELDS[name], HINTS[name], text) == value


def test_the_text_of_a_flag_that_is_no_number_is_refused():
    with pytest.raises(LuminaError, match="guidance is 'high', not a number"):
        read_setting(FIELDS["guidance"], float, "high")


def test_a_size_is_width_then_height():
    assert read_size("192x96") == (192, 96)


@pytest.mark.parametrize("side", [1, 8, 24, 100, 1000])
def test_the_nearest_size_is_valid_and_no_further_than_half_a_step(side):
    nearest, _ = nearest_size(side, 16)
    assert nearest % 16 == 0
    assert nearest >= 16
    assert abs(nearest - max(side, 16)) <= 8


def test_every_setting_says_what_it_does():
    kinds = [task.request for task in TASKS.values()]
    assert all(field.metadata["help"] for kind in kinds for field in dataclasses.fields(kind))


def test_an_unknown_setting_is_refused_with_the_nearest():
    with pytest.raises(LuminaError, match="did you mean 'guidance'"):
        check_names(TextToImage, {"guidanc": 4})
