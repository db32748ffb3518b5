"""Sampling as the original release does it, with Next-DiT and with Flag-DiT."""

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

import lumina
from lumina import LuminaError, LuminaPipeline, NextDiT
from lumina.backbones.flag_dit import FlagDiT
from lumina.checkpoints.convert import convert
from lumina.flow.guidance import Guidance, guide
from lumina.flow.scheduler import FlowSolverScheduler
from lumina.flow.solvers import SOLVERS, integrate
from lumina.flow.times import shift_times, uniform_times
from lumina.nn.extrapolation import RopeScaling
from lumina.pipelines import checks
from lumina.pipelines.original import LuminaFlagPipeline, OriginalLuminaPipeline

TINY = {
    "sample_size": 8,
    "hidden_size": 24,
    "num_layers": 1,
    "num_attention_heads": 3,
    "cross_attention_dim": 16,
}


@pytest.fixture
def parts(tiny_folder):
    pipeline = lumina.load(tiny_folder, dtype="float32", device="cpu")
    names = ("transformer", "vae", "text_encoder", "tokenizer")
    return {name: getattr(pipeline, name) for name in names}


@pytest.fixture
def original(parts):
    pipeline = OriginalLuminaPipeline(scheduler=None, **parts)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture
def flag(parts):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformer = FlagDiT(
            sample_size=8,
            hidden_size=24,
            num_layers=2,
            num_attention_heads=3,
            multiple_of=16,
            cross_attention_dim=16,
        )
        for weight in transformer.parameters():
            torch.nn.init.normal_(weight, std=0.2)
    pipeline = LuminaFlagPipeline(scheduler=None, **parts | {"transformer": transformer})
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def draw(pipeline, prompt="A cat!", **settings):
    generator = torch.Generator().manual_seed(3)
    settings = {"num_inference_steps": 3, "output_type": "latent"} | settings
    return pipeline(prompt, generator=generator, **settings).images


def features(pipeline, text, layer):
    tokens = pipeline.tokenizer([text], padding="max_length", max_length=8, return_tensors="pt")
    states = pipeline.text_encoder(**tokens, output_hidden_states=True)
    return states.hidden_states[layer], tokens["attention_mask"]


@torch.no_grad()
def by_hand(pipeline, layer, scalings, prompt="A cat!", size=(8, 8), base=16):
    """The same picture from the parts: features, guidance, midpoint steps on shifted times."""
    text, mask = map(
        torch.cat, zip(*(features(pipeline, t, layer) for t in (prompt, "")), strict=True)
    )

    def velocity(x, t):
        settings = scalings(t.item())
        output = pipeline.transformer(
            x,
            t.expand(len(x)),
            text,
            mask,
            cross_attention_kwargs={"base_sequence_length": base},
            return_dict=False,
            **settings,
        )[0]
        return output[:, : x.shape[1]]

    noise = torch.randn((1, 4, *size), generator=torch.Generator().manual_seed(3))
    times = shift_times(uniform_times(3), 4.0)
    guided = guide(velocity, Guidance(scale=4.0, channels=3))
    return integrate(guided, noise, times, solver=SOLVERS["midpoint"])[-1]


def test_it_takes_midpoint_steps_on_shifted_times_from_uncleaned_text_padded_right(original):
    assert original.tokenizer.padding_side == "right"
    expected = by_hand(original, -2, lambda t: {})
    torch.testing.assert_close(draw(original), expected, atol=1e-5, rtol=1e-4)


def test_positions_are_scaled_above_the_trained_size_alone(original):
    assert draw(original, width=48, height=48).isfinite().all()
    small = by_hand(original, -2, lambda t: {}, size=(6, 6))
    torch.testing.assert_close(draw(original, width=48, height=48), small, atol=1e-5, rtol=1e-4)
    wide = by_hand(
        original,
        -2,
        lambda t: {"rope": RopeScaling(linear=1.5)} if t < 0.3 else {"rope": RopeScaling(ntk=1.5)},
        size=(12, 12),
    )
    torch.testing.assert_close(draw(original, width=96, height=96), wide, atol=1e-5, rtol=1e-4)


