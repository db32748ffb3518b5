import json
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

SCRIPT = Path(__file__).with_name("network_run.py")


def run_network(out, processes, **settings):
    command = [sys.executable]
    if processes > 1:
        command += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
        command += [str(processes)]
    command += [str(SCRIPT), json.dumps({"out": str(out)} | settings)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (out / "metrics.jsonl").open()]
    return load_file(out / "last" / "weights.safetensors"), [line["loss"] for line in lines]


@pytest.fixture(scope="session")
def run():
    """Runs `network_run.py` by some processes; returns its last weights and all losses."""
    return run_network
