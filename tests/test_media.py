import resource
import signal
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFont

from lumina.errors import LuminaError
from lumina.media import (
    free_path,
    make_grid,
    make_table,
    open_picture,
    put_side_by_side,
    read_record,
    slug,
    stack,
    write_png,
)

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


def test_a_free_path_has_room_beside_it(tmp_path):
    (tmp_path / "a.png").touch()
    (tmp_path / "a-2.wav").touch()
    found = free_path(tmp_path / "a.wav", lambda path: [path.with_suffix(".png")])
    assert found == tmp_path / "a-3.wav"


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


def ink(label):
    white = make_grid([picture("white", (200, 20))], [label]).convert("L")
    return white.getextrema()[0] < 128


def test_a_label_is_written_only_if_a_font_has_its_letters():
    assert ink("a red apple")
    assert not ink("a red apple \U0010fffd")


def test_a_label_of_another_alphabet_is_written_where_a_font_is_there():
    try:
        ImageFont.truetype("DejaVuSans.ttf")
    except OSError:
        pytest.skip("the fonts DejaVu are not installed")
    assert ink("en blå buss")
    assert ink("красное яблоко")


def test_a_word_that_is_wider_than_its_picture_goes_on_in_the_next_line():
    one, long = (make_grid([picture("white", (64, 8))], ["m" * count]) for count in (2, 12))
    assert long.height > one.height
    assert long.convert("L").crop((62, 0, *long.size)).getextrema() == (255, 255)


RED, BLUE = (255, 0, 0), (0, 0, 255)


def test_a_table_puts_each_picture_at_its_row_and_column():
    colors = [["red", "lime", "blue"], ["yellow", "black", "cyan"]]
    cells = [[picture(color, (64, 48)) for color in row] for row in colors]
    table = make_table(cells, rows=["one", "two"], columns=["a", "b", "c"], title="all")
    left, top = table.width - 3 * 68 + 4, table.height - 2 * 52
    for row, names in enumerate(colors):
        for column, name in enumerate(names):
            place = (left + column * 68, top + row * 52)
            box = (*place, place[0] + 64, place[1] + 48)
            assert table.crop(box).tobytes() == picture(name, (64, 48)).tobytes()


def test_labels_of_a_table_are_beside_and_above_the_pictures_and_never_on_them():
    white = [[picture("white", (64, 48))] * 2] * 2
    bare = make_table(white, rows=["", ""], columns=["", ""])
    table = make_table(white, rows=["row", ""], columns=["", "col"])
    left, top = table.width - bare.width, table.height - 2 * 52
    gray = table.convert("L")
    assert gray.crop((left, top, *table.size)).getextrema() == (255, 255)
    assert gray.crop((0, top, left, top + 48)).getextrema()[0] < 128  # beside the first row
    assert gray.crop((0, top + 52, left, table.height)).getextrema() == (255, 255)
    assert gray.crop((left, 0, left + 64, top)).getextrema() == (255, 255)
    assert gray.crop((left + 68, 0, table.width, top)).getextrema()[0] < 128


def test_pictures_of_several_sizes_fit_into_one_table_and_one_grid():
    sizes = [picture("red", (16, 16)), picture("blue", (64, 32))]
    for whole in (
        make_table([sizes], rows=[""], columns=["", ""]),
        make_grid(sizes, ["", ""]),
    ):
        counts = {color: count for count, color in whole.getcolors()}
        assert counts[RED] == 16 * 16
        assert counts[BLUE] == 64 * 32


def test_pictures_are_put_side_by_side_and_above_each_other():
    row = put_side_by_side([picture("red"), picture("blue")])
    assert (row.getpixel((0, 0)), row.getpixel((row.width - 1, 0))) == (RED, BLUE)
    column = stack([picture("red"), picture("blue", (8, 8))])
    assert column.size == (32, 16 + 8 + 12)
    assert (column.getpixel((0, 0)), column.getpixel((0, column.height - 1))) == (RED, BLUE)


@pytest.mark.parametrize("content", [None, b"", b"not a picture", b"\x89PNG\r\n\x1a\n broken"])
def test_a_file_that_is_no_picture_cannot_be_opened(tmp_path, content):
    path = tmp_path / "a.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(LuminaError, match=r"a\.png"):
        open_picture(path)


def test_a_picture_that_is_cut_short_cannot_be_opened(tmp_path):
    path = tmp_path / "a.png"
    Image.effect_noise((64, 64), 90).save(path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(LuminaError, match=r"a\.png"):
        open_picture(path)


def test_a_picture_that_is_too_large_is_refused_by_its_header(tmp_path, recwarn):
    path = tmp_path / "a.png"
    picture().save(path)
    content = bytearray(path.read_bytes())
    for sides in ((10_000, 10_000), (20_000, 20_000)):
        content[16:24] = struct.pack(">II", *sides)
        content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
        path.write_bytes(content)
        with pytest.raises(LuminaError, match="make it smaller"):
            open_picture(path)
    assert not recwarn.list


def test_a_picture_is_opened_upright_and_what_is_transparent_is_white(tmp_path):
    turned = Image.new("RGB", (32, 16), "red")
    exif = turned.getexif()
    exif[0x0112] = 6  # a camera that was held on its side
    turned.save(tmp_path / "a.jpg", exif=exif)
    assert open_picture(tmp_path / "a.jpg").size == (16, 32)
    Image.new("RGBA", (8, 8), (0, 0, 255, 0)).save(tmp_path / "b.png")
    assert open_picture(tmp_path / "b.png").getcolors() == [(64, (255, 255, 255))]


@pytest.mark.parametrize("color", ["white", "black"])
def test_a_picture_of_16_bits_keeps_its_grays(tmp_path, color):
    path = tmp_path / "a.png"
    Image.fromarray(np.array([[0, 255, 256, 32768, 65535]], np.uint16)).save(path)
    seen = np.asarray(open_picture(path, behind=color))
    assert seen.shape == (1, 5, 3)
    assert seen[0, :, 1].tolist() == [0, 0, 1, 128, 255]
