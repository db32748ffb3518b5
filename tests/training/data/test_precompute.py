import dataclasses
import sys
from collections import Counter

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file

from lumina import LuminaError
from lumina.encoders.text import encode_texts
from lumina.modalities.image import to_pixels
from lumina.training.data.buckets import Crops, cut, place_all
from lumina.training.data.cache import Cache
from lumina.training.data.encoding import LATENTS, TEXTS, Encoding, draw_latents
from lumina.training.data.precompute import (
    RayRunner,
    every_text,
    precompute_latents,
    precompute_texts,
)
from lumina.training.data.sources import FolderSource, find_examples

CROPS = Crops(sizes=("64x64", "96x48"))


@pytest.fixture
def pictures(tmp_path, make_picture):
    folder = tmp_path / "pictures"
    for number in range(5):
        make_picture(folder / f"{number}.png", (90, 70) if number % 2 else (140, 60), seed=number)
        (folder / f"{number}.txt").write_text(f"picture {number}")
    return folder


@pytest.fixture
def encoding(tmp_path, tiny_folder):
    return Encoding(
        cache=str(tmp_path / "cache"),
        autoencoder=str(tiny_folder / "vae"),
        text_encoder=str(tiny_folder / "text_encoder"),
        tokenizer=str(tiny_folder / "tokenizer"),
        batch_size=2,
        device="cpu",
    )


def place(pictures, crops=CROPS):
    (found,) = find_examples([FolderSource(path=str(pictures))])
    return place_all(found, crops)


def compute(pictures, encoding, crops=CROPS, **options):
    return precompute_latents(*place(pictures, crops), encoding, **options)


