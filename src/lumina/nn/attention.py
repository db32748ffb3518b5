"""Grouped-query attention to tokens and to text."""

import math

import torch
from diffusers import ParallelConfig
from diffusers.models.attention import AttentionModuleMixin
from diffusers.models.attention_dispatch import AttentionBackendName, dispatch_attention_fn
from jaxtyping import Bool, Float
from torch import Tensor, nn

from lumina.nn.ring import RingAttend
from lumina.types import Attend

FEW_KEYS = 48
"""Up to so many, two products of matrices are faster on a CPU than the fused kernel."""


def fused_attend(
    query: Float[Tensor, "b n h k"],
    key: Float[Tensor, "b m g k"],
    value: Float[Tensor, "b m g k"],
    *,
    mask: Bool[Tensor, "b 1 #n all"] | None = None,
    scale: float | None = None,
    backend: AttentionBackendName | None = None,
    parallel: ParallelConfig | None = None,
) -> Float[Tensor, "b n h k"]:
    """Attend with a kernel of diffusers: an `Attend`.

    Args:
        query: As in `Attend`.
        key: As in `Attend`.
        value: As in `Attend`.
        mask: As in `Attend`; of the tokens of all processes.
        scale: As in `Attend`.
        backend: The kernel; where it takes no mask and there is one, PyTorch's own. None takes
            the one in use everywhere.
        parallel: How processes share the tokens. None: each has them all.
    """
    if mask is not None and backend is not None and not _takes_masks(backend):
        backend = AttentionBackendName.NATIVE
    repeats = query.shape[2] // key.shape[2]
    # On CUDA no fused kernel takes grouped heads in float32 or beside a mask: PyTorch would fall
    # back to one that keeps all scores in memory.
    can_group = mask is None and (query.device.type == "cpu" or query.dtype != torch.float32)
    # Diffusers does not share grouped heads among processes.
    can_group = can_group and parallel is None
    # A branch, since a compiler that does not know the number of heads has no bool to pass on.
    is_grouped = False
    if repeats > 1:
        if can_group:
            is_grouped = True
        else:
            key, value = (x.repeat_interleave(repeats, dim=2) for x in (key, value))
    return dispatch_attention_fn(
        query,
        key,
        value,
        attn_mask=mask,
        scale=scale,
        enable_gqa=is_grouped,
        backend=backend,
        parallel_config=parallel,
    )


def _takes_masks(backend: AttentionBackendName) -> bool:
    name = backend.value
    return "varlen" in name or not any(kind in name for kind in ("flash", "sage", "aiter", "xla"))


def float32_attend(
    query: Float[Tensor, "b n h k"],
    key: Float[Tensor, "b m g k"],
    value: Float[Tensor, "b m g k"],
    *,
    mask: Bool[Tensor, "b 1 #n m"] | None = None,
    scale: float | None = None,
) -> Float[Tensor, "b n h k"]:
    """Attend in float32, in the way that is fastest there: an `Attend` for training on a CPU.

    PyTorch's fused kernel has a slow backward pass in bfloat16 there: up to 4 times slower than
    that in float32. At 256 tokens the products of `plain_attend` take 3 times as long as it.
    """
    attend = plain_attend if key.shape[1] <= FEW_KEYS else fused_attend
    with torch.autocast(query.device.type, enabled=False):
        values = attend(query.float(), key.float(), value.float(), mask=mask, scale=scale)
    return values.to(value.dtype)


def plain_attend(
    query: Float[Tensor, "b n h k"],
    key: Float[Tensor, "b m g k"],
    value: Float[Tensor, "b m g k"],
    *,
    mask: Bool[Tensor, "b 1 #n m"] | None = None,
    scale: float | None = None,
) -> Float[Tensor, "b n h k"]:
    """Attend by two products of matrices, which keep all scores in memory: an `Attend`."""
    repeats = query.shape[2] // key.shape[2]
    if repeats > 1:
        key, value = (x.repeat_interleave(repeats, dim=2) for x in (key, value))
    query = query * (scale or query.shape[-1] ** -0.5)
    scores = query.transpose(1, 2) @ key.transpose(1, 2).mT
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return (scores.softmax(-1) @ value.transpose(1, 2)).transpose(1, 2)