def test_a_folder_of_another_pipeline_gives_all_parts_but_the_scheduler(tiny_folder, tmp_path):
    loaded = OriginalLuminaPipeline.from_pretrained(tiny_folder)
    assert (loaded.scheduler.config.solver, loaded.scheduler.config.shift) == ("midpoint", 4.0)
    loaded.scheduler = FlowSolverScheduler(solver="heun", shift=2.0)
    loaded.save_pretrained(tmp_path)
    again = OriginalLuminaPipeline.from_pretrained(tmp_path)
    assert (again.scheduler.config.solver, again.scheduler.config.shift) == ("heun", 2.0)


def test_a_file_needs_no_scheduler(parts, tiny_folder, tmp_path):
    file = tmp_path / "network.safetensors"
    convert(tiny_folder, file)
    parts = {name: part for name, part in parts.items() if name != "transformer"}
    for settings in (parts, {"config": tiny_folder}):
        loaded = OriginalLuminaPipeline.from_single_file(file, **settings)
        assert (loaded.scheduler.config.solver, loaded.scheduler.config.shift) == ("midpoint", 4.0)


def test_a_tokenizer_that_others_use_is_left_as_it_is(tiny_folder):
    usual = lumina.load(tiny_folder, dtype="float32", device="cpu")
    assert usual.tokenizer.padding_side == "left"
    own = OriginalLuminaPipeline(**dict(usual.components) | {"scheduler": None})
    assert (usual.tokenizer.padding_side, own.tokenizer.padding_side) == ("left", "right")


def test_long_prompts_are_not_cut_for_llama(flag, caplog):
    draw(flag, "a cat " * 60)
    assert not caplog.records


@pytest.mark.parametrize(
    ("kind", "network", "told"),
    [
        (LuminaPipeline, lambda: FlagDiT(**TINY), "use LuminaFlagPipeline"),
        (OriginalLuminaPipeline, lambda: FlagDiT(**TINY), "use LuminaFlagPipeline"),
        (LuminaPipeline, lambda: NextDiT(**TINY, num_classes=3), "use LuminaClassPipeline"),
    ],
)
def test_a_network_of_another_pipeline_is_refused(parts, kind, network, told):
    parts = parts | {"transformer": network(), "scheduler": FlowMatchEulerDiscreteScheduler()}
    with pytest.raises(LuminaError, match=told):
        kind(**parts)


def test_a_next_dit_is_not_for_the_pipeline_of_flag_dit():
    with pytest.raises(LuminaError, match="use LuminaPipeline"):
        checks.network(NextDiT(**TINY), FlagDiT)


def test_another_scheduler_may_be_given(parts):
    scheduler = FlowMatchEulerDiscreteScheduler()
    assert OriginalLuminaPipeline(scheduler=scheduler, **parts).scheduler is scheduler


def test_flag_dit_reads_the_last_states_and_scales_by_area(flag):
    base = 4**2 + 2 * 4
    usual = by_hand(flag, -1, lambda t: {}, base=base)
    torch.testing.assert_close(draw(flag), usual, atol=1e-5, rtol=1e-4)
    large = by_hand(flag, -1, lambda t: {"rope": RopeScaling(ntk=2.25)}, size=(12, 12), base=base)
    torch.testing.assert_close(draw(flag, width=96, height=96), large, atol=1e-5, rtol=1e-4)


def test_it_draws_pictures(flag, original):
    for pipeline in (flag, original):
        picture = draw(pipeline, output_type="pil", width=96, height=64)[0]
        assert picture.size == (96, 64)


@pytest.mark.parametrize("name", ["flag", "original"])
def test_what_is_saved_draws_the_same_when_loaded(name, request, tmp_path):
    pipeline = request.getfixturevalue(name)
    pipeline.save_pretrained(tmp_path)
    loaded = type(pipeline).from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    assert type(loaded.transformer) is type(pipeline.transformer)
    assert isinstance(loaded.scheduler, FlowSolverScheduler)
    assert loaded.config.text_layer == pipeline.config.text_layer
    torch.testing.assert_close(draw(loaded), draw(pipeline))


def test_a_pipeline_made_of_an_original_one_samples_as_that_does(original, draw):
    made = LuminaPipeline.from_pipe(original, preset="original")
    made.set_progress_bar_config(disable=True)
    size = {"width": 96, "height": 96}
    torch.testing.assert_close(draw(made, **size), draw(original, **size))
