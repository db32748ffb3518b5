"""How settings of a sample reach the network, with real networks at tiny sizes."""

import math

import numpy as np
import pytest
import torch

from lumina import LuminaError
from lumina.flow.scheduler import FlowSolverScheduler
from lumina.nn.context_drop import pooled_attend
from lumina.nn.extrapolation import RopeScaling
from lumina.pipelines.images import Evaluations
from lumina.pipelines.velocity import as_guidance_scale
from lumina.requests import EXTRAPOLATIONS


@pytest.fixture
def calls(ours):
    """What each call of the network was given."""
    seen = []

    def watch(_module, _arguments, named):
        seen.append(named | {"rows": len(named["hidden_states"])})

    ours.transformer.register_forward_pre_hook(watch, with_kwargs=True)
    return seen


def test_outside_of_its_interval_guidance_takes_no_second_pass(ours, draw, calls):
    ours.scheduler = FlowSolverScheduler(solver="euler")
    draw(ours, num_inference_steps=10, guidance_interval=(0.25, 0.75))
    assert [call["rows"] for call in calls] == [1] * 3 + [2] * 5 + [1] * 2
    assert ours.evaluations == Evaluations(pairs=5, singles=5)


@pytest.mark.parametrize(
    ("cost", "told"),
    [
        (Evaluations(pairs=1), "1 pair, 2 passes"),
        (Evaluations(singles=1), "1 pass through"),
        (Evaluations(pairs=2, singles=1), "2 pairs and 1 alone, 5 passes"),
    ],
)
def test_one_evaluation_is_told_as_one(cost, told):
    assert str(cost).startswith(told)


def test_an_interval_that_is_all_of_time_changes_nothing(ours, draw, assert_same):
    same = draw(ours, guidance_interval=(0.0, 1.0), guidance_rescale=0.0)
    assert torch.equal(same, draw(ours))


def test_each_picture_may_be_guided_differently(ours, draw, assert_same):
    def both(scale):
        generators = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
        return draw(ours, ["a cat", "a dog"], guidance_scale=scale, generator=generators)

    mixed = both([1.0, 5.0])
    assert_same(mixed[0], both(1.0)[0])
    assert_same(mixed[1], both(5.0)[1])
    with pytest.raises(LuminaError, match="3 guidance scales for 2 pictures"):
        both([1.0, 2.0, 3.0])


@pytest.mark.parametrize(
    "scale", [3, 3.0, np.float32(3), np.int64(3), torch.tensor(3.0), torch.tensor(3), np.array(3.0)]
)
def test_guidance_is_by_any_real_number(scale):
    found = as_guidance_scale(scale, 2)
    assert (type(found) in (int, float), found) == (True, 3)


@pytest.mark.parametrize(
    "several",
    [
        [1.5, 3],
        (1.5, np.float32(3)),
        [torch.tensor(1.5), torch.tensor(3)],
        np.array([1.5, 3.0]),
        torch.tensor([1.5, 3.0], dtype=torch.bfloat16),
    ],
)
def test_numbers_of_several_pictures_come_in_any_sequence(several):
    assert as_guidance_scale(several, 2).tolist() == [1.5, 3.0]


@pytest.mark.parametrize(
    ("scale", "told"),
    [
        (float("nan"), "guidance_scale is nan, which is not finite"),
        (-math.inf, "guidance_scale is -inf, which is not finite"),
        (torch.tensor(math.inf), "guidance_scale is inf, which is not finite"),
        ([3.0, math.nan], "guidance_scale is nan, which is not finite"),
        ("3", "guidance_scale is '3', which is no number"),
        (["3", "4"], "guidance_scale is '3', which is no number"),
        (True, "guidance_scale is True, which is no number"),
        (None, "guidance_scale is None, which is no number"),
        (3j, "guidance_scale is 3j, which is no number"),
        (torch.ones(2, 2), r"guidance_scale is \[1.0, 1.0\], which is no number"),
        (torch.ones(3), "3 guidance scales for 2 pictures"),
    ],
)
def test_guidance_by_no_finite_number_is_refused(scale, told):
    with pytest.raises(LuminaError, match=told):
        as_guidance_scale(scale, 2)


