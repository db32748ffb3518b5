"""What a run would do, told before anything is trained: data, batches, memory, steps, captions."""

from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from lumina.errors import LuminaError
from lumina.modalities import find_modality
from lumina.pipelines.assembly import vae_folder
from lumina.training.data.dataset import Stages, Survey
from lumina.training.flow import find_data, make_batches
from lumina.training.recipes import FlowRecipe, Recipe
from lumina.training.starting import make_network
from lumina.training.trainer import PRECISIONS

CAPTIONS_SHOWN = 5
BATCHES_COUNTED = 50
CAPTION_TOKENS = 32  # of the captions that memory is estimated with
STATES = {"adamw": 8, "adamw8bit": 2 + 8 / 256, "muon": 4}
"""Bytes of what an optimizer keeps of each number, with scales where it is 8 bits. Muon takes AdamW
for the outer layers."""

QUANTIZED = {"nf4": 0.5 + 4 / 64, "int8": 1.0}
"""Bytes of a quantized number, with the scale of each block of 64."""


class Memory(NamedTuple):
    """Bytes that a step takes on a device.

    Args:
        weights: Of the network, in the numbers that it is kept in.
        training: Gradients, states of the optimizer, and the average of the weights.
        activations: What the forward pass of the largest batch keeps for the backward pass.
    """

    weights: int
    training: int
    activations: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.weights + self.training + self.activations


def plan(recipe: Recipe) -> list[str]:
    """What a run would do, as lines of text."""
    recipe = recipe.settled()
    if not isinstance(recipe, FlowRecipe):
        return [f"{recipe.steps} steps of {recipe.accumulate * recipe.batch_size} samples"]
    found = find_data(recipe)
    total = recipe.steps * recipe.accumulate
    stages = Stages(found, make_batches(recipe), total=total, seed=recipe.seed)
    with torch.device("meta"):
        network = make_network(recipe, is_empty=True)
    memory = estimate_memory(recipe, network, stages)
    weights = list(network.parameters())
    whole = sum(weight.numel() for weight in weights)
    trained = sum(weight.numel() for weight in weights if weight.requires_grad)
    return [
        "data:",
        *_indented(found.lines()),
        "batches:",
        *_indented(stages.lines()),
        "first captions:",
        *_indented(_captions(stages)),
        f"network: {whole / 1e6:.1f}M weights, {trained / 1e6:.1f}M trained,"
        f" products in {recipe.precision}",
        f"{_holder(recipe)}: {_gib(memory.total)} with {_gib(memory.weights)} of weights,"
        f" {_gib(memory.training)} of gradients, optimizer and average, and"
        f" {_gib(memory.activations)} of activations, beside the encoders and what the"
        " framework needs",
        f"steps: {recipe.steps}, {_epochs(recipe, found, stages):.1f} times through the data",
        f"out: {recipe.out}",
    ]


def estimate_memory(recipe: FlowRecipe, network: Any, stages: Stages) -> Memory:
    """Bytes of a step, found by a forward pass that computes nothing.

    Processes that share the tokens of a sample each keep activations of their part. Weights, and
    what is kept to train them, are counted as a process alone has them.

    Args:
        recipe: Of the run.
        network: What is trained, with weights on "meta".
        stages: Its batches.

    Raises:
        LuminaError: If the tokens of a sample do not divide among the processes that share them.
    """
    weights = list(network.parameters())
    trained = [weight for weight in weights if weight.requires_grad]
    numbers = sum(weight.numel() for weight in trained)
    average = sum(weight.nbytes for weight in trained)
    gradients = average
    states = round(numbers * STATES[recipe.matrix_optimizer])
    with FakeTensorMode():
        _place_on_cpu(network)
        activations = _activations(recipe, network, *_largest(stages))
    return Memory(
        weights=sum(_bytes_kept(weight, recipe) for weight in weights),
        training=gradients + average + states,
        activations=activations,
    )


def _bytes_kept(weight: Tensor, recipe: FlowRecipe) -> int:
    """Bytes of a weight, which are fewer where matrices are quantized."""
    if weight.requires_grad or weight.ndim < 2 or not recipe.quantize:
        return weight.nbytes
    return round(weight.numel() * QUANTIZED[recipe.quantize])


