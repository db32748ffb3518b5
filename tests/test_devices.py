import platform
import subprocess
import sys

import pytest
import torch

from lumina.devices import is_fast_at_bfloat16, pick_device, pick_dtype, report, total_memory
from lumina.errors import LuminaError

CPU = torch.device("cpu")


def test_auto_is_the_accelerator_if_there_is_one():
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    assert pick_device("auto") == (accelerator or CPU)


@pytest.mark.parametrize("name", ["cuda:99", "meta", "gpu", ""])
def test_a_device_that_is_not_there_is_refused_with_those_that_are(name):
    with pytest.raises(LuminaError, match="available: cpu"):
        pick_device(name)


def test_auto_computes_in_bfloat16_only_where_that_is_fast():
    fast = is_fast_at_bfloat16(CPU)
    assert pick_dtype("auto", CPU) == (torch.bfloat16 if fast else torch.float32)


def test_a_dtype_that_was_asked_for_is_used():
    assert pick_dtype("float16", CPU) == torch.float16
    assert pick_dtype(torch.bfloat16, CPU) == torch.bfloat16


def test_an_unknown_dtype_is_refused_with_the_nearest():
    with pytest.raises(LuminaError, match="did you mean 'float32'"):
        pick_dtype("float23", CPU)


def test_a_report_names_versions_and_what_would_be_chosen():
    facts = report()
    assert facts["torch"] == torch.__version__
    assert facts["chosen"].startswith(str(pick_device()))


def test_memory_is_in_bytes():
    assert total_memory(CPU) > 1e9


def test_freed_memory_is_kept_where_the_library_can():
    found = subprocess.run([sys.executable, "-c", KEEPING], capture_output=True, check=True)
    is_kept, returned = found.stdout.split()
    assert (is_kept == b"True") == (platform.libc_ver()[0] == "glibc")
    assert int(returned) < 2**20 or is_kept == b"False"


KEEPING = """
import psutil, torch
from lumina.devices import keep_freed_memory

is_kept = keep_freed_memory()
block = torch.zeros(2**24)
held = psutil.Process().memory_info().rss
del block
print(is_kept, held - psutil.Process().memory_info().rss)
"""
