import json
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

SCRIPT = Path(__file__).with_name("network_run.py")


def run_each(folder, processes, cases):
    """Run `network_run.py` for settings by their names, each in a folder of its name.

    Returns:
        By name, the last weights and all losses.
    """
    command = [sys.executable]
    if processes > 1:
        command += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
        command += [str(processes)]
    settings = [{"out": str(folder / name)} | case for name, case in cases.items()]
    command += [str(SCRIPT), json.dumps(settings)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {name: _read(folder / name) for name in cases}


def _read(out):
    lines = [json.loads(line) for line in (out / "metrics.jsonl").open()]
    return load_file(out / "last" / "weights.safetensors"), [line["loss"] for line in lines]


@pytest.fixture(scope="session")
def run():
    """Starts some processes for `run_each`."""
    return run_each
