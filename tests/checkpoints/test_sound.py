import pytest
import torch
import yaml

from lumina.checkpoints.sound import (
    find_vocoder,
    infer_autoencoder,
    load_original_audio,
    load_original_vocoder,
)
from lumina.errors import LuminaError
from lumina.modalities.sound.autoencoder import MelAutoencoder
from lumina.modalities.sound.vocoder import BigVGAN

SMALL = {
    "num_mels": 8,
    "upsample_initial_channel": 8,
    "upsample_rates": [4],
    "upsample_kernel_sizes": [8],
    "resblock_kernel_sizes": [3],
    "resblock_dilation_sizes": [[1]],
    "snake_logscale": True,
}


def write_vocoder(folder, model, settings):
    folder.mkdir()
    weights = {}
    for name, weight in model.state_dict().items():
        if weight.ndim == 3:
            weights[f"{name}_v"] = 7 * weight
            weights[f"{name}_g"] = weight.flatten(1).norm(dim=1).view(-1, 1, 1)
        else:
            weights[name] = weight
    torch.save({"generator": weights}, folder / "best_netG.pt")
    (folder / "args.yml").write_text(yaml.safe_dump(settings))


@pytest.mark.parametrize(
    "config",
    [
        {"width": 8, "multipliers": [1, 2, 4], "blocks": 2, "halved_levels": [0]},
        {"width": 16, "multipliers": [1], "blocks": 1, "halved_levels": [], "kernel_size": 3},
        {"width": 8, "multipliers": [1, 3], "blocks": 1, "has_attention": False},
    ],
)
def test_the_configuration_of_an_autoencoder_is_told_by_its_weights(config):
    model = MelAutoencoder(**config, in_channels=12, latent_channels=5, groups=4)
    found = infer_autoencoder({n: tuple(w.shape) for n, w in model.state_dict().items()})
    built = {name: model.config[name] for name in found}
    assert {n: list(v) if isinstance(v, tuple) else v for n, v in built.items()} == found


@torch.no_grad()
def test_a_vocoder_is_read_as_it_was_released(tmp_path):
    torch.manual_seed(0)
    model = BigVGAN(**SMALL).eval()
    settings = {"resblock": "1", "activation": "snakebeta", "hop_size": 256} | SMALL
    write_vocoder(tmp_path / "bigvnat", model, settings)
    mel = torch.randn(1, 8, 6)
    again = load_original_vocoder(tmp_path / "bigvnat")
    assert torch.allclose(again(mel), model(mel), atol=1e-5)
    assert find_vocoder(tmp_path / "maa2" / "maa2.ckpt") == tmp_path / "bigvnat"
    assert find_vocoder(tmp_path / "maa2" / "other" / "maa2.ckpt") is None


def test_a_vocoder_of_another_kind_is_refused(tmp_path):
    write_vocoder(tmp_path / "bigvnat", BigVGAN(**SMALL), SMALL | {"resblock": "2"})
    with pytest.raises(LuminaError, match="resblock is '2'"):
        load_original_vocoder(tmp_path / "bigvnat")


def test_a_folder_without_a_checkpoint_is_refused(tmp_path):
    with pytest.raises(LuminaError, match="no model of sound") as error:
        load_original_audio(tmp_path)
    assert "maa2/maa2.ckpt" in str(error.value)


def test_a_checkpoint_of_something_else_is_refused(tmp_path):
    torch.save({"state_dict": {"layer.weight": torch.ones(2)}}, tmp_path / "model.ckpt")
    with pytest.raises(LuminaError, match=r"nothing under model\.diffusion_model"):
        load_original_audio(tmp_path)


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path):
    torch.save({"state_dict": {}, "hook": print}, tmp_path / "model.ckpt")
    with pytest.raises(LuminaError, match="nothing of it was run"):
        load_original_audio(tmp_path)
