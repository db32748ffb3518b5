import diffusers
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image
from safetensors.torch import load_file, save_file

import lumina
from lumina.backbones.next_dit import NextDiT
from lumina.training.autoencoder import to_pixels
from lumina.training.recipes import FlowRecipe
from lumina.training.text_to_image import PREVIEW_PROMPTS, USUAL_SIDE, FlowObjective
from lumina.types import Size
from lumina.worlds.captions import stage
from lumina.worlds.drawings import paint
from lumina.worlds.references import load_references

USUAL, SMALL, WIDE = Size(128, 128), Size(64, 64), Size(192, 96)


def randomise(module):
    with torch.no_grad():
        for weight in module.parameters():
            noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
            weight.copy_(0.5 * weight + 0.2 * noise)
    return module


@pytest.fixture(scope="module")
def parts(tiny_folder):
    """Where the autoencoder and the text encoder of tiny runs are."""
    return {"autoencoder": str(tiny_folder / "vae"), "text_encoder": str(tiny_folder)}


def make(out, parts, **settings):
    out.mkdir(exist_ok=True)
    defaults = {
        "width": 24,
        "depth": 2,
        "heads": 3,
        "kv_heads": 1,
        "multiple_of": 16,
        "batch_size": 2,
        "steps": 8,
        "sizes": ("128x128", "64x64"),
        "scenes": 12,
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return FlowObjective(FlowRecipe(out=str(out), **parts | defaults | settings))


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def objective(font, out, parts):
    return make(out, parts)


def test_a_batch_is_the_same_for_the_same_step(objective):
    for first, again in zip(objective.batch(2), objective.batch(2), strict=True):
        assert torch.equal(first, again)
    assert not torch.equal(objective.batch(2).noise, objective.batch(4).noise)


def test_sizes_come_in_turn_and_small_pictures_in_larger_batches(objective):
    usual, small = objective.batch(0).data, objective.batch(1).data
    assert usual.shape == (2, 4, 16, 16)
    assert small.shape == (8, 4, 8, 8)
    assert usual.numel() == small.numel()
    assert objective.batch(2).data.shape == usual.shape


def test_a_batch_is_made_of_scenes_noise_and_times(objective):
    batch = objective.batch(1)
    known = {latent.numpy().tobytes() for latent in objective.latents[SMALL].float()}
    assert all(latent.numpy().tobytes() in known for latent in batch.data)
    noise = torch.cat([objective.batch(step).noise.flatten() for step in range(20)])
    assert noise.mean().item() == pytest.approx(0, abs=0.02)
    assert noise.std().item() == pytest.approx(1, abs=0.02)
    times = torch.cat([objective.batch(step).times for step in range(1, 200, 2)])
    assert times.min() >= 0
    assert times.max() <= 1
    assert times.mean().item() == pytest.approx(0.5, abs=0.03)


def test_a_time_shift_moves_times_toward_noise(objective, out, parts):
    shifted = make(out, parts, time_shift=3.0)
    plain, moved = objective.batch(1), shifted.batch(1)
    assert torch.equal(plain.noise, moved.noise)
    torch.testing.assert_close(moved.times, plain.times / (3 - 2 * plain.times))


def test_the_captions_are_of_the_scenes(objective, out, parts):
    english = make(out, parts, foreign=0.0, caption_dropout=0.0)
    captions = english.tokenizer.batch_decode(english.batch(1).ids, skip_special_tokens=True)
    rng = np.random.default_rng(0)
    known = {
        english._caption(SMALL, index, rng)
        for index in range(english.scenes[SMALL])
        for _ in range(9)
    }
    assert len(captions) == 8
    assert set(captions) <= known


def test_dropped_captions_are_empty(objective, out, parts):
    silent = make(out, parts, caption_dropout=1.0)
    batch = silent.batch(0)
    bos = silent.tokenizer.bos_token_id
    assert all(
        ids[mask == 1].tolist() == [bos] for ids, mask in zip(batch.ids, batch.mask, strict=True)
    )


@torch.no_grad()
def test_the_latents_are_of_the_scenes_that_the_captions_tell(objective):
    briefs = objective.briefs[USUAL]
    pictures = [np.asarray(paint(stage(brief), USUAL)) for brief in briefs]
    plain = objective.vae.encode(to_pixels(pictures)).latent_dist.mean.flatten(1)
    cached = objective.latents[USUAL].float().flatten(1)
    # Jitter moves things a little, and never as far as to look like another scene.
    nearest = torch.cdist(cached, plain).argmin(1)
    assert nearest.tolist() == list(range(len(briefs)))


def test_early_steps_take_the_early_sizes(font, tmp_path, parts):
    early = make(
        tmp_path, parts, sizes=("192x96",), early_sizes=("64x64",), early_share=0.5, early_scenes=3
    )
    shapes = [tuple(early.batch(step).data.shape[-2:]) for step in range(8)]
    assert shapes == [(8, 8)] * 4 + [(12, 24)] * 4
    assert len(early.latents[SMALL]) == 3
    assert len(early.latents[WIDE]) == 12


def test_scenes_are_shared_out_as_often_as_sizes_come(font, tmp_path, parts):
    shared = make(tmp_path, parts, sizes=("64x64", "192x96", "64x64"), scenes=6)
    assert {size: len(latents) for size, latents in shared.latents.items()} == {SMALL: 4, WIDE: 2}


def cached(folder):
    return {path.name: path for path in folder.glob("latents-*.safetensors")}


def test_latents_are_kept_and_used_again(font, tmp_path, parts):
    first = make(tmp_path, parts, sizes=("64x64",), scenes=3)
    (path,) = cached(tmp_path).values()
    assert torch.equal(load_file(path)["latents"], first.latents[SMALL])
    marked = torch.full_like(first.latents[SMALL], 7)
    save_file({"latents": marked}, path)
    again = make(tmp_path, parts, sizes=("64x64",), scenes=3)
    assert torch.equal(again.latents[SMALL], marked)


def test_kept_latents_are_not_used_with_another_autoencoder_seed_or_count(font, tmp_path, parts):
    settings = {"sizes": ("64x64",), "scenes": 3}
    first = make(tmp_path / "run", parts, **settings)
    vae = AutoencoderKL.from_pretrained(parts["autoencoder"])
    with torch.no_grad():
        vae.quant_conv.bias += 1
    vae.save_pretrained(tmp_path / "vae")
    others = [
        make(tmp_path / "run", parts | {"autoencoder": str(tmp_path / "vae")}, **settings),
        make(tmp_path / "run", parts, **settings | {"seed": 1}),
        make(tmp_path / "run", parts, **settings | {"scenes": 4}),
    ]
    assert len(cached(tmp_path / "run")) == 4
    torch.testing.assert_close(
        others[0].latents[SMALL], first.latents[SMALL] + 1, rtol=1e-2, atol=1e-2
    )
    assert not torch.equal(others[1].latents[SMALL], first.latents[SMALL])
    assert len(others[2].latents[SMALL]) == 4


@torch.no_grad()
def test_the_loss_at_the_start_is_the_square_of_the_velocity(objective):
    for step in (0, 1):
        batch = objective.batch(step)
        loss, figures = objective.loss(batch, step)
        assert loss.item() == pytest.approx((batch.data - batch.noise).square().mean().item())
        assert figures["samples"] * figures["tokens"] == 2 * (USUAL_SIDE // 2) ** 2


@torch.no_grad()
def test_the_velocity_leads_from_noise_to_data(font, out, parts):
    objective = make(out, parts)
    batch = objective.batch(0)
    batch = batch._replace(data=batch.noise + 2)
    start, _ = objective.loss(batch, 0)
    objective.module.norm_out.linear_2.bias.fill_(2)  # the output is 2 everywhere
    end, _ = objective.loss(batch, 0)
    assert start.item() == pytest.approx(4, rel=1e-5)
    assert end.item() == pytest.approx(0, abs=1e-6)


def test_training_fits_a_batch_and_leaves_the_encoders_alone(font, out, parts):
    objective = make(out, parts)
    batch = objective.batch(0)
    optimizer = torch.optim.Adam(objective.module.parameters(), lr=0.01)
    losses = []
    for _ in range(8):
        loss, _ = objective.loss(batch, 0)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.95 * losses[0]
    for encoder in (objective.vae, objective.text_encoder):
        assert all(weight.grad is None for weight in encoder.parameters())


@pytest.fixture(scope="module")
def exported(font, out, parts, tmp_path_factory):
    """A checkpoint of random weights, and the objective that wrote it."""
    objective = make(out, parts)
    randomise(objective.module)
    weights = {name: weight.clone() for name, weight in objective.module.state_dict().items()}
    folder = tmp_path_factory.mktemp("exported") / "last"
    objective.export(folder)
    return folder, objective, weights


def draw(pipeline):
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(
        "a red apple",
        num_inference_steps=2,
        output_type="latent",
        generator=torch.Generator().manual_seed(0),
    ).images


def test_the_weights_are_exported_in_half_precision(exported):
    folder, _, weights = exported
    written = load_file(folder / "transformer" / "diffusion_pytorch_model.safetensors")
    assert written.keys() == weights.keys()
    for name, weight in written.items():
        assert torch.equal(weight, weights[name].half()), name


def test_lumina_and_diffusers_draw_the_same_from_what_is_exported(exported):
    folder, _, _ = exported
    ours = lumina.load(folder, device="cpu", dtype="float32")
    theirs = diffusers.LuminaPipeline.from_pretrained(folder)  # as people call it
    assert type(ours.transformer) is NextDiT
    assert type(theirs.transformer) is diffusers.LuminaNextDiT2DModel
    one, other = draw(ours), draw(theirs)
    assert one.shape == (1, 4, USUAL_SIDE, USUAL_SIDE)
    assert (one - other).abs().max() <= 1e-4 * other.abs().max()


def test_what_is_exported_has_the_drawings_of_its_things(exported):
    folder, objective, _ = exported
    things, drawings = load_references(folder)
    assert things == objective.things
    assert len(drawings) == len(things)


def test_training_can_go_on_after_an_export(exported):
    _, objective, _ = exported
    assert {weight.dtype for weight in objective.module.parameters()} == {torch.float32}
    loss, _ = objective.loss(objective.batch(0), 0)
    assert loss.isfinite()


def test_a_run_can_start_from_what_another_exported(exported, out, parts):
    folder, _, weights = exported
    begun = make(out, parts, start_from=str(folder))
    for name, weight in begun.module.state_dict().items():
        assert torch.equal(weight, weights[name].half().float()), name


def test_a_preview_is_a_grid_of_pictures_the_same_each_time(objective, tmp_path):
    for step in (1, 2):
        objective.preview(tmp_path, step)
    first, second = (Image.open(tmp_path / f"step-{step:06d}.png") for step in (1, 2))
    assert first.tobytes() == second.tobytes()
    assert first.width * first.height > len(PREVIEW_PROMPTS) * 128 * 128
