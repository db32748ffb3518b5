import importlib
import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lumina.cli import main
from lumina.errors import LuminaError
from lumina.training import recipes
from lumina.training.launching import train_on_ray

FOLDER = Path(__file__).parent


@pytest.fixture(scope="module")
def network_run():
    """A module that workers of Ray find by the same name."""
    ray = pytest.importorskip("ray")
    settings = {"PYTHONPATH": str(FOLDER), "OMP_NUM_THREADS": "1"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_worker_niceness", "0")  # by default all else on a machine comes first
        patch.syspath_prepend(str(FOLDER))
        patch.setattr(recipes, "TASKS", dict(recipes.TASKS))
        ray.init(
            num_cpus=2,
            include_dashboard=False,
            log_to_driver=False,
            runtime_env={"env_vars": settings},
        )
        yield importlib.import_module("network_run")
        ray.shutdown()


@pytest.mark.slow
def test_workers_of_ray_end_with_the_weights_of_torchrun(run, network_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    expected, _ = run(tmp_path, {"torchrun": (0, {"double": True})}, torchrun=2)["torchrun"]
    recipe = network_run.make_recipe(out="ray-run", double=True)  # as seen from this folder
    folder = train_on_ray(recipe, workers=2)
    assert folder == tmp_path / "ray-run" / "last"
    found = load_file(folder / "weights.safetensors")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())


@pytest.mark.slow
def test_the_command_trains_on_workers(network_run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.toml").write_text('task = "network"\nsteps = 2\nbatch_size = 8\n')
    assert main(["train", "tiny.toml", "out=made", "--ray", "2"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'made' / 'last'}\n"
    made_by = json.loads((tmp_path / "made" / "last" / "training.json").read_text())
    assert (made_by["processes"], made_by["steps"]) == (2, 2)


@pytest.mark.slow
def test_what_a_worker_refuses_is_said(network_run, tmp_path):
    recipe = network_run.make_recipe(out=str(tmp_path), batch_size=8, replicas=3)
    with pytest.raises(LuminaError, match="2 processes do not divide into 3 replicas"):
        train_on_ray(recipe, workers=2)


@pytest.fixture
def recipe_file(tmp_path, monkeypatch):
    """A recipe on a machine without Ray."""
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    file = tmp_path / "tiny.toml"
    file.write_text(f'task = "shapes"\nout = "{tmp_path / "run"}"\n')
    return str(file)


@pytest.mark.parametrize(
    ("flags", "code", "told"),
    [
        (["--ray", "2"], 1, "pip install 'lumina-t2x[ray]'"),
        (["--ray", "2", "--gpus", "2"], 1, "it trains on one or none"),
        (["--gpus", "1"], 1, "add --ray N"),
        (["--ray", "0"], 2, "--ray 0 names no number of workers"),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_workers_that_cannot_be_had_are_refused(recipe_file, tmp_path, capsys, flags, code, told):
    assert main(["train", recipe_file, *flags]) == code
    assert told in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
