import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny

import lumina.pipelines.tiles as tiles
from lumina.pipelines.tiling import disable_tiling, enable_tiling, whole_memory


@pytest.fixture
def build():
    """An autoencoder in which no two layers are alike, for pictures of 64 pixels."""

    def build(**config):
        defaults = {
            "down_block_types": ("DownEncoderBlock2D",) * 4,
            "up_block_types": ("UpDecoderBlock2D",) * 4,
            "block_out_channels": (4, 4, 8, 8),
            "layers_per_block": 1,
            "norm_num_groups": 2,
            "latent_channels": 4,
            "sample_size": 64,
        }
        with torch.random.fork_rng():
            torch.manual_seed(0)
            vae = AutoencoderKL(**defaults | config).eval()
            for parameter in vae.parameters():
                parameter.data += 0.1 * torch.randn_like(parameter)
        return vae

    return build


@pytest.fixture
def vae(build):
    return build()


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    """Tiles small enough for several in the pictures of these tests."""
    monkeypatch.setattr(tiles, "SMALLEST_SIDE", 24)


@pytest.fixture(autouse=True)
def without_gradients():
    with torch.inference_mode():
        yield


def uneven(*shape):
    """Numbers of which one corner is unlike the rest, so that no tile is like the whole."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    x[..., : shape[-2] // 3, : shape[-1] // 3] *= 3
    x[..., shape[-1] // 2 :] += 1
    return x


def relative_error(output, expected):
    return ((output - expected).abs().max() / expected.abs().max()).item()


LAYERS = {
    "as_shipped": {"mid_block_add_attention": False},
    "with_attention": {"layers_per_block": 2},
    "without_quantisation": {"use_quant_conv": False, "use_post_quant_conv": False},
    "of_two_levels": {
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "block_out_channels": (4, 8),
        "sample_size": 16,
    },
}


@pytest.mark.parametrize("memory_gb", [None, 1e-9, 1e-3])
@pytest.mark.parametrize("config", LAYERS.values(), ids=LAYERS.keys())
def test_tiles_decode_what_the_whole_decodes(build, config, memory_gb):
    vae, latents = build(**config), uneven(1, 4, 23, 14)
    whole = vae.decode(latents).sample
    enable_tiling(vae, memory_gb=memory_gb)
    # Float32, of which the sums in norms are taken in another order.
    assert relative_error(vae.decode(latents).sample, whole) < 1e-5


@pytest.mark.parametrize("memory_gb", [None, 1e-9, 1e-3])
@pytest.mark.parametrize("config", LAYERS.values(), ids=LAYERS.keys())
@pytest.mark.parametrize("size", [(184, 112), (139, 171)], ids=["even", "odd"])
def test_tiles_encode_what_the_whole_encodes(build, config, memory_gb, size):
    vae, pictures = build(**config), uneven(1, 3, *size)
    whole = vae.encode(pictures).latent_dist.parameters
    enable_tiling(vae, memory_gb=memory_gb)
    assert relative_error(vae.encode(pictures).latent_dist.parameters, whole) < 1e-5


def test_each_picture_of_a_batch_has_statistics_of_its_own(vae):
    latents = torch.cat([uneven(1, 4, 16, 16), 0.1 * uneven(1, 4, 16, 16)])
    enable_tiling(vae)
    alone = torch.cat([vae.decode(one).sample for one in latents.split(1)])
    assert relative_error(vae.decode(latents).sample, alone) < 1e-5


def test_tiles_in_half_precision_are_as_near_as_the_whole_is(build):
    vae, latents = build(), uneven(1, 4, 16, 24)
    exact = vae.decode(latents).sample
    vae.to(torch.bfloat16)
    whole = vae.decode(latents.bfloat16()).sample
    enable_tiling(vae)
    tiled = vae.decode(latents.bfloat16()).sample
    assert tiled.dtype == torch.bfloat16
    assert (tiled - exact).square().mean() < 1.5 * (whole - exact).square().mean()


def test_diffusers_own_tiles_differ_where_ours_do_not(vae):
    latents = uneven(1, 4, 24, 24)
    whole = vae.decode(latents).sample
    vae.enable_tiling()
    assert relative_error(vae.decode(latents).sample, whole) > 0.01
    enable_tiling(vae)
    assert relative_error(vae.decode(latents).sample, whole) < 1e-5


def runs_of(module):
    """The shapes of what goes into a module from now on."""
    shapes = []
    module.register_forward_pre_hook(lambda _, inputs: shapes.append(tuple(inputs[0].shape)))
    return shapes


def test_no_layer_behind_the_middle_sees_more_than_a_tile(vae):
    shapes = runs_of(vae.decoder.conv_out)
    enable_tiling(vae)
    vae.decode(uneven(1, 4, 32, 32))
    assert len(shapes) > 1
    assert all(rows * cols < 0.6 * 256 * 256 for _, _, rows, cols in shapes)


def test_less_memory_is_smaller_tiles(build):
    vae = build(block_out_channels=(16, 16, 16, 16))
    shapes = runs_of(vae.decoder.conv_out)
    latents = uneven(1, 4, 32, 32)
    largest = []
    for share in (0.9, 0.4):
        enable_tiling(vae, memory_gb=share * whole_memory(vae, latents) / 1e9)
        vae.decode(latents)
        largest.append(max(rows * cols for _, _, rows, cols in shapes))
        shapes.clear()
    assert largest[1] < largest[0]


def test_a_picture_that_fits_the_memory_is_decoded_whole(vae):
    shapes, latents = runs_of(vae.decoder), uneven(1, 4, 16, 16)
    enable_tiling(vae, memory_gb=whole_memory(vae, latents) / 1e9)
    vae.decode(latents)
    assert shapes == [(1, 4, 16, 16)]


def test_a_picture_of_the_size_of_training_is_decoded_whole(vae):
    shapes = runs_of(vae.decoder)
    enable_tiling(vae)
    vae.decode(uneven(1, 4, 8, 8))
    assert shapes == [(1, 4, 8, 8)]


def test_pictures_are_whole_again_after_tiling_is_off(vae):
    shapes, before = runs_of(vae.decoder), dict(vars(vae))
    enable_tiling(vae, memory_gb=1e-3)
    enable_tiling(vae)
    disable_tiling(vae)
    vae.decode(uneven(1, 4, 16, 16))
    assert shapes == [(1, 4, 16, 16)]
    assert vars(vae).keys() == before.keys()
    assert vae.tile_latent_min_size == 8
    assert vae.tile_sample_min_size == 64


@pytest.mark.parametrize(
    "settings",
    [{"offload_type": "leaf_level"}, {"offload_type": "block_level", "num_blocks_per_group": 1}],
    ids=lambda settings: settings["offload_type"],
)
def test_tiles_are_the_same_where_weights_are_offloaded(vae, tmp_path, settings):
    latents, pictures = uneven(1, 4, 16, 16), uneven(1, 3, 128, 128)
    whole, moments = vae.decode(latents).sample, vae.encode(pictures).latent_dist.parameters
    vae.enable_group_offload(
        onload_device=torch.device("cpu"), offload_to_disk_path=str(tmp_path), **settings
    )
    enable_tiling(vae)
    assert relative_error(vae.decode(latents).sample, whole) < 1e-5
    assert relative_error(vae.encode(pictures).latent_dist.parameters, moments) < 1e-5


def test_other_autoencoders_keep_their_own_tiles():
    vae = AutoencoderTiny()
    enable_tiling(vae)
    assert vae.use_tiling
    disable_tiling(vae)
    assert not vae.use_tiling
    with pytest.raises(ValueError, match="AutoencoderTiny cannot be held to memory_gb"):
        enable_tiling(vae, memory_gb=1)


def test_memory_has_to_be_above_zero(vae):
    with pytest.raises(ValueError, match="memory_gb must be above 0, got 0"):
        enable_tiling(vae, memory_gb=0)


def test_a_pipeline_draws_the_same_picture_in_tiles(ours, draw):
    arguments = {"output_type": "pt", "width": 192, "height": 128}
    whole = draw(ours, **arguments)
    ours.enable_vae_tiling(memory_gb=1e-6)
    assert torch.allclose(draw(ours, **arguments), whole, atol=1e-5)
    ours.disable_vae_tiling()
    assert torch.equal(draw(ours, **arguments), whole)
