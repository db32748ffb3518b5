import json
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from lumina.errors import LuminaError
from lumina.requests import setting
from lumina.training import recipes
from lumina.training.trainer import Run, train


class Regression:
    """Fit a small network to a product."""

    def __init__(self, recipe):
        self.recipe = recipe
        self.module = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 8), nn.Linear(8, 1))

    def batch(self, step):
        time.sleep(self.recipe.pause)
        return torch.randn(16, 3, generator=torch.Generator().manual_seed(step))

    def loss(self, batch, step):
        if step == self.recipe.breaks_at:
            return self.module(batch).sum() * float("nan"), {}
        return (self.module(batch) - batch.prod(1, keepdim=True)).square().mean(), {}

    def preview(self, folder, step):
        (folder / f"preview-{step}").touch()

    def export(self, folder):
        folder.mkdir(exist_ok=True)
        save_file(self.module.state_dict(), folder / "weights.safetensors")


@dataclass(frozen=True, kw_only=True)
class RegressionRecipe(recipes.Recipe):
    pause: float = setting(0.0, "seconds to wait for a batch")
    breaks_at: int = setting(-1, "step at which the loss is not a number")

    def make_objective(self):
        return Regression(self)


@pytest.fixture(autouse=True)
def _known_task(monkeypatch):
    monkeypatch.setitem(recipes.TASKS, "regression", RegressionRecipe)


def recipe(out, **settings):
    defaults = {"steps": 12, "warmup": 2, "save_minutes": 0.0, "preview_every": 5, "log_every": 4}
    return RegressionRecipe(out=str(out), **defaults | settings)


def weights(folder):
    return load_file(folder / "weights.safetensors")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_that_was_stopped_ends_with_the_same_bits(tmp_path, precision):
    whole = train(recipe(tmp_path / "whole", precision=precision))

    torch.manual_seed(0)
    halted = recipe(tmp_path / "halted", precision=precision)
    Path(halted.out).mkdir()
    run = Run(halted, halted.make_objective())
    for step in range(5):
        run.update(run.objective.batch(step), step)
        run.step = step + 1
    run.save()
    resumed = train(halted)

    for name, weight in weights(whole).items():
        assert torch.equal(weight, weights(resumed)[name]), name


def test_a_run_that_was_killed_ends_with_the_same_bits_and_log(tmp_path):
    whole = train(recipe(tmp_path / "whole"))
    killed = tmp_path / "killed"
    script = (
        "import sys; sys.path.insert(0, sys.argv[2]); import test_trainer as t;"
        "t.recipes.TASKS['regression'] = t.RegressionRecipe;"
        "t.train(t.recipe(sys.argv[1], pause=0.2))"
    )
    command = [sys.executable, "-c", script, str(killed), str(Path(__file__).parent)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while not (killed / "state.pt").exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()

    resumed = train(recipe(killed, pause=0.2))

    for name, weight in weights(whole).items():
        assert torch.equal(weight, weights(resumed)[name]), name
    steps = [json.loads(line)["step"] for line in (killed / "metrics.jsonl").open()]
    assert steps == list(range(1, 13))


def test_a_changed_recipe_does_not_resume_and_says_what_differs(tmp_path):
    train(recipe(tmp_path))
    with pytest.raises(LuminaError, match="learning_rate"):
        train(recipe(tmp_path, learning_rate=0.5))


def test_a_run_resumes_after_the_library_gained_a_setting(tmp_path):
    train(recipe(tmp_path))
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    settings = json.loads(state["recipe"])
    del settings["precision"]
    torch.save(state | {"recipe": json.dumps(settings)}, tmp_path / "state.pt")
    train(recipe(tmp_path))
    with pytest.raises(LuminaError, match="precision"):
        train(recipe(tmp_path, precision="bf16"))


def test_a_loss_that_is_not_a_number_stops_the_run_before_the_weights_change(tmp_path):
    with pytest.raises(LuminaError, match="step 7"):
        train(recipe(tmp_path, breaks_at=7))
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert state["step"] == 7
    assert all(weight.isfinite().all() for weight in state["module"].values())


def test_the_exported_weights_are_the_average_over_steps(tmp_path):
    exported = weights(train(recipe(tmp_path)))
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    for name, average in zip(state["module"], state["average"], strict=True):
        torch.testing.assert_close(exported[name], average)
        assert not torch.equal(exported[name], state["module"][name]), name


def test_a_run_tells_what_made_its_weights(tmp_path):
    folder = train(recipe(tmp_path))
    made_by = json.loads((folder / "training.json").read_text())
    assert made_by["steps"] == 12
    assert made_by["recipe"]["learning_rate"] == recipe(tmp_path).learning_rate
