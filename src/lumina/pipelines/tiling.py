"""Decode and encode large pictures in tiles, equal to whole ones, in bounded memory.

Diffusers' own tiles are decoded on their own, with norms of their own, and differ visibly where a
picture varies: by 4 to 9 of 255 levels with the shipped autoencoder. Here tiles give what the whole
gives, see `tiles.py`. The middle of an autoencoder, where pictures are smallest and attention looks
everywhere, is computed whole.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from diffusers import AutoencoderKL
from diffusers.models.autoencoders.vae import DecoderOutput
from diffusers.models.unets.unet_2d_blocks import DownEncoderBlock2D, UpDecoderBlock2D
from jaxtyping import Float
from torch import Tensor

from lumina.pipelines.tiles import Normalise, State, Step, run_in_tiles, whole_bytes

WHOLE_FRACTION = 0.2
"""Of the memory that a whole picture takes: what tiles take where nothing else is asked for."""


def enable_tiling(vae: Any, *, memory_gb: float | None = None) -> None:
    """Have `vae.decode` and `vae.encode` work in tiles where a picture is large.

    Args:
        vae: An `AutoencoderKL`, or another autoencoder that has tiles of its own.
        memory_gb: Memory to get by with, beside weights and the picture. What takes no more is
            computed whole. The picture itself and the middle of the autoencoder are always whole:
            less than working on them takes is as good as what it takes. None: what is larger
            than the autoencoder was trained for is tiled, in about a fifth of the memory.
            A process on a CPU grows by about a quarter more than that, as its heap has gaps.

    Raises:
        ValueError: If `memory_gb` is not above 0, or the autoencoder cannot be held to it.
    """
    if memory_gb is not None and memory_gb <= 0:
        raise ValueError(f"memory_gb must be above 0, got {memory_gb}")
    disable_tiling(vae)
    if _is_understood(vae):
        budget = None if memory_gb is None else memory_gb * 1e9
        _replace_tiles(vae, budget)
    elif memory_gb is not None:
        raise ValueError(
            f"the tiles of {type(vae).__name__} cannot be held to memory_gb: leave it out"
        )
    vae.enable_tiling()


def disable_tiling(vae: Any) -> None:
    """Have `vae.decode` and `vae.encode` compute each picture whole."""
    vae.disable_tiling()
    if "tiled_decode" in vars(vae):
        vae.tile_sample_min_size, vae.tile_latent_min_size = vae.trained_sizes
        del vae.trained_sizes, vae.tiled_decode, vae._tiled_encode


def whole_memory(vae: AutoencoderKL, latents: Float[Tensor, "b c rows cols"]) -> int:
    """Bytes that it takes to decode latents whole, beside weights and the picture."""
    return whole_bytes(_decoder_steps(vae.decoder), latents)


def _is_understood(vae: Any) -> bool:
    return (
        isinstance(vae, AutoencoderKL)
        and all(isinstance(block, UpDecoderBlock2D) for block in vae.decoder.up_blocks)
        and all(isinstance(block, DownEncoderBlock2D) for block in vae.encoder.down_blocks)
    )


def _replace_tiles(vae: Any, budget: float | None) -> None:
    """Set our tiles on one autoencoder in place of those of its class.

    Args:
        vae: The autoencoder.
        budget: Bytes, or None for a fraction of what the whole takes.
    """
    trained = vae.tile_sample_min_size, vae.tile_latent_min_size
    vae.trained_sizes = trained
    # Above these sizes diffusers asks for tiles: always, as it takes more to decide.
    vae.tile_sample_min_size = vae.tile_latent_min_size = 0
    vae._tiled_encode = partial(_encode, vae, trained_side=_longer(trained[0]), budget=budget)
    vae.tiled_decode = partial(_decode, vae, trained_side=_longer(trained[1]), budget=budget)


def _longer(size: int | Sequence[int]) -> int:
    return size if isinstance(size, int) else max(size)


def _decode(
    vae: AutoencoderKL,
    z: Float[Tensor, "b c rows cols"],
    return_dict: bool = True,
    *,
    trained_side: int,
    budget: float | None,
) -> DecoderOutput | tuple[Tensor]:
    """Decode latents, in the place of `AutoencoderKL.tiled_decode`."""
    decoder, steps = vae.decoder, _decoder_steps(vae.decoder)
    z = z if vae.post_quant_conv is None else vae.post_quant_conv(z)
    memory = _allowed_bytes(steps, z, trained_side=trained_side, budget=budget)
    if memory is None:
        picture = decoder(z)
    else:
        with _loaded(decoder, decoder.up_blocks):
            picture = run_in_tiles(steps, decoder.mid_block(decoder.conv_in(z)), memory=memory)
    return DecoderOutput(sample=picture) if return_dict else (picture,)


def _encode(
    vae: AutoencoderKL,
    x: Float[Tensor, "b 3 height width"],
    *,
    trained_side: int,
    budget: float | None,
) -> Float[Tensor, "b moments rows cols"]:
    """Encode pictures, in the place of `AutoencoderKL._tiled_encode`."""
    encoder, steps = vae.encoder, _encoder_steps(vae.encoder)
    memory = _allowed_bytes(steps, x, trained_side=trained_side, budget=budget)
    if memory is None:
        moments = encoder(x)
    else:
        with _loaded(encoder, encoder.down_blocks):
            x = encoder.mid_block(run_in_tiles(steps, x, memory=memory))
            moments = encoder.conv_out(encoder.conv_act(encoder.conv_norm_out(x)))
    return moments if vae.quant_conv is None else vae.quant_conv(moments)


@contextmanager
def _loaded(part: Any, blocks: Any) -> Iterator[None]:
    """Have the weights of an encoder or decoder at hand, though no module of it is called whole.

    Groups of weights that are offloaded at the level of blocks move when those are called.
    """
    registries = [getattr(module, "_diffusers_hook", None) for module in (part, *blocks)]
    hooks = [registry and registry.get_hook("group_offloading") for registry in registries]
    offloaded = [(hook, m) for hook, m in zip(hooks, (part, *blocks), strict=True) if hook]
    for hook, module in offloaded:
        hook.pre_forward(module)
    try:
        yield
    finally:
        for hook, module in offloaded:
            hook.post_forward(module, None)


def _allowed_bytes(
    steps: Sequence[Step],
    x: Float[Tensor, "b c rows cols"],
    *,
    trained_side: int,
    budget: float | None,
) -> float | None:
    """What tiles may take, and None for whole pictures."""
    whole = whole_bytes(steps, x)
    if budget is None:
        return None if max(x.shape[2:]) <= trained_side else whole * WHOLE_FRACTION
    return None if whole <= budget else budget


def _decoder_steps(decoder: Any) -> list[Step]:
    """All of a decoder that comes after its middle."""
    steps = []
    for block in decoder.up_blocks:
        steps += [step for resnet in block.resnets for step in _resnet_steps(resnet)]
        steps += [_resampling_step(layer, scale=2) for layer in block.upsamplers or ()]
    norm, activate, conv = decoder.conv_norm_out, decoder.conv_act, decoder.conv_out
    last = Step(
        lambda state, normalise: (conv(activate(normalise(norm, state[0]))),),
        widths=(conv.out_channels,),
        widest=conv.in_channels,
        norm=norm,
    )
    return [*steps, last]


def _encoder_steps(encoder: Any) -> list[Step]:
    """All of an encoder that comes before its middle."""
    conv = encoder.conv_in
    first = Step(
        lambda state, _: (conv(state[0]),), widths=(conv.out_channels,), widest=conv.out_channels
    )
    steps = [first]
    for block in encoder.down_blocks:
        steps += [step for resnet in block.resnets for step in _resnet_steps(resnet)]
        steps += [_resampling_step(layer, scale=0.5) for layer in block.downsamplers or ()]
    return steps


def _resnet_steps(block: Any) -> list[Step]:
    """Both convolutions of a residual block, which keeps its input until the second."""
    before, after = block.conv1.in_channels, block.conv1.out_channels

    def first(state: State, normalise: Normalise) -> State:
        (x,) = state
        return x, block.conv1(block.nonlinearity(normalise(block.norm1, x)))

    def second(state: State, normalise: Normalise) -> State:
        x, change = state
        change = block.conv2(block.nonlinearity(normalise(block.norm2, change)))
        if block.conv_shortcut is not None:
            x = block.conv_shortcut(x)
        return ((x + change) / block.output_scale_factor,)

    widest = max(before, after)
    return [
        Step(first, widths=(before, after), widest=widest, norm=block.norm1),
        Step(second, widths=(after,), widest=widest, norm=block.norm2),
    ]


def _resampling_step(layer: Any, *, scale: float) -> Step:
    # Before sides are halved there are four times as many pixels.
    widest = layer.channels * (4 if scale < 1 else 1)
    return Step(
        lambda state, _: (layer(state[0]),),
        widths=(layer.out_channels,),
        widest=widest,
        scale=scale,
    )
