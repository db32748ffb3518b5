import json
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

SCRIPT = Path(__file__).with_name("network_run.py")


def run_each(folder, cases, *, torchrun=0):
    """Run `network_run.py`, once for all cases, each in `out` or else a folder of its name.

    Args:
        folder: Of those folders.
        cases: By name, the number of processes that are forked and settings.
        torchrun: How many processes torchrun starts instead.

    Returns:
        By name, the last weights and all losses.
    """
    settings = [
        [0 if torchrun else count, {"out": str(folder / name)} | case]
        for name, (count, case) in cases.items()
    ]
    command = [sys.executable, str(SCRIPT), json.dumps(settings)]
    if torchrun:
        launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(torchrun)]
        command[1:1] = ["-m", *launcher]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    outs = (Path(case["out"]) for _, case in settings)
    return dict(zip(cases, map(_read, outs), strict=True))


def _read(out):
    lines = [json.loads(line) for line in (out / "metrics.jsonl").open()]
    return load_file(out / "last" / "weights.safetensors"), [line["loss"] for line in lines]


@pytest.fixture(scope="session")
def run():
    """Starts some processes for `run_each`."""
    return run_each
