import json

import pytest
import torch
from safetensors.torch import save_file

from lumina import LuminaError
from lumina.checkpoints.headers import read_header
from lumina.checkpoints.weights import open_file


@pytest.fixture
def file(tmp_path):
    tensors = {"one": torch.randn(3, 4), "two": torch.ones(5, dtype=torch.bfloat16)}
    save_file(tensors, tmp_path / "file.safetensors", metadata={"format": "pt"})
    return tmp_path / "file.safetensors"


def test_a_header_tells_shapes_types_and_metadata(file):
    header = read_header(file)
    assert header.entries["one"] == ("F32", (3, 4))
    assert header.entries["two"] == ("BF16", (5,))
    assert header.metadata == {"format": "pt"}


def test_a_file_that_ends_anywhere_too_early_or_late_is_refused(file):
    whole = file.read_bytes()
    for end in range(len(whole)):
        file.write_bytes(whole[:end])
        with pytest.raises(LuminaError, match=f"{file} is (cut off|damaged)"):
            read_header(file)
    file.write_bytes(whole + b"0")
    with pytest.raises(LuminaError, match="1 bytes too many"):
        read_header(file)


def write(file, header, data=b""):
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + data)


@pytest.mark.parametrize(
    "header",
    [
        [],
        {"one": None},
        {"one": {"dtype": "F32", "shape": [2]}},
        {"one": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}},
        {"one": {"dtype": "F32", "shape": ["two"], "data_offsets": [0, 8]}},
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_a_header_that_makes_no_sense_is_refused(tmp_path, header):
    write(tmp_path / "file.safetensors", header, bytes(8))
    with pytest.raises(LuminaError, match="is damaged"):
        read_header(tmp_path / "file.safetensors")


def test_a_format_is_told_by_what_is_in_a_file_and_not_by_its_name(file, tmp_path):
    renamed = file.rename(tmp_path / "file.pth")
    assert open_file(renamed).keys() == {"one", "two"}
    torch.save({"three": torch.ones(1)}, tmp_path / "other.bin")
    assert open_file(tmp_path / "other.bin").keys() == {"three"}


def test_numbers_of_an_unknown_type_are_named(tmp_path):
    write(
        tmp_path / "file.safetensors",
        {"one": {"dtype": "F4", "shape": [2], "data_offsets": [0, 1]}},
        bytes(1),
    )
    with pytest.raises(LuminaError, match="numbers of type F4"):
        open_file(tmp_path / "file.safetensors")