def _place_on_cpu(network: nn.Module) -> None:
    """Give a network on "meta" weights that have a device, and still no content."""
    for module in network.modules():
        for name, weight in module.named_parameters(recurse=False):
            empty = torch.empty(weight.shape, dtype=weight.dtype)
            setattr(module, name, nn.Parameter(empty, requires_grad=weight.requires_grad))
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, torch.empty(buffer.shape, dtype=buffer.dtype))


def _activations(recipe: FlowRecipe, network: nn.Module, size: tuple[int, ...], count: int) -> int:
    """Bytes that one forward pass keeps, each storage once, without those of the weights."""
    module: Any = network
    shape = (count, module.config["in_channels"], *_own_latents(recipe, size, network))
    if recipe.checkpoint_activations:
        module.enable_gradient_checkpointing()
    given: dict[str, Any] = {"class_labels": torch.zeros(count, dtype=torch.int64)}
    if recipe.text_encoder:
        width = module.config["cross_attention_dim"]
        given = {
            "encoder_hidden_states": torch.zeros(count, CAPTION_TOKENS, width),
            "encoder_mask": torch.ones(count, CAPTION_TOKENS, dtype=torch.int64),
        }
    dtype = PRECISIONS[recipe.precision]
    mixed = torch.autocast("cpu", dtype, enabled=dtype != torch.float32)
    with _counting(module) as kept, mixed:
        module(torch.zeros(shape), torch.zeros(count), return_dict=False, **given)
    return sum(kept.values())


def _own_latents(recipe: FlowRecipe, size: tuple[int, ...], network: Any) -> tuple[int, ...]:
    """Axes of the latents that a process works on."""
    folder = vae_folder(recipe.autoencoder) if recipe.autoencoder else Path()
    grid = find_modality(recipe.modality).grid(folder, size)
    if recipe.context_parallel == 1:
        return grid
    patch = network.config["patch_size"]
    tokens = prod(grid) // patch**2
    if tokens % recipe.context_parallel:
        raise LuminaError(
            f"the {tokens} tokens of {'x'.join(map(str, size))} do not divide among"
            f" {recipe.context_parallel} processes",
            hint="choose another context_parallel, or another size",
        )
    return patch, tokens // recipe.context_parallel * patch  # in one row


@contextmanager
def _counting(module: nn.Module) -> Iterator[dict[int, int]]:
    """Bytes of each storage that is kept for the backward pass within the context."""
    own = {id(weight.untyped_storage()._cdata) for weight in module.parameters()}
    kept: dict[int, int] = {}
    alive: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if id(storage._cdata) not in own:
            kept[storage._cdata] = storage.nbytes()
            alive.append(tensor)  # so that no later storage takes its number
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield kept
    alive.clear()


def _largest(stages: Stages) -> tuple[tuple[int, ...], int]:
    """Size and number of the largest batch."""
    feed = max(stages.feeds, key=lambda feed: feed.pixels)
    return feed.sizes[0], feed.count(feed.sizes[0])


def _holder(recipe: FlowRecipe) -> str:
    if recipe.context_parallel == 1:
        return "memory"
    return f"memory of each of {recipe.context_parallel} processes that share tokens"


def _captions(stages: Stages) -> list[str]:
    draws, _ = stages.share(0, rank=0, world=1)
    return [draw.caption or "(left out)" for draw in draws[:CAPTIONS_SHOWN]]


def _epochs(recipe: FlowRecipe, found: Survey, stages: Stages) -> float:
    total = recipe.steps * recipe.accumulate
    looked_at = range(0, total, max(1, total // BATCHES_COUNTED))
    counts = [stages.share(number, rank=0, world=1)[1] for number in looked_at]
    return fmean(counts) * total / sum(map(len, found.placed))


def _indented(lines: list[str]) -> list[str]:
    return [f"  {line}" for line in lines]


def _gib(count: int) -> str:
    return f"{count / 2**30:.2f} GiB"
