import pytest
import torch

import lumina
from lumina.backbones.flag_dit import FlagDiT
from lumina.backbones.next_dit import NextDiT
from lumina.flow.guidance import Guidance, guide
from lumina.flow.scheduler import FlowSolverScheduler
from lumina.flow.solvers import SOLVERS, integrate
from lumina.flow.times import uniform_times
from lumina.pipelines.class_to_image import LuminaClassPipeline

TINY = {
    "sample_size": 8,
    "hidden_size": 24,
    "num_layers": 2,
    "num_attention_heads": 3,
    "multiple_of": 16,
    "num_classes": 10,
}


@pytest.fixture(params=["next", "flag", "moe"])
def pipeline(request, tiny_folder):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformer = {
            "next": lambda: NextDiT(**TINY),
            "flag": lambda: FlagDiT(**TINY, has_line_token=False),
            "moe": lambda: NextDiT(**TINY, moe_routing="both", num_experts=3),
        }[request.param]()
        for weight in transformer.parameters():
            torch.nn.init.normal_(weight, std=0.2)
    vae = lumina.load(tiny_folder, dtype="float32", device="cpu").vae
    pipeline = LuminaClassPipeline(transformer, FlowSolverScheduler(solver="heun"), vae)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def draw(pipeline, labels, seed=3, **settings):
    settings = {"num_inference_steps": 2, "output_type": "latent"} | settings
    return pipeline(labels, generator=torch.Generator().manual_seed(seed), **settings).images


@torch.no_grad()
def test_it_follows_the_guided_velocity_of_its_class(pipeline):
    def velocity(x, t):
        labels = torch.tensor([7, 10])
        return pipeline.transformer(x, t.expand(2), class_labels=labels).sample[:, :4]

    noise = torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(3))
    guided = guide(velocity, Guidance(scale=3.0, channels=3))
    expected = integrate(guided, noise, uniform_times(2), solver=SOLVERS["heun"])[-1]
    found = draw(pipeline, 7, guidance_scale=3.0)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_each_picture_is_the_same_as_when_drawn_alone(pipeline):
    noise = torch.randn((4, 4, 8, 8), generator=torch.Generator().manual_seed(1))
    together = draw(pipeline, [2, 5], num_images_per_class=2, latents=noise)
    for index, label in enumerate([2, 2, 5, 5]):
        alone = draw(pipeline, label, latents=noise[index : index + 1])
        torch.testing.assert_close(together[index : index + 1], alone, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(together[1], draw(pipeline, 3, latents=noise[1:2])[0])


def test_pictures_have_the_size_that_was_asked_for(pipeline):
    assert draw(pipeline, 1, output_type="pil")[0].size == (64, 64)
    assert draw(pipeline, 1, output_type="pil", width=96, height=32)[0].size == (96, 32)


@pytest.mark.parametrize("labels", [10, -1, [3, 11], []])
def test_classes_that_do_not_exist_are_refused(pipeline, labels):
    with pytest.raises(ValueError, match="0 to 9"):
        draw(pipeline, labels)


def test_guidance_that_is_not_finite_is_refused(pipeline):
    with pytest.raises(lumina.LuminaError, match="guidance_scale is nan, which is not finite"):
        draw(pipeline, 7, guidance_scale=float("nan"))


def test_a_callback_may_change_the_latents_and_stop(pipeline):
    calls = []

    def stop(pipeline, index, timestep, tensors):
        calls.append(index)
        pipeline._interrupt = True
        return {"latents": torch.zeros_like(tensors["latents"])}

    assert (draw(pipeline, 1, callback_on_step_end=stop) == 0).all()
    assert calls == [0]


def test_a_callback_may_end_guidance(pipeline):
    def end(pipeline, index, timestep, tensors):
        pipeline._guidance_scale = 1.0

    guided = draw(pipeline, 1, guidance_scale=3.0)
    ended = draw(pipeline, 1, guidance_scale=3.0, callback_on_step_end=end)
    assert pipeline.evaluations == (1, 3)  # Heun looks twice in each of the two steps
    assert not torch.allclose(ended, guided)


def test_what_is_saved_draws_the_same_when_loaded(pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path)
    loaded = LuminaClassPipeline.from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    torch.testing.assert_close(draw(loaded, 4), draw(pipeline, 4))


def test_a_transformer_of_text_is_refused(tiny_folder):
    parts = lumina.load(tiny_folder, dtype="float32", device="cpu")
    with pytest.raises(ValueError, match="LuminaPipeline"):
        LuminaClassPipeline(parts.transformer, parts.scheduler, parts.vae)
