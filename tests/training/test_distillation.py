import diffusers
import numpy as np
import pytest
import torch

import lumina
from lumina import LuminaError
from lumina.flow.scheduler import FlowSolverScheduler
from lumina.training import distillation
from lumina.training.distillation import FewStepsObjective, draw_stops
from lumina.training.recipes import FewStepsRecipe
from lumina.training.sharding import Share
from lumina.training.trainer import train
from lumina.worlds.captions import draw_brief
from lumina.worlds.references import write_references


@pytest.fixture
def recipe(own_folder, patterns, tmp_path, monkeypatch):
    """Makes a recipe of a tiny teacher, whose ways come in files of four."""
    write_references(own_folder, list(patterns), drawing_of=patterns.get)
    monkeypatch.setattr(distillation, "AT_ONCE", 4)

    def make(**settings):
        defaults = {"teacher": str(own_folder), "out": str(tmp_path / "run"), "device": "cpu"}
        defaults |= {"teacher_steps": 2, "ways": 6, "batch_size": 4, "steps": 2}
        return FewStepsRecipe(**defaults | {"preview_every": 2, "validate_every": 1} | settings)

    return make


def times_of(rng, count):
    steps, taken = draw_stops(rng, count, most=4)
    return taken / steps


def test_times_are_where_samplers_of_few_equal_steps_stop():
    times = times_of(np.random.default_rng(0), 4000)
    allowed = {number / steps for steps in range(1, 5) for number in range(steps)}
    found = {min(allowed, key=lambda one: abs(one - time)) for time in times.tolist()}
    assert found == allowed
    assert all(min(abs(one - time) for one in allowed) < 1e-6 for time in times.tolist())
    share = (1 + 1 / 2 + 1 / 3 + 1 / 4) / 4
    assert (times == 0).float().mean().item() == pytest.approx(share, abs=0.03)


def test_a_way_ends_where_the_guided_teacher_leads(recipe):
    made = FewStepsObjective(recipe(solver="euler", guidance=3.0))
    teacher = lumina.load(made.checkpoint.folder, device="cpu", dtype=made.pipeline.dtype)
    teacher.set_progress_bar_config(disable=True)
    teacher.scheduler = FlowSolverScheduler(solver="euler")
    ends = teacher(
        made.ways.captions[:4],
        latents=made.ways.noise[:4],
        num_inference_steps=2,
        guidance_scale=3.0,
        output_type="latent",
    ).images
    torch.testing.assert_close(made.ways.data[:4], ends.half().float(), rtol=1e-2, atol=1e-2)


def test_ways_are_followed_once_and_those_of_another_guidance_anew(recipe, tmp_path):
    FewStepsObjective(recipe())
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    FewStepsObjective(recipe())
    assert all(path.stat().st_mtime_ns == time for path, time in files.items())
    FewStepsObjective(recipe(guidance=2.0))
    assert len(list((tmp_path / "run").glob("ways-*"))) == 2


def test_processes_share_a_batch(recipe):
    objective = FewStepsObjective(recipe())
    whole = objective.batch(1)
    shares = [objective.batch(1, Share(number, 2)) for number in range(2)]
    assert torch.equal(torch.cat([share.noise for share in shares]), whole.noise)
    losses = [objective.loss(share, 0)[0] for share in shares]
    torch.testing.assert_close(sum(losses) / 2, objective.loss(whole, 0)[0], rtol=1e-3, atol=1e-4)