def test_the_cache_has_the_latents_of_every_crop(pictures, encoding):
    computed = compute(pictures, encoding)
    assert (computed.made, computed.damaged, len(set(computed.keys))) == (5, 0, 5)
    assert Counter(one.crop.size for one in computed.placed) == {(96, 48): 3, (64, 64): 2}
    vae = AutoencoderKL.from_pretrained(encoding.autoencoder).eval()
    cache = Cache(pictures.parent / "cache" / LATENTS)
    for placed, key in zip(computed.placed, computed.keys, strict=True):
        shown = np.asarray(cut(placed.example.medium.open(), placed.crop))
        with torch.no_grad():
            expected = vae.encode(to_pixels([shown])).latent_dist
        entry = cache.read(key)
        # Half precision keeps 11 bits.
        torch.testing.assert_close(entry["mean"].float(), expected.mean[0], rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(entry["std"].float(), expected.std[0], rtol=1e-3, atol=1e-3)


def test_latents_are_drawn_from_their_spread_or_are_the_mean():
    entry = {
        "mean": torch.full((4, 50, 50), 2.0).half(),
        "std": torch.full((4, 50, 50), 0.5).half(),
    }
    assert torch.equal(draw_latents(entry, None), entry["mean"].float())
    drawn = draw_latents(entry, torch.Generator().manual_seed(0))
    assert drawn.dtype == torch.float32
    assert drawn.mean().item() == pytest.approx(2, abs=0.02)
    assert drawn.std().item() == pytest.approx(0.5, abs=0.02)


def test_nothing_is_computed_twice_and_a_changed_file_alone_is_computed_again(
    pictures, encoding, make_picture
):
    before = compute(pictures, encoding)
    assert compute(pictures, encoding).made == 0
    make_picture(pictures / "3.png", (90, 70), seed=99)
    after = compute(pictures, encoding)
    assert after.made == 1
    changed = [a != b for a, b in zip(before.keys, after.keys, strict=True)]
    assert changed == [False, False, False, True, False]


def test_another_crop_or_autoencoder_or_dtype_is_another_entry(
    pictures, encoding, tiny_folder, tmp_path
):
    first = compute(pictures, encoding)
    other = compute(pictures, encoding, dataclasses.replace(CROPS, position="random"))
    assert other.made == 5
    assert compute(pictures, dataclasses.replace(encoding, dtype="float32")).made == 5
    vae = tmp_path / "vae"
    vae.mkdir()
    (vae / "config.json").write_bytes((tiny_folder / "vae" / "config.json").read_bytes())
    name = "diffusion_pytorch_model.safetensors"
    weights = load_file(tiny_folder / "vae" / name)
    weights["encoder.conv_in.weight"][0, 0, 0, 0] += 1
    save_file(weights, vae / name, {"format": "pt"})
    again = compute(pictures, dataclasses.replace(encoding, autoencoder=str(vae)))
    assert again.made == 5
    assert not {*first.keys} & {*again.keys}


def test_pictures_that_break_while_they_are_read_are_named_and_left_out(pictures, encoding):
    content = (pictures / "1.png").read_bytes()
    (pictures / "1.png").write_bytes(content[: len(content) // 2])
    computed = compute(pictures, encoding)
    assert [one.example.key for one in computed.placed] == [f"{n}.png" for n in (0, 2, 3, 4)]
    assert [name for name, _ in computed.report.broken] == ["1.png"]
    assert (computed.report.used, computed.made) == (4, 4)


def test_a_damaged_entry_is_counted_and_computed_again(pictures, encoding):
    before = compute(pictures, encoding)
    shard = next((pictures.parent / "cache" / LATENTS).glob("*.safetensors"))
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    after = compute(pictures, encoding)
    assert (after.made, after.damaged) == (1, 1)
    assert after.keys == before.keys
    assert compute(pictures, encoding).damaged == 0


def test_texts_are_kept_without_padding_by_text_and_encoder(pictures, encoding, tiny_pipeline_text):
    texts = every_text(place(pictures)[0])
    assert texts == ["", *(f"picture {number}" for number in range(5))]
    keys = precompute_texts([*texts, "a", "a much longer text"], encoding)
    tokenizer, model = tiny_pipeline_text
    cache = Cache(pictures.parent / "cache" / TEXTS)
    for text, key in keys.items():
        with torch.no_grad():
            features, mask = encode_texts([text], tokenizer, model, max_tokens=256)
        found = cache.read(key)["features"].float()
        torch.testing.assert_close(found, features[0][mask[0].bool()], rtol=2e-3, atol=2e-3)
    assert precompute_texts(texts, encoding) == {text: keys[text] for text in texts}
    shorter = precompute_texts(texts, dataclasses.replace(encoding, max_tokens=16))
    assert not {*shorter.values()} & {*keys.values()}


@pytest.fixture
def tiny_pipeline_text(tiny_folder):
    from transformers import AutoModel, AutoTokenizer

    model = AutoModel.from_pretrained(tiny_folder / "text_encoder", dtype=torch.float32)
    return AutoTokenizer.from_pretrained(tiny_folder / "tokenizer"), model.eval()


def test_a_missing_model_is_said_before_anything_is_read(pictures, encoding):
    with pytest.raises(LuminaError, match="there is no folder nowhere"):
        compute(pictures, dataclasses.replace(encoding, autoencoder="nowhere"))


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(LuminaError, match=r"pip install 'lumina-t2x\[ray\]'"):
        RayRunner(workers=2)


@pytest.fixture
def cluster(monkeypatch):
    """Ray on this machine, with room for two workers."""
    ray = pytest.importorskip("ray")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_worker_niceness", "0")  # by default all else on a machine comes first
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield ray
    ray.shutdown()


@pytest.mark.slow
def test_two_workers_of_a_cluster_fill_the_same_cache(pictures, encoding, cluster, tmp_path):
    content = (pictures / "1.png").read_bytes()
    (pictures / "1.png").write_bytes(content[: len(content) // 2])
    elsewhere = dataclasses.replace(encoding, cache=str(tmp_path / "cluster"))
    runner = RayRunner(workers=2)
    alone, together = compute(pictures, encoding), compute(pictures, elsewhere, run=runner)
    assert together == alone
    ours, theirs = (
        {file.name: load_file(file) for file in (tmp_path / cache / LATENTS).iterdir()}
        for cache in ("cache", "cluster")
    )
    assert ours.keys() == theirs.keys()
    for name, expected in ours.items():
        assert theirs[name].keys() == expected.keys()
        for key, tensor in expected.items():
            # The last bit of half precision: workers have another number of threads.
            torch.testing.assert_close(theirs[name][key], tensor, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_workers_start_relative_paths_from_the_folder_of_the_command(
    pictures, encoding, cluster, monkeypatch
):
    monkeypatch.chdir(pictures.parent)
    elsewhere = dataclasses.replace(encoding, cache="cluster")
    computed = compute("pictures", elsewhere, run=RayRunner(workers=1))
    assert (computed.report.used, computed.made) == (5, 5)
    assert compute("pictures", elsewhere).made == 0
