import json
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

SCRIPT = Path(__file__).with_name("network_run.py")


def run_each(folder, processes, cases, *, by_torchrun=False):
    """Run `network_run.py` for settings by their names, each in a folder of its name.

    Returns:
        By name, the last weights and all losses.
    """
    settings = [{"out": str(folder / name)} | case for name, case in cases.items()]
    work, count = [str(SCRIPT), json.dumps(settings)], str(processes)
    if by_torchrun:
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", count]
        command = [sys.executable, *launcher, *work]
    else:
        command = [sys.executable, *work, *([count] if processes > 1 else [])]
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
