import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from lumina.errors import LuminaError, UnknownNameError
from lumina.flow.scheduler import FlowSolverScheduler
from lumina.flow.solvers import SOLVERS, integrate
from lumina.flow.times import SIGMOID, shift_times, sigmoid_times, uniform_times

FIXED = [name for name, solver in SOLVERS.items() if solver.evaluations]
NOISE = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))


def velocity(x, t):
    return torch.sin(3 * x) + t


def sample(scheduler, steps):
    """What a pipeline of diffusers does: velocities toward noise, times counted down."""
    scheduler.set_timesteps(steps)
    x = NOISE
    for timestep in scheduler.timesteps:
        x = scheduler.step(-velocity(x, 1 - timestep / 1000), timestep, x, return_dict=False)[0]
    return x


@pytest.mark.parametrize("name", FIXED)
@pytest.mark.parametrize("shift", [1.0, 4.0])
def test_a_loop_of_diffusers_gives_what_the_solver_gives(name, shift):
    times = shift_times(uniform_times(6), shift)
    expected = integrate(velocity, NOISE, times, solver=SOLVERS[name])[-1]
    scheduler = FlowSolverScheduler(solver=name, shift=shift)
    torch.testing.assert_close(sample(scheduler, 6), expected)
    assert len(scheduler.timesteps) == 6 * SOLVERS[name].evaluations


def test_a_second_sample_is_as_the_first_even_after_one_that_was_left():
    scheduler = FlowSolverScheduler(solver="rk4")
    first = sample(scheduler, 4)
    scheduler.set_timesteps(4)
    scheduler.step(NOISE, scheduler.timesteps[0], NOISE)
    assert torch.equal(sample(scheduler, 4), first)


def test_euler_without_shift_takes_the_steps_of_diffusers_scheduler_at_equal_times():
    theirs = FlowMatchEulerDiscreteScheduler()
    ours = FlowSolverScheduler(solver="euler")
    ours.set_timesteps(5)
    theirs.set_timesteps(sigmas=(ours.timesteps / 1000).tolist())
    torch.testing.assert_close(theirs.timesteps, ours.timesteps)
    x = NOISE
    for timestep in theirs.timesteps:
        x = theirs.step(-velocity(x, 1 - timestep / 1000), timestep, x, return_dict=False)[0]
    torch.testing.assert_close(sample(ours, 5), x)


@pytest.mark.parametrize("name", ["euler", "midpoint", "ab2", "dpm++", "unipc"])
def test_a_sample_that_is_moved_between_steps_stays_moved(name):
    scheduler = FlowSolverScheduler(solver=name)
    scheduler.set_timesteps(4)
    x = NOISE
    for index, timestep in enumerate(scheduler.timesteps):
        x = scheduler.step(torch.zeros_like(x), timestep, x, return_dict=False)[0]
        if index == 2 * SOLVERS[name].evaluations - 1:
            x = x + 5
    torch.testing.assert_close(x, NOISE + 5)


def test_low_precision_samples_do_not_round_the_state():
    scheduler = FlowSolverScheduler(solver="euler")
    scheduler.set_timesteps(1000)
    x = torch.ones(1, 1, dtype=torch.bfloat16)
    for timestep in scheduler.timesteps:
        x = scheduler.step(-torch.ones_like(x), timestep, x, return_dict=False)[0]
    assert x.item() == 2  # a thousandth is lost in bfloat16 beside 1


def test_schedules_and_given_shares_of_noise_are_where_it_stops():
    scheduler = FlowSolverScheduler(solver="euler", schedule="sigmoid", shift=2.0)
    scheduler.set_timesteps(5)
    times = shift_times(sigmoid_times(uniform_times(5), **SIGMOID), 2.0)
    torch.testing.assert_close(scheduler.timesteps, 1000 * (1 - times[:-1]))
    for sigmas in ([1.0, 0.7, 0.2], [1.0, 0.7, 0.2, 0.0]):
        scheduler.set_timesteps(sigmas=sigmas)
        torch.testing.assert_close(scheduler.timesteps, torch.tensor([1000.0, 700, 200]))


def test_what_diffusers_loops_cannot_do_is_refused():
    with pytest.raises(LuminaError, match="chooses its steps itself"):
        FlowSolverScheduler(solver="dopri5")
    with pytest.raises(UnknownNameError, match="unknown schedule"):
        FlowSolverScheduler(schedule="cosine")
    with pytest.raises(LuminaError, match="do not increase"):
        FlowSolverScheduler().set_timesteps(sigmas=[1.0, 0.2, 0.7])
    with pytest.raises(LuminaError, match="above 0"):
        FlowSolverScheduler(shift=0.0)


def test_settings_are_saved_and_loaded(tmp_path):
    FlowSolverScheduler(solver="heun", shift=4.0).save_pretrained(tmp_path)
    loaded = FlowSolverScheduler.from_pretrained(tmp_path)
    assert (loaded.config.solver, loaded.config.shift) == ("heun", 4.0)


def test_an_unknown_solver_is_refused_with_the_nearest():
    with pytest.raises(UnknownNameError, match="did you mean 'midpoint'"):
        FlowSolverScheduler(solver="midpint")


def test_a_pipeline_takes_its_steps(tiny_folder):
    import lumina

    pipeline = lumina.load(tiny_folder, dtype="float32", device="cpu")
    pipeline.scheduler = FlowSolverScheduler(solver="midpoint", shift=2.0)
    pipeline.set_progress_bar_config(disable=True)

    generator = torch.Generator().manual_seed(0)
    output = pipeline("a cat", num_inference_steps=8, generator=generator, output_type="latent")
    assert pipeline.num_timesteps == 16
    assert output.images.isfinite().all()
