import pytest
import torch
from diffusers import (
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    UniPCMultistepScheduler,
)

from lumina.flow.sample import begin_steps, dynamic_shift, flow_times, step_options


def begin(scheduler, steps=4, **options):
    return begin_steps(scheduler, steps, **{"tokens": 64, "device": "cpu"} | options)


def test_times_run_from_noise_toward_data():
    scheduler = FlowMatchEulerDiscreteScheduler()
    times = flow_times(scheduler, begin(scheduler))
    assert times[0] == 0
    assert (times.diff() > 0).all()
    assert times[-1] < 1


def test_sigmas_are_where_the_sampler_stops():
    scheduler = FlowMatchEulerDiscreteScheduler()
    times = flow_times(scheduler, begin(scheduler, sigmas=[1.0, 0.75, 0.25]))
    torch.testing.assert_close(times, torch.tensor([0, 0.25, 0.75]))


def test_a_second_sample_begins_at_the_first_step_again():
    scheduler = FlowMatchEulerDiscreteScheduler()
    x = torch.zeros(1, 4, 2, 2)
    for _ in range(2):
        timesteps = begin(scheduler)
        scheduler.step(x, timesteps[0], x)
        assert scheduler.step_index == 1


@pytest.mark.parametrize("steps", [2, 5])
@pytest.mark.parametrize(
    "scheduler",
    [
        FlowMatchEulerDiscreteScheduler(shift=3.0),
        FlowMatchHeunDiscreteScheduler(),
        UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True),
    ],
    ids=lambda scheduler: type(scheduler).__name__,
)
def test_a_constant_velocity_is_followed_to_its_end(scheduler, steps):
    noise = torch.randn(1, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    data = torch.ones_like(noise)
    x = noise
    for timestep in begin(scheduler, steps):
        x = scheduler.step(noise - data, timestep, x, return_dict=False)[0]
    torch.testing.assert_close(x, data, atol=1e-2, rtol=0)


def test_dynamic_shifting_meets_the_two_sizes_it_is_configured_for():
    config = {"base_image_seq_len": 100, "max_image_seq_len": 300, "base_shift": 1, "max_shift": 2}
    assert dynamic_shift(config, 100) == 1
    assert dynamic_shift(config, 300) == 2
    assert dynamic_shift(config, 200) == 1.5


def test_steps_are_given_only_what_they_take():
    generator = torch.Generator()
    assert step_options(FlowMatchEulerDiscreteScheduler(), generator) == {"generator": generator}
    assert step_options(DDIMScheduler(), generator) == {"generator": generator, "eta": 0.0}
    assert step_options(UniPCMultistepScheduler(), generator) == {}


def test_no_step_is_refused():
    with pytest.raises(ValueError, match="1 or more but is 0"):
        begin(FlowMatchEulerDiscreteScheduler(), 0)
