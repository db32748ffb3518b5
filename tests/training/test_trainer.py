import json
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from lumina.errors import LuminaError
from lumina.settings import setting
from lumina.training import recipes
from lumina.training.sharding import ALONE
from lumina.training.trainer import Run, train


class Points(NamedTuple):
    values: torch.Tensor


class Regression:
    """Fit a small network to a product."""

    def __init__(self, recipe):
        self.recipe = recipe
        self.module = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 8), nn.Linear(8, 1))

    def to(self, device):
        self.module.to(device)

    def batch(self, number, share):
        time.sleep(self.recipe.pause)
        generator = torch.Generator().manual_seed(number)
        return share.take(Points(torch.randn(self.recipe.batch_size, 3, generator=generator)))

    def validate(self):
        generator = torch.Generator().manual_seed(2**40)
        points = torch.randn(64, 3, generator=generator)
        with torch.no_grad():
            return {"validation": self.error(points).item()}

    def error(self, points):
        return (self.module(points) - points.prod(1, keepdim=True)).square().mean()

    def loss(self, batch, step):
        if step == self.recipe.breaks_at:
            return self.error(batch.values) * float("nan"), {}
        if step == self.recipe.leaps_at:
            return self.error(batch.values) * 1e6, {}
        return self.error(batch.values), {}

    def preview(self, folder, step):
        (folder / f"preview-{step}").touch()

    def export(self, folder):
        folder.mkdir(exist_ok=True)
        save_file(self.module.state_dict(), folder / "weights.safetensors")


@dataclass(frozen=True, kw_only=True)
class RegressionRecipe(recipes.Recipe):
    task = "regression"

    pause: float = setting(0.0, "seconds to wait for a batch")
    breaks_at: int = setting(-1, "step at which the loss is not a number")
    leaps_at: int = setting(-1, "step at which the gradient is a million times as large")
    start_from: str = setting("", "a run before, of which nothing is taken here")

    def make_objective(self):
        return Regression(self)


@pytest.fixture(autouse=True)
def _known_task(monkeypatch):
    monkeypatch.setitem(recipes.TASKS, "regression", RegressionRecipe)


def recipe(out, **settings):
    defaults = {"steps": 12, "warmup": 2, "save_minutes": 0.0, "preview_every": 5, "log_every": 4}
    defaults |= {"batch_size": 16, "device": "cpu"}
    return RegressionRecipe(out=str(out), **defaults | settings)


def weights(folder):
    return load_file(folder / "weights.safetensors")


@pytest.mark.parametrize(
    "settings", [{}, {"precision": "bf16"}, {"matrix_optimizer": "adamw8bit"}], ids=str
)
def test_a_run_that_was_stopped_ends_with_the_same_bits(tmp_path, settings):
    whole = train(recipe(tmp_path / "whole", **settings))

    torch.manual_seed(0)
    halted = recipe(tmp_path / "halted", **settings)
    Path(halted.out).mkdir()
    run = Run(halted, halted.make_objective())
    for step in range(5):
        run.update([run.objective.batch(step, ALONE)], step)
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
    while not list(killed.glob("states/step-*/run.json")):
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


def test_a_changed_recipe_says_from_what_to_what(tmp_path):
    train(recipe(tmp_path))
    with pytest.raises(LuminaError, match=r"steps: 12 -> 13"):
        train(recipe(tmp_path, steps=13))


def test_a_run_may_be_compiled_when_it_goes_on(tmp_path):
    began = recipe(tmp_path).to_json()
    assert recipe(tmp_path, compile=True).changes_since(began) == {}
    assert recipe(tmp_path, batch_size=3).changes_since(began).keys() == {"batch_size"}


def test_zero_clips_nothing(tmp_path):
    free = weights(train(recipe(tmp_path / "free", clip=0.0)))
    wide = weights(train(recipe(tmp_path / "wide", clip=1e9)))
    start = recipe(tmp_path / "start").make_objective().module.state_dict()
    for name, weight in free.items():
        assert torch.equal(weight, wide[name])
        assert not torch.equal(weight, start[name])


def test_what_a_module_cannot_do_is_refused(tmp_path):
    with pytest.raises(LuminaError, match="runs of the task regression cannot compile"):
        train(recipe(tmp_path, compile=True))


