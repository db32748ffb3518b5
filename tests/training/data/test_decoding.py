import numpy as np
import pytest
from PIL import Image

from lumina.training.data.decoding import BrokenPictureError, FilePlace, StoredPicture, to_rgb
from lumina.types import Size

RED = (200, 20, 20)


def test_what_is_transparent_turns_white():
    half = Image.new("RGBA", (2, 1), (*RED, 255))
    half.putpixel((1, 0), (0, 0, 0, 0))
    assert list(to_rgb(half).get_flattened_data()) == [RED, (255, 255, 255)]
    assert list(to_rgb(half.convert("LA")).get_flattened_data())[1] == (255, 255, 255)
    palette = half.convert("RGB").convert("P", palette=Image.Palette.ADAPTIVE)
    palette.info["transparency"] = palette.getpixel((1, 0))
    assert list(to_rgb(palette).get_flattened_data())[1] == (255, 255, 255)


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "1", "YCbCr"])
def test_pictures_of_any_mode_look_the_same_in_rgb(mode):
    gray = Image.new("RGB", (4, 4), (255, 255, 255))
    assert np.abs(np.asarray(to_rgb(gray.convert(mode))).astype(int) - 255).max() <= 1


def test_sixteen_bits_keep_their_upper_eight(tmp_path):
    values = np.array([[0, 255, 256, 32768, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    picture = StoredPicture.at(FilePlace(tmp_path / "deep.png")).open()
    assert np.asarray(picture)[0, :, 0].tolist() == [0, 0, 1, 128, 255]


def test_numbers_without_a_known_range_are_refused():
    with pytest.raises(BrokenPictureError, match="no known range"):
        to_rgb(Image.new("F", (2, 2)))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_the_size_of_a_turned_picture_is_known_without_decoding(tmp_path, orientation, suffix):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"turned.{suffix}"
    Image.new("RGB", (40, 30), RED).save(path, exif=exif)
    stored = StoredPicture.at(FilePlace(path))
    assert stored.size == (Size(30, 40) if orientation > 4 else Size(40, 30))
    assert stored.open().size == stored.size


def test_the_part_of_a_file_is_a_picture_of_its_own(tmp_path, make_picture):
    whole = make_picture(tmp_path / "whole.png")
    content = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "many").write_bytes(b"before" + content + b"after")
    part = StoredPicture.at(FilePlace(tmp_path / "many", 6, len(content)))
    assert part.open().tobytes() == whole.tobytes()
    assert part.digest() == StoredPicture.at(FilePlace(tmp_path / "whole.png")).digest()


def test_a_file_that_is_cut_off_is_found_when_it_is_opened(tmp_path, make_picture):
    make_picture(tmp_path / "whole.png", (200, 200))
    content = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "part.png").write_bytes(content[: len(content) // 2])
    stored = StoredPicture.at(FilePlace(tmp_path / "part.png"))
    assert stored.size == Size(200, 200)
    with pytest.raises(BrokenPictureError):
        stored.open()


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_picture_is_said_so(tmp_path, content):
    (tmp_path / "text.png").write_bytes(content)
    with pytest.raises(BrokenPictureError):
        StoredPicture.at(FilePlace(tmp_path / "text.png"))
    with pytest.raises(BrokenPictureError, match="no such file"):
        StoredPicture.at(FilePlace(tmp_path / "none.png"))


def test_another_byte_is_another_digest(tmp_path, make_picture):
    make_picture(tmp_path / "one.png")
    stored = StoredPicture.at(FilePlace(tmp_path / "one.png"))
    before = stored.digest()
    make_picture(tmp_path / "one.png", seed=1)
    assert stored.digest() != before
