"""Diffusers' step caches, fitted to our backbones: which they take, and with what settings."""

from dataclasses import replace
from typing import Any

from diffusers import (
    FasterCacheConfig,
    FirstBlockCacheConfig,
    MagCacheConfig,
    SeaCacheConfig,
    TaylorSeerCacheConfig,
    TextKVCacheConfig,
)
from diffusers.hooks._helpers import TransformerBlockMetadata, TransformerBlockRegistry
from torch import Tensor, nn

from lumina.errors import LuminaError

STACK_CACHES = (FirstBlockCacheConfig, MagCacheConfig, SeaCacheConfig)
"""Caches that keep the sum of what all blocks but the first, or all of them, add to the tokens."""

_UNFIT = {
    FasterCacheConfig: "it takes the second half of a batch for the prompts, which is the"
    " negative prompts here",
    TextKVCacheConfig: "keys and values of the text are kept from step to step without it",
}
_FITTING = "FirstBlockCacheConfig, MagCacheConfig, SeaCacheConfig, TaylorSeerCacheConfig"


def fit_cache(config: Any, blocks: nn.ModuleList, *, is_parallel: bool) -> Any:
    """The same cache with what diffusers does not know of our backbones.

    Args:
        config: Settings of one of diffusers' step caches.
        blocks: What the tokens of the model go through.
        is_parallel: Whether processes share the tokens.

    Raises:
        LuminaError: If the cache cannot work on such a model.
    """
    reason = _UNFIT.get(type(config))
    name = type(config).__name__
    if reason is not None:
        raise LuminaError(f"{name} does not fit this model: {reason}", hint=f"use {_FITTING}")
    if isinstance(config, STACK_CACHES):
        if len(blocks) < 2:
            raise LuminaError(
                f"{name} needs 2 blocks or more, and the model has {len(blocks)}",
                hint="use TaylorSeerCacheConfig",
            )
        _register(type(blocks[0]))
    # Each process would compare tokens of its own, and wait for another that goes on.
    if is_parallel and isinstance(config, FirstBlockCacheConfig):
        raise LuminaError(
            f"{name} cannot decide for processes that share the tokens",
            hint="use MagCacheConfig, SeaCacheConfig or TaylorSeerCacheConfig",
        )
    if isinstance(config, MagCacheConfig) and config.threshold == 0:
        # Diffusers skips a step whose ratio is exactly 1, whatever the threshold.
        return replace(config, max_skip_steps=0)
    if isinstance(config, SeaCacheConfig) and config.raw_vision_callback is None:
        return replace(config, raw_vision_callback=_latents)
    if isinstance(config, TaylorSeerCacheConfig):
        return _fit_taylor(config)
    return config


def _fit_taylor(config: TaylorSeerCacheConfig) -> TaylorSeerCacheConfig:
    """Predict what the output layer returns, and skip the blocks: diffusers' "lite mode".

    Its own patterns name no module of ours, and would cache nothing.
    """
    if config.cache_identifiers or config.skip_predict_identifiers:
        return config
    return replace(
        config,
        use_lite_mode=False,
        cache_identifiers=["norm_out"],
        skip_predict_identifiers=[r"layers\.\d+"],
    )


def _register(block: type[nn.Module]) -> None:
    TransformerBlockRegistry.register(block, TransformerBlockMetadata(return_hidden_states_index=0))


def _latents(_module: nn.Module, arguments: tuple, named: dict[str, Any]) -> list[Tensor] | None:
    """Latents of a call, as channels, frames, rows and columns."""
    data = arguments[0] if arguments else named["hidden_states"]
    if isinstance(data, list):
        return [sample.unsqueeze(1) for sample in data]
    while data.ndim < 5:
        data = data.unsqueeze(2)
    return list(data)