class LateWeights(Regression):
    """Has weights that get no gradient before a step."""

    def __init__(self, settings):
        super().__init__(settings)
        for name, shape in (("matrix", (3, 3)), ("vector", (3,))):
            self.module.register_parameter(name, nn.Parameter(torch.ones(shape)))

    def loss(self, batch, step):
        loss, figures = super().loss(batch, step)
        if step < 6:
            return loss, figures
        late = batch.values @ self.module.matrix + self.module.vector
        return loss + late.square().mean(), figures


@pytest.mark.parametrize("stop", [3, 8])
def test_a_run_resumes_where_a_weight_had_no_gradient_yet(tmp_path, monkeypatch, stop):
    monkeypatch.setattr(RegressionRecipe, "make_objective", lambda self: LateWeights(self))
    whole = train(recipe(tmp_path / "whole"))
    torch.manual_seed(0)
    halted = recipe(tmp_path / "halted")
    Path(halted.out).mkdir()
    run = Run(halted, halted.make_objective())
    for step in range(stop):
        run.update([run.objective.batch(step, ALONE)], step)
        run.step = step + 1
    run.save()
    resumed = weights(train(halted))
    for name, weight in weights(whole).items():
        assert torch.equal(weight, resumed[name]), name


def test_a_damaged_state_is_named(tmp_path):
    train(recipe(tmp_path))
    for file in latest(tmp_path).parent.glob("*.distcp"):
        file.write_bytes(b"")
    with pytest.raises(LuminaError, match=r"step-0+12 cannot be read"):
        train(recipe(tmp_path))


def test_other_data_are_not_gone_on_with(tmp_path, monkeypatch):
    monkeypatch.setattr(Regression, "data_digest", "these", raising=False)
    train(recipe(tmp_path))
    monkeypatch.setattr(Regression, "data_digest", "those")
    with pytest.raises(LuminaError, match="are others than when the run"):
        train(recipe(tmp_path))


def test_the_log_of_a_run_that_was_killed_before_its_first_state_begins_anew(tmp_path):
    lines = [json.dumps({"step": step, "loss": 9.0}) for step in (1, 2, 3)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + '\n{"step": 4, "lo')
    train(recipe(tmp_path))
    told = [json.loads(line) for line in (tmp_path / "metrics.jsonl").open()]
    assert [line["step"] for line in told] == list(range(1, 13))
    assert told[0]["loss"] != 9.0


@pytest.mark.parametrize("breaks_at", [-1, 7])
def test_tensorboard_reads_every_step_that_was_taken(tmp_path, breaks_at):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with nullcontext() if breaks_at < 0 else pytest.raises(LuminaError):
        train(recipe(tmp_path, tensorboard=True, breaks_at=breaks_at))
    log = EventAccumulator(str(tmp_path / "tensorboard"))
    log.Reload()
    last = 12 if breaks_at < 0 else breaks_at
    assert [event.step for event in log.Scalars("loss")] == list(range(1, last + 1))


def latest(out):
    return sorted(out.glob("states/step-*/run.json"))[-1]


def test_a_run_resumes_after_the_library_gained_a_setting(tmp_path):
    train(recipe(tmp_path))
    facts = json.loads(latest(tmp_path).read_text())
    settings = json.loads(facts["recipe"])
    del settings["precision"]
    latest(tmp_path).write_text(json.dumps(facts | {"recipe": json.dumps(settings)}))
    train(recipe(tmp_path))
    with pytest.raises(LuminaError, match="precision"):
        train(recipe(tmp_path, precision="bf16"))


@pytest.mark.parametrize("trouble", [{"breaks_at": 7}, {"leaps_at": 30, "spike": 50.0}])
def test_a_step_that_would_do_harm_stops_the_run_at_the_last_good_state(tmp_path, trouble):
    step = max(trouble.get("breaks_at", 0), trouble.get("leaps_at", 0))
    with pytest.raises(LuminaError, match=f"at step {step}") as told:
        train(recipe(tmp_path, steps=40, **trouble))
    assert json.loads(latest(tmp_path).read_text())["step"] == step
    assert latest(tmp_path).parent.name in told.value.hint


def test_a_leap_is_no_trouble_where_it_is_not_watched(tmp_path):
    train(recipe(tmp_path, steps=40, leaps_at=30))