def test_pictures_are_not_guided_by_what_is_not_finite(ours, draw):
    with pytest.raises(LuminaError, match="guidance_scale is nan"):
        draw(ours, guidance_scale=math.nan)


def test_all_channels_can_be_guided(ours, draw):
    three, every = (
        draw(ours, num_inference_steps=1),
        draw(ours, num_inference_steps=1, guided_channels=None),
    )
    torch.testing.assert_close(three[:, :3], every[:, :3])
    assert not torch.allclose(three[:, 3:], every[:, 3:], atol=1e-3)


@pytest.mark.parametrize("method", EXTRAPOLATIONS)
def test_every_way_to_read_positions_draws_another_picture_at_another_size(ours, draw, method):
    large = {"width": 128, "height": 128, "scaling_watershed": 0.5}
    picture = draw(ours, extrapolation=method, **large)
    assert picture.isfinite().all()
    if method != "watershed":
        assert not torch.allclose(picture, draw(ours, **large), atol=1e-4)


def test_sides_can_be_scaled_each_by_its_own(ours, draw, calls):
    draw(ours, width=128, height=32, extrapolation="linear", scale_by="axis")
    assert calls[0]["rope"] == RopeScaling(linear=(1.0, 0.5, 2.0))
    draw(ours, width=128, height=32, extrapolation="linear")
    assert calls[-1]["rope"] == RopeScaling(linear=1.0)
    with pytest.raises(LuminaError, match="area, axis"):
        draw(ours, scale_by="side")


def test_context_drop_reaches_the_blocks_of_its_time(ours, draw, calls):
    ours.scheduler = FlowSolverScheduler(solver="euler")
    draw(ours, context_drop="time-aware")
    assert [[attend is not None for attend in call["attend"]] for call in calls] == [
        [True, True],
        [False, True],
    ]


def test_context_drop_is_attention_to_averages(ours, draw):
    ours.scheduler = FlowSolverScheduler(solver="euler")
    dropped = draw(ours, num_inference_steps=1, context_drop="all")
    features, mask, away, away_mask = ours.encode_prompt("a red apple")
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(7))
    velocity = ours.transformer(
        noise.repeat(2, 1, 1, 1),
        torch.zeros(2),
        torch.cat([features, away]),
        torch.cat([mask, away_mask]),
        cross_attention_kwargs={"base_sequence_length": 16},
        attend=pooled_attend((4, 4)),
        return_dict=False,
    )[0][:, :4]
    toward, against = velocity.chunk(2)
    steered = toward.clone()
    steered[:, :3] = (against + 4 * (toward - against))[:, :3]
    torch.testing.assert_close(dropped, noise + steered)


@pytest.mark.parametrize("solver", ["euler", "midpoint", "heun", "rk4"])
def test_a_sample_can_begin_at_a_later_step(ours, solver):
    """What is left of a constant velocity is the time that is left."""
    scheduler = FlowSolverScheduler(solver=solver)
    scheduler.set_timesteps(5)
    scheduler.set_begin_index(2 * scheduler.order)
    x = start = torch.zeros(1, 4, 2, 2)
    for timestep in scheduler.timesteps[2 * scheduler.order :]:
        x = scheduler.step(-torch.ones_like(x), timestep, x, return_dict=False)[0]
    torch.testing.assert_close(x, start + 0.6)


def test_averages_are_attended_to_by_the_kernel_that_was_chosen(ours, draw):
    kept = draw(ours, context_drop="all")
    seen = []
    for block in ours.transformer.layers:
        kernel = block.attn1.processor

        def watch(query, key, value, *, kernel=kernel, **options):
            seen.append(key.shape[1])
            return kernel(query, key, value, **options)

        block.attn1.processor = watch
    assert torch.equal(draw(ours, context_drop="all"), kept)
    assert set(seen) == {4}  # of 16 tokens
