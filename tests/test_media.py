import resource
import signal

import pytest
from PIL import Image

from lumina.errors import LuminaError
from lumina.media import free_path, make_grid, read_record, slug, write_png

RECORD = {"request": {"prompt": "一只猫 with \n two lines", "seed": 7}}


def picture(color="red", size=(32, 16)):
    return Image.new("RGB", size, color)


def test_a_record_comes_back_out_of_its_picture(tmp_path):
    write_png(tmp_path / "a.png", picture(), RECORD)
    assert read_record(tmp_path / "a.png") == RECORD
    assert Image.open(tmp_path / "a.png").getpixel((0, 0)) == (255, 0, 0)


def test_a_file_is_replaced_only_by_force(tmp_path):
    path = tmp_path / "a.png"
    write_png(path, picture("red"), {})
    with pytest.raises(LuminaError, match="exists\nhint: --force"):
        write_png(path, picture("blue"), {})
    assert Image.open(path).getpixel((0, 0)) == (255, 0, 0)
    write_png(path, picture("blue"), {}, force=True)
    assert Image.open(path).getpixel((0, 0)) == (0, 0, 255)


def test_a_disk_that_is_full_leaves_no_file(tmp_path):
    noise = Image.effect_noise((256, 256), 90)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(LuminaError, match=r"cannot write .*a\.png"):
            write_png(tmp_path / "a.png", noise, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [None, b"", b"not a picture"])
def test_what_is_no_picture_is_refused(tmp_path, content):
    path = tmp_path / "a.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(LuminaError, match=r"a\.png"):
        read_record(path)


def test_a_picture_of_another_program_is_refused(tmp_path):
    picture().save(tmp_path / "a.png")
    with pytest.raises(LuminaError, match="does not say how it was made"):
        read_record(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("A red apple, on blue!", "a-red-apple-on-blue"),
        ("猫在树上", "猫在树上"),
        ("लाल सेब", "लाल-सेब"),
        ("../../etc/passwd", "etc-passwd"),
        ("❤️", "picture"),
    ],
)
def test_a_slug_keeps_the_letters_of_every_script_and_nothing_else(prompt, name):
    assert slug(prompt) == name


@pytest.mark.parametrize("prompt", ["x" * 500, "猫" * 500, "ab " * 500])
def test_a_slug_leaves_room_in_a_file_name(prompt):
    assert 100 < len(slug(prompt).encode()) <= 120


def test_a_free_path_is_numbered_from_two(tmp_path):
    path = tmp_path / "a.png"
    assert free_path(path) == path
    path.touch()
    assert free_path(path) == tmp_path / "a-2.png"
    (tmp_path / "a-2.png").touch()
    assert free_path(path) == tmp_path / "a-3.png"


def test_a_grid_holds_every_picture_in_order():
    colors = ["red", "lime", "blue", "yellow", "black"]
    grid = make_grid([picture(color) for color in colors], [""] * 5)
    seen = [color for _, color in grid.getcolors()]
    assert {picture(color).getpixel((0, 0)) for color in colors} <= set(seen)
    assert grid.getpixel((0, 0)) == (255, 0, 0)
    assert grid.getpixel((grid.width // 2, 0)) == (0, 255, 0)


def test_eight_pictures_leave_no_hole():
    grid = make_grid([picture(size=(32, 32))] * 8, [""] * 8)
    assert grid.width > 1.5 * grid.height


def test_a_label_is_written_only_if_the_font_has_its_letters():
    def ink(label):
        white = make_grid([picture("white", (200, 20))], [label]).convert("L")
        return white.getextrema()[0] < 128

    assert ink("a red apple")
    assert not ink("猫")
