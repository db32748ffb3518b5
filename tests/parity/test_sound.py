"""Models of sound compute what the original code computed with the same weights."""

import json

import pytest
import torch
import yaml
from safetensors import safe_open

from lumina.checkpoints.sound import infer_autoencoder, load_original_audio
from lumina.flow.guidance import Guidance, guide
from lumina.flow.path import flow_loss
from lumina.flow.solvers import SOLVERS, integrate
from lumina.flow.times import uniform_times
from lumina.modalities import Scaling
from lumina.modalities.sound.autoencoder import MelAutoencoder
from lumina.modalities.sound.released import PATH, count_times
from lumina.modalities.sound.vocoder import BigVGAN, lowpass_filter, without_weight_norm
from lumina.pipelines.original_audio import OriginalAudioPipeline


@pytest.fixture(scope="module")
def autoencoder(read_case):
    weights = read_case("audio_vae_encoder").weights | read_case("audio_vae_decoder").weights
    model = MelAutoencoder(**infer_autoencoder({n: tuple(w.shape) for n, w in weights.items()}))
    model.load_state_dict(weights)
    return model.eval()


@pytest.fixture(scope="module")
def bigvgan(read_case):
    case = read_case("audio_bigvgan")
    built = ("resblock", "activation")
    model = BigVGAN(**{name: value for name, value in case.config.items() if name not in built})
    model.load_state_dict(without_weight_norm(case.weights))
    return case, model.eval()


@pytest.fixture(scope="module")
def released(read_case, tmp_path_factory):
    """The whole checkpoint in the layout of the release, with a vocoder beside it."""
    folder = tmp_path_factory.mktemp("release")
    case, vocoder = read_case("audio_cfm"), read_case("audio_bigvgan")
    for name in ("maa2", "bigvnat"):
        (folder / name).mkdir()
    text = {"cond_stage_model.base.weight": torch.ones(2)}
    torch.save({"state_dict": case.weights | text, "epoch": 3}, folder / "maa2" / "maa2.ckpt")
    torch.save({"generator": vocoder.weights}, folder / "bigvnat" / "best_netG.pt")
    settings = {name: value for name, value in vocoder.config.items() if name != "num_mels"}
    settings |= {"audio_num_mel_bins": vocoder.config["num_mels"], "fft_size": 1024}
    (folder / "bigvnat" / "args.yml").write_text(yaml.safe_dump(settings))
    return case, folder, load_original_audio(folder)


def calls(case):
    return {call["name"]: call for call in case.calls}


@torch.no_grad()
def test_the_encoder_gives_the_recorded_distribution(read_case, autoencoder, assert_recorded):
    tensors = read_case("audio_vae_encoder").tensors
    found = autoencoder.encode(tensors["inputs.mel"]).latent_dist
    assert_recorded(found.parameters, tensors["outputs.encode.moments"])
    assert_recorded(found.mean, tensors["outputs.encode.mean"])
    assert_recorded(found.logvar, tensors["outputs.encode.logvar"])
    assert_recorded(found.std, tensors["outputs.encode.std"])
    assert_recorded(found.mode(), tensors["outputs.encode.mode"])
    sample = found.mean + found.std * tensors["inputs.posterior_noise"]
    assert_recorded(sample, tensors["outputs.encode.sample"])


@torch.no_grad()
def test_the_decoder_gives_the_recorded_spectrogram(read_case, autoencoder, assert_recorded):
    tensors = read_case("audio_vae_decoder").tensors
    assert_recorded(autoencoder.decode(tensors["inputs.z"]).sample, tensors["outputs.decode"])


@torch.no_grad()
@pytest.mark.parametrize("form", ["forward", "forward_weight_norm_removed"])
def test_bigvgan_gives_the_recorded_waveform(bigvgan, assert_recorded, form):
    case, model = bigvgan
    found = model(case.tensors["inputs.mel"])
    assert_recorded(found.unsqueeze(1), case.tensors[f"outputs.{form}"])


def test_the_filters_of_bigvgan_are_those_that_were_stored(bigvgan):
    case, _ = bigvgan
    stored = [weight for name, weight in case.weights.items() if name.endswith(".filter")]
    for weight in stored:
        assert torch.allclose(weight.flatten(), lowpass_filter(weight.numel()), atol=1e-6)


@torch.no_grad()
def test_latents_are_scaled_as_recorded(released, assert_recorded):
    case, _, models = released
    mel, noise, latents = (case.tensors[f"inputs.{n}"] for n in ("mel", "posterior_noise", "z"))
    found = models.autoencoder.encode(mel).latent_dist
    scaling = Scaling(factor=models.autoencoder.config["scaling_factor"])
    encoded = scaling.scale(found.mean + found.std * noise)
    assert_recorded(encoded, case.tensors["outputs.encode_first_stage"])
    decoded = models.autoencoder.decode(scaling.unscale(latents)).sample
    assert_recorded(decoded, case.tensors["outputs.decode_first_stage"])


