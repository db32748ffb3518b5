import dataclasses

import pytest

from lumina.errors import LuminaError
from lumina.requests import TextToImage, check_names, nearest_size, read_setting, read_size

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
    ],
    ids=str,
)
def test_a_value_that_no_model_can_use_is_refused_with_what_would_work(settings, told):
    with pytest.raises(LuminaError) as caught:
        TextToImage(**{"prompt": "a cat"} | settings)
    assert told in str(caught.value)


def test_a_whole_number_is_a_number():
    assert TextToImage(prompt="a cat", guidance=3).guidance == 3


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [("steps", "12", 12), ("guidance", "2.5", 2.5), ("seed", "8", 8), ("negative", "x", "x")],
)
def test_the_text_of_a_flag_becomes_a_value_of_the_type_of_its_field(name, text, value):
    kind = {"steps": int, "guidance": float, "seed": int | None, "negative": str}[name]
    assert read_setting(FIELDS[name], kind, text) == value


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
    assert all(field.metadata["help"] for field in FIELDS.values())


def test_an_unknown_setting_is_refused_with_the_nearest():
    with pytest.raises(LuminaError, match="did you mean 'guidance'"):
        check_names(TextToImage, {"guidanc": 4})