def test_the_student_goes_straight_on_from_where_its_own_steps_lead(recipe):
    objective = FewStepsObjective(recipe(evaluations=4, batch_size=8))
    for weight in objective.module.parameters():
        weight.data += 0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    batch = objective.batch(3)
    assert len(set((batch.taken / batch.steps).tolist())) > 2
    student = lumina.LuminaPipeline.from_pipe(
        objective.pipeline, transformer=objective.module, scheduler=objective.scheduler
    )
    losses = []
    for row, (steps, taken) in enumerate(zip(batch.steps, batch.taken, strict=True)):
        features, mask = batch.features[row, None], batch.mask[row, None]
        x = batch.noise[row, None]
        student.scheduler.set_timesteps(int(steps))
        with torch.no_grad():
            for number in range(int(taken) + 1):
                time = torch.tensor([number / float(steps)])
                velocity = objective.module(x, time, features, mask, return_dict=False)[0][:, :4]
                x, here = x + velocity / steps, x
        target = (batch.data[row] - here[0]) / (1 - time)
        losses.append((velocity[0] - target).square().mean())
    found, _ = objective.loss(batch, 0)
    torch.testing.assert_close(found, torch.stack(losses).mean(), rtol=1e-4, atol=1e-4)


def test_all_weights_learn_in_mixed_precision(recipe):
    objective = FewStepsObjective(recipe())
    batch = objective.batch(0)
    gradients = []
    for enabled in (False, True):
        objective.module.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            objective.loss(batch, 0)[0].backward()
        weights = objective.module.named_parameters()
        gradients.append({name: w.grad for name, w in weights if w.grad is not None})
    exact, mixed = gradients
    assert exact.keys() == mixed.keys()
    whole = [torch.cat([grad.flatten() for grad in some.values()]) for some in gradients]
    assert torch.cosine_similarity(*whole, dim=0) > 0.99


def test_no_caption_asks_for_what_is_held_out(patterns):
    rng = np.random.default_rng(0)
    briefs = [draw_brief(rng, list(patterns), pairs=0.5) for _ in range(200)]
    assert not any(brief.is_held_out for brief in briefs)


def test_a_student_is_written_as_a_model_like_its_teacher(recipe):
    folder = train(recipe())
    student = lumina.load(folder, device="cpu", dtype="float32")
    teacher = lumina.load(recipe().teacher, device="cpu", dtype="float32")
    assert student.transformer.config.keys() == teacher.transformer.config.keys()
    assert (folder.parent / "step-000002.png").exists()
    weights = [dict(p.transformer.named_parameters()) for p in (student, teacher)]
    assert any(not torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_student_stops_where_it_was_trained_and_ends_at_data(recipe, tmp_path):
    objective = FewStepsObjective(recipe(evaluations=4))
    objective.export(tmp_path / "last")
    kinds = (lumina.LuminaPipeline, diffusers.LuminaPipeline)
    ours, theirs = (kind.from_pretrained(tmp_path / "last") for kind in kinds)
    rng = np.random.default_rng(0)
    trained = set(times_of(rng, 1000).tolist())
    asked = set()
    for steps in range(1, 5):
        ours.scheduler.set_timesteps(steps)
        asked |= {1 - t / 1000 for t in ours.scheduler.timesteps.tolist()}
        noise, data = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
        x = noise
        for t in ours.scheduler.timesteps:  # a straight line leads from noise to data
            x = ours.scheduler.step(noise - data, t, x).prev_sample
        torch.testing.assert_close(x, data, atol=1e-6, rtol=1e-6)
    assert sorted(asked) == pytest.approx(sorted(trained), abs=1e-6)
    ends = []
    for pipeline in (ours, theirs):
        pipeline.set_progress_bar_config(disable=True)
        source = torch.Generator().manual_seed(1)
        settings = {"num_inference_steps": 4, "guidance_scale": 1.0, "output_type": "latent"}
        ends.append(pipeline("a cat", generator=source, **settings).images)
    assert (ends[0] - ends[1]).abs().max() <= 1e-3 * ends[1].abs().max()


def test_a_teacher_that_is_no_whole_model_is_refused(recipe):
    settings = recipe()
    with pytest.raises(LuminaError, match="no whole text-to-image model"):
        FewStepsObjective(recipe(teacher=f"{settings.teacher}/transformer"))
