"""Outputs recorded from the original code, read from the folder that LUMINA_GOLDEN names."""

import json
import os
from pathlib import Path

import pytest
from safetensors import safe_open


class Case:
    """One recorded model: its configuration, its weights, and calls with their outputs."""

    def __init__(self, path: Path):
        with safe_open(path, "pt") as file:
            metadata = file.metadata()
            self.tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (it is no dict)
        self.name = path.stem
        self.config = json.loads(metadata["config"])
        self.calls = json.loads(metadata["calls"])
        self.fixed = json.loads(metadata.get("fixed_in_source", "{}"))
        self.weights = {
            name.removeprefix("weights."): tensor
            for name, tensor in self.tensors.items()
            if name.startswith("weights.")
        }

    def value(self, reference):
        """An argument of a call: a tensor, a list of them, or a literal."""
        if isinstance(reference, list):
            return [self.value(part) for part in reference]
        if isinstance(reference, str) and reference.startswith(("inputs.", "outputs.")):
            return self.tensors[reference]
        return reference

    def output(self, call):
        """What the original code returned."""
        name = call["output"]
        if isinstance(name, str) and name in self.tensors:
            return self.tensors[name]
        names = name if isinstance(name, list) else self.parts(name)
        return [self.tensors[part] for part in names]

    def parts(self, name):
        """Names of the entries of a list."""
        parts = [key for key in self.tensors if key.startswith(f"{name}.")]
        return sorted(parts, key=lambda key: int(key.rpartition(".")[2]))


@pytest.fixture(scope="session")
def golden():
    """The folder of recorded outputs."""
    folder = os.environ.get("LUMINA_GOLDEN")
    if not folder:
        pytest.skip("LUMINA_GOLDEN names no folder of recorded outputs")
    return Path(folder)


@pytest.fixture(scope="session")
def read_case(golden):
    """Read a recorded case by name."""
    return lambda name: Case(golden / f"{name}.safetensors")


@pytest.fixture(scope="session")
def assert_recorded():
    """Compare with a recorded output, by its root mean square."""

    def assert_recorded(found, recorded, *, tolerance=1e-4):
        if isinstance(recorded, list):
            for one, other in zip(found, recorded, strict=True):
                assert_recorded(one, other, tolerance=tolerance)
            return
        assert found.shape == recorded.shape
        assert (found - recorded).abs().max() <= tolerance * recorded.square().mean().sqrt()

    return assert_recorded
