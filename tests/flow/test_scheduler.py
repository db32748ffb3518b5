import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from lumina.errors import LuminaError, UnknownNameError
from lumina.flow.sample import asked_times, begin_sample
from lumina.flow.scheduler import FlowSolverScheduler, choose_scheduler
from lumina.flow.solvers import SOLVERS, dormand_prince, integrate
from lumina.flow.stochastic import stochastic
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
        sample(FlowSolverScheduler(solver="dopri5"), 30)
    with pytest.raises(LuminaError, match="adds noise before it asks"):
        sample(FlowSolverScheduler(solver="sde-heun"), 30)
    for wrong in ({"shift": 2.0}, {"schedule": "sigmoid"}):
        with pytest.raises(LuminaError, match="leave out schedule and shift"):
            FlowSolverScheduler(solver="dopri5", **wrong)
    with pytest.raises(LuminaError, match="leave out times"):
        FlowSolverScheduler(solver="dopri5").set_timesteps(sigmas=[1.0, 0.5])
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


def follow(scheduler, x, *, begin=0, edit=lambda x: x, **options):
    """What our pipelines do: they go where the scheduler asks."""
    timesteps = scheduler.timesteps[begin:]
    scheduler.set_begin_index(begin)
    x = begin_sample(scheduler, x, options.get("generator"))
    for timestep, time in asked_times(scheduler, timesteps):
        toward_noise = -velocity(x.float(), time).to(x.dtype)
        x = edit(scheduler.step(toward_noise, timestep, x, return_dict=False, **options)[0])
    return x


@pytest.mark.parametrize("begin", [0, 40])
def test_an_adaptive_solver_gets_from_where_it_begins_to_data_within_its_tolerance(begin):
    scheduler = FlowSolverScheduler(solver="dopri5", tolerance=1e-4)
    scheduler.set_timesteps(1)
    end = follow(scheduler, NOISE, begin=begin)
    times = torch.tensor([begin / 100, 1.0])
    solver = dormand_prince(relative=1e-4, absolute=1e-7)
    torch.testing.assert_close(end, integrate(velocity, NOISE, times, solver=solver)[-1])
    exact = integrate(velocity, NOISE, torch.linspace(*times, 400), solver=SOLVERS["rk4"])[-1]
    assert (end - exact).norm() <= 10 * 1e-4 * exact.norm()
    assert scheduler.next_timestep is None


def test_an_adaptive_solver_asks_more_often_for_less_error():
    def count(tolerance):
        seen = []
        scheduler = FlowSolverScheduler(solver="dopri5", tolerance=tolerance)
        follow(scheduler, NOISE, edit=lambda x: seen.append(x) or x)
        return len(seen)

    assert count(1e-6) > count(1e-2) >= 6


@pytest.mark.parametrize("name", ["sde", "sde-heun"])
def test_stochastic_steps_are_those_of_the_solver_and_their_noise_is_that_of_the_generator(name):
    scheduler = FlowSolverScheduler(solver=name, diffusion="linear", diffusion_norm=0.5)
    scheduler.set_timesteps(6)
    source = torch.Generator().manual_seed(3)
    end = follow(scheduler, NOISE, generator=source)
    source = torch.Generator().manual_seed(3)
    solver = stochastic(
        lambda x: torch.randn(x.shape, generator=source),
        form="linear",
        norm=0.5,
        method="heun" if name == "sde-heun" else "euler",
    )
    times = torch.cat([torch.linspace(0, 0.96, 6), torch.ones(1)])
    torch.testing.assert_close(end, integrate(velocity, NOISE, times, solver=solver)[-1])


def test_each_sample_of_a_batch_gets_the_noise_of_its_own_generator():
    scheduler = FlowSolverScheduler(solver="sde")

    def draw(x, *seeds):
        scheduler.set_timesteps(4)
        sources = [torch.Generator().manual_seed(seed) for seed in seeds]
        return follow(scheduler, x, generator=sources)

    torch.testing.assert_close(draw(NOISE, 1, 2)[1:], draw(NOISE[1:], 2))


@pytest.mark.parametrize("diffusion", ["sbdm", "constant"])
def test_stochastic_times_keep_away_from_poles(diffusion):
    scheduler = FlowSolverScheduler(solver="sde", diffusion=diffusion)
    scheduler.set_timesteps(50)
    assert follow(scheduler, NOISE, generator=torch.Generator().manual_seed(0)).isfinite().all()


def test_a_single_step_that_adds_no_noise_is_refused():
    with pytest.raises(LuminaError, match="the last step adds no noise"):
        FlowSolverScheduler(solver="sde").set_timesteps(1)


@pytest.mark.parametrize("name", ["euler", "ab2", "dpm++", "unipc"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("guard", [torch.no_grad, torch.inference_mode])
def test_writing_into_a_sample_is_as_good_as_returning_another(name, dtype, guard):
    def draw(change):
        scheduler, seen = FlowSolverScheduler(solver=name), []
        scheduler.set_timesteps(5)

        def edit(x):
            seen.append(x)
            return change(x) if len(seen) == 3 else x

        return follow(scheduler, NOISE.to(dtype), edit=edit)

    with guard():
        other, written = draw(lambda x: x + 5), draw(lambda x: x.add_(5))
        assert torch.equal(written, other)
        assert not torch.equal(written, draw(lambda x: x))


def test_a_step_past_the_end_is_refused():
    scheduler = FlowSolverScheduler(solver="euler")
    sample(scheduler, 2)
    with pytest.raises(LuminaError, match="at its end"):
        scheduler.step(NOISE, 0, NOISE)


def test_what_is_not_asked_for_stays_as_the_usual_scheduler_has_it():
    original = FlowSolverScheduler(solver="midpoint", shift=4.0)
    assert choose_scheduler(original, {"solver": None, "shift": None}) is original
    chosen = choose_scheduler(original, {"solver": None, "schedule": "sigmoid"}).config
    assert (chosen.solver, chosen.schedule, chosen.shift) == ("midpoint", "sigmoid", 4.0)
    theirs = FlowMatchEulerDiscreteScheduler(shift=3.0)
    chosen = choose_scheduler(theirs, {"solver": "heun"}).config
    assert (chosen.solver, chosen.shift) == ("heun", 3.0)
    assert choose_scheduler(theirs, {"solver": "dopri5"}).config.shift == 1