def test_the_exported_weights_are_the_average_over_steps(tmp_path):
    settings = recipe(tmp_path, ema=0.9)
    tmp_path.mkdir(exist_ok=True)
    run = Run(settings, settings.make_objective())
    average = {name: weight.detach().clone() for name, weight in run.weights.items()}
    for step in range(6):
        run.update([run.objective.batch(step, ALONE)], step)
        memory = min(0.9, (1 + step) / (10 + step))
        for name, weight in run.weights.items():
            average[name] = average[name].lerp(weight.detach(), 1 - memory)
    exported = weights(run.export())
    for name, expected in average.items():
        torch.testing.assert_close(exported[name], expected)
        assert not torch.equal(exported[name], run.weights[name]), name


def test_gradients_of_several_batches_are_those_of_one_as_large(tmp_path):
    class Large(Regression):
        def batch(self, number, share):
            parts = [super(Large, self).batch(2 * number + part, share) for part in (0, 1)]
            return Points(torch.cat([part.values for part in parts]))

    settings = recipe(tmp_path, accumulate=2, matrix_optimizer="adamw")
    torch.manual_seed(0)
    run = Run(settings, Regression(settings))
    torch.manual_seed(0)
    large = Run(recipe(tmp_path, matrix_optimizer="adamw"), Large(settings))
    for step in range(3):
        run.update([run.objective.batch(2 * step + part, ALONE) for part in (0, 1)], step)
        large.update([large.objective.batch(step, ALONE)], step)
    for name, weight in run.weights.items():
        torch.testing.assert_close(weight, large.weights[name], atol=1e-5, rtol=1e-4)


def test_half_precision_scales_its_loss_and_learns(tmp_path):
    train(recipe(tmp_path, precision="fp16", steps=40, validate_every=20))
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").open()]
    found = [line["validation"] for line in lines if "validation" in line]
    assert len(found) == 2
    assert found[1] < found[0]


def test_old_states_go_and_those_to_keep_stay(tmp_path):
    train(recipe(tmp_path, keep_states=2, keep_every=5))
    steps = [json.loads(p.read_text())["step"] for p in sorted(tmp_path.glob("states/*/run.json"))]
    assert steps == [5, 10, 11, 12]


def test_a_full_disk_leaves_the_last_state_as_good_as_it_was(tmp_path, monkeypatch):
    settings = recipe(tmp_path)
    run = Run(settings, settings.make_objective())
    run.save()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("torch.distributed.checkpoint.save", full)
    run.step = 1
    with pytest.raises(LuminaError, match="No space left") as told:
        run.save()
    assert "step-00000000" in told.value.hint
    assert [path.name for path in (tmp_path / "states").iterdir()] == ["step-00000000"]


def test_a_run_tells_what_made_its_weights(tmp_path):
    folder = train(recipe(tmp_path))
    made_by = json.loads((folder / "training.json").read_text())
    assert made_by["steps"] == 12
    assert made_by["recipe"]["learning_rate"] == recipe(tmp_path).learning_rate


def test_a_run_tells_of_those_that_it_goes_on_from(tmp_path):
    start = ""
    for name in ("first", "second", "third"):
        start = str(train(recipe(tmp_path / name, steps=2, start_from=start)))
    made_by = json.loads((Path(start) / "training.json").read_text())
    runs = [made_by, made_by["before"], made_by["before"]["before"]]
    outs = [Path(run["recipe"]["out"]).name for run in runs]
    assert outs == ["third", "second", "first"]
    assert "before" not in runs[-1]


def test_a_file_that_happens_to_be_here_is_no_record_of_a_model_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "training.json").write_text('{"steps": 1}')
    folder = train(recipe(tmp_path / "first", steps=2, start_from="lumina-mini"))
    assert "before" not in json.loads((folder / "training.json").read_text())


def test_after_a_run_signals_do_what_they_did_before(tmp_path):
    before = signal.getsignal(signal.SIGINT)
    train(recipe(tmp_path))
    assert signal.getsignal(signal.SIGINT) is before


def test_a_step_that_half_precision_is_too_small_for_changes_nothing(tmp_path):
    settings = recipe(tmp_path, precision="fp16")
    run = Run(settings, settings.make_objective())
    before = {name: weight.detach().clone() for name, weight in run.weights.items()}
    huge = Points(torch.full((16, 3), 1e10))
    figures = run.update([huge], 0)
    for name, weight in run.weights.items():
        assert torch.equal(weight, before[name]), name
        assert torch.equal(run.average[name], before[name]), name
    assert figures["norm"] == float("inf")
    run.update([run.objective.batch(1, ALONE)], 1)
    assert all(weight.isfinite().all() for weight in run.weights.values())