def velocity_of(models, condition):
    """The velocity as the original sampler asks for it, with times counted."""

    def velocity(x, time):
        times = count_times(time).expand(len(x))
        return models.transformer(x, times, condition, return_dict=False)[0]

    return velocity


@torch.no_grad()
def test_the_network_answers_as_recorded(released, assert_recorded):
    case, _, models = released
    x, times, condition = (case.tensors[f"inputs.{name}"] for name in ("x1", "t", "cond"))
    found = models.transformer(x, times, condition).sample
    assert_recorded(found, case.tensors["outputs.apply_model"])


@torch.no_grad()
def test_the_loss_is_the_recorded_one(released, assert_recorded):
    case, _, models = released
    condition, times = case.tensors["inputs.cond"], case.tensors["inputs.t"]
    loss = flow_loss(
        lambda x, _: models.transformer(x, times, condition).sample,
        case.tensors["inputs.x0"],
        case.tensors["inputs.x1"],
        times / 1000,
        path=PATH,
    )
    assert_recorded(loss.mean()[None], case.tensors["outputs.p_losses"])


@torch.no_grad()
def test_euler_follows_the_recorded_trajectory(released, assert_recorded):
    case, _, models = released
    call = calls(case)["sample"]
    velocity = velocity_of(models, case.tensors["inputs.cond"])
    times = uniform_times(call["timesteps"] - 1)
    found = integrate(velocity, case.tensors["inputs.z"], times, solver=SOLVERS["euler"])
    assert_recorded(torch.stack(list(found)), case.tensors["outputs.sample.trajectory"])
    assert_recorded(found[-1], case.tensors["outputs.sample"])


@torch.no_grad()
def test_guidance_follows_the_recorded_trajectory(released, assert_recorded):
    case, _, models = released
    call = calls(case)["sample_cfg"]
    both = torch.cat([case.tensors["inputs.cond"], case.tensors["inputs.uncond"]])
    velocity = guide(velocity_of(models, both), Guidance(scale=call["scale"]))
    times = uniform_times(call["timesteps"] - 1)
    found = integrate(velocity, case.tensors["inputs.z"], times, solver=SOLVERS["euler"])
    assert_recorded(torch.stack(list(found)), case.tensors["outputs.sample_cfg.trajectory"])


def test_times_are_counted_as_the_original_sampler_did(golden):
    with safe_open(golden / "audio_step_index.safetensors", "pt") as file:
        for points in (25, 40, 100):
            recorded = file.get_tensor(f"outputs.t_index.timesteps_{points}")
            assert count_times(uniform_times(points - 1)[:-1]).tolist() == recorded.tolist()
    with safe_open(golden / "audio_cfm.safetensors", "pt") as file:
        points = calls_of(file)["sample"]["timesteps"]
        recorded = file.get_tensor("outputs.sample.t_index")[:, 0]
        assert count_times(uniform_times(points - 1)[:-1]).tolist() == recorded.tolist()


def calls_of(file):
    return {call["name"]: call for call in json.loads(file.metadata()["calls"])}


@torch.no_grad()
def test_the_vocoder_is_found_beside_the_checkpoint(released, bigvgan, assert_recorded):
    _, folder, models = released
    case, _ = bigvgan
    found = models.vocoder(case.tensors["inputs.mel"])
    assert_recorded(found.unsqueeze(1), case.tensors["outputs.forward"])
    by_file = load_original_audio(folder / "maa2" / "maa2.ckpt")
    assert by_file.vocoder is not None


@torch.no_grad()
def test_the_pipeline_follows_the_recorded_trajectory(released, assert_recorded):
    case, _, models = released
    call, prompt = calls(case)["sample_cfg"], case.tensors["inputs.cond"]

    class Recorded(OriginalAudioPipeline):
        def encode_prompt(self, *_, **__):
            away = case.tensors["inputs.uncond"]
            return prompt, torch.ones(prompt.shape[:2]), away, torch.ones(away.shape[:2])

    pipeline = Recorded(models.transformer, None, models.autoencoder, None, None, None)
    pipeline.set_progress_bar_config(disable=True)
    noise = case.tensors["inputs.z"]
    found = pipeline(
        ["as recorded"] * len(noise),
        seconds=noise.shape[-1] * 2 * 0.016,
        num_inference_steps=call["timesteps"] - 1,
        guidance_scale=call["scale"],
        latents=noise,
        output_type="latent",
    ).media
    assert_recorded(found, case.tensors["outputs.sample_cfg.trajectory"][-1])