def proportional_scale(head_width: int, *, tokens: int, base: int | None) -> float:
    """Factor on attention scores that keeps their entropy as it was for `base` tokens.

    Args:
        head_width: Channels of a head.
        tokens: How many tokens there are.
        base: How many tokens the model was trained with, above 1. None leaves the plain factor.

    Raises:
        ValueError: If `base` is not above 1.

    Source:
        Training-free diffusion model adaptation for variable-sized text-to-image synthesis,
        arXiv:2306.08645, equation 9.
    """
    plain = head_width**-0.5
    if base is None:
        return plain
    if base <= 1:
        raise ValueError(f"base_sequence_length must be above 1, got {base}")
    return plain * math.sqrt(math.log(tokens, base))


class Kernel:
    """The `Attend` of one attention, as diffusers' switches set it: its "processor" there.

    `set_attention_backend` and `enable_parallelism` write into these attributes.
    """

    _attention_backend: AttentionBackendName | None = None

    def __call__(
        self,
        query: Float[Tensor, "b n h k"],
        key: Float[Tensor, "b m g k"],
        value: Float[Tensor, "b m g k"],
        *,
        mask: Bool[Tensor, "b 1 #n m"] | None = None,
        scale: float | None = None,
    ) -> Float[Tensor, "b n h k"]:
        """Attend, as an `Attend` does."""
        backend = self._attention_backend
        return fused_attend(query, key, value, mask=mask, scale=scale, backend=backend)


class SharedKernel(Kernel):
    """A `Kernel` for tokens that processes may share: each has some of them, and all text."""

    _parallel_config: ParallelConfig | None = None

    def __call__(
        self,
        query: Float[Tensor, "b n h k"],
        key: Float[Tensor, "b m g k"],
        value: Float[Tensor, "b m g k"],
        *,
        mask: Bool[Tensor, "b 1 #n all"] | None = None,
        scale: float | None = None,
    ) -> Float[Tensor, "b n h k"]:
        """Attend to the tokens of all processes; `mask` is for all of them."""
        parallel = self._parallel_config
        context = None if parallel is None else parallel.context_parallel_config
        if context is not None and context.ulysses_degree == 1:
            ring = RingAttend(context._ring_mesh.get_group())
            return ring(query, key, value, mask=mask, scale=scale)
        backend = self._attention_backend
        return fused_attend(
            query, key, value, mask=mask, scale=scale, backend=backend, parallel=parallel
        )


class Attention(nn.Module, AttentionModuleMixin):
    """Attention with its projections: queries from tokens, keys and values from any source."""

    _supports_qkv_fusion = False

    def __init__(
        self,
        width: int,
        *,
        heads: int,
        kv_heads: int,
        source_width: int | None = None,
        qk_norm: bool = True,
        has_output: bool = True,
    ):
        super().__init__()
        self.heads, self.kv_heads = heads, kv_heads
        self.is_cross_attention = source_width is not None
        self.processor = Kernel() if self.is_cross_attention else SharedKernel()
        kv_width = width // heads * kv_heads
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(source_width or width, kv_width, bias=False)
        self.to_v = nn.Linear(source_width or width, kv_width, bias=False)
        self.norm_q = nn.LayerNorm(width) if qk_norm else nn.Identity()
        self.norm_k = nn.LayerNorm(kv_width) if qk_norm else nn.Identity()
        if has_output:
            self.to_out = nn.ModuleList([nn.Linear(width, width, bias=False)])

    def forward(
        self,
        query: Float[Tensor, "b n h k"],
        key: Float[Tensor, "b m g k"],
        value: Float[Tensor, "b m g k"],
        *,
        mask: Bool[Tensor, "b 1 #n all"] | None = None,
        scale: float | None = None,
        attend: Attend | None = None,
    ) -> Float[Tensor, "b n h k"]:
        """Attend by `attend`, or by the kernel that diffusers' switches chose.

        A call of the module, so that diffusers' hooks on attention see it.
        """
        return (attend or self.processor)(query, key, value, mask=mask, scale=scale)

    def set_use_memory_efficient_attention_xformers(self, *_: object) -> None:
        """Leave the kernel as it is; `set_attention_backend("xformers")` takes that of xformers."""

    def query(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b n h k"]:
        """Queries, normalised over all heads together."""
        query = self.to_q(tokens)
        return self.norm_q(query).to(query.dtype).unflatten(-1, (self.heads, -1))

    def key_value(
        self, source: Float[Tensor, "b m e"]
    ) -> tuple[Float[Tensor, "b m g k"], Float[Tensor, "b m g k"]]:
        """Keys, normalised over all heads together, and values."""
        key, value = self.to_k(source), self.to_v(source)
        key = self.norm_k(key).to(value.dtype)
        return key.unflatten(-1, (self.kv_heads, -1)), value.unflatten(-1, (self.kv_heads, -1))
