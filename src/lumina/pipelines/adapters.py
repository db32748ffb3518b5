"""LoRA: small changes to a transformer, read under every style of names that is in use."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

# The plainest of diffusers' mixins for pipelines where nothing but the transformer is adapted.
from diffusers.loaders import CogVideoXLoraLoaderMixin as TransformerLoraMixin
from diffusers.utils.torch_utils import unwrap_module
from torch import Tensor, nn

from lumina.backbones.sharing import without_adapters
from lumina.checkpoints.headers import read_header
from lumina.checkpoints.keys import original_names, with_copies
from lumina.errors import LuminaError

PREFIXES = (
    "base_model.model.",
    "model.diffusion_model.",
    "diffusion_model.",
    "transformer.",
    "lora_unet_",
    "lora_transformer_",
)
"""What peft, user interfaces, pipelines and kohya's scripts put before the name of a layer."""

PARTS = {
    "lora_A": "lora_A",
    "lora_down": "lora_A",
    "lora.down": "lora_A",
    "lora_B": "lora_B",
    "lora_up": "lora_B",
    "lora.up": "lora_B",
    "lora_magnitude_vector": "lora_magnitude_vector",
}
"""What files call the parts of an adapter, and how peft does."""

_ALPHA = "alpha"
_UNNAMED = "this LoRA"
_NAMED = 3
_ELSEWHERE = "load it into the model that it was made for"


class LoraMixin(TransformerLoraMixin):
    """Loads, saves, mixes and fuses adapters of a pipeline's transformer, as diffusers does."""

    transformer: Any  # one of ours, which may be compiled

    def load_lora_weights(
        self,
        pretrained_model_name_or_path_or_dict: str | Path | dict[str, Tensor],
        adapter_name: str | None = None,
        hotswap: bool = False,
        **kwargs,
    ) -> None:
        """Load an adapter beside those that are loaded already, and use it.

        Args:
            pretrained_model_name_or_path_or_dict: A file, folder, hub id, or weights by name. Names
                are ours or those of the original release, in the style of diffusers, peft, kohya
                (`lora_unet_`) or `diffusion_model.`.
            adapter_name: What to call it in `set_adapters`. None finds a name.
            hotswap: Put it in the place of the adapter of that name, which keeps a compiled
                transformer compiled.
            kwargs: Where to look for it on the hub, as in diffusers.

        Raises:
            LuminaError: If it was made for another model, or its file is missing or damaged.
        """
        source = cast(str, pretrained_model_name_or_path_or_dict)
        if isinstance(source, str | Path) and Path(source).suffix == ".safetensors":
            read_header(Path(source))  # diffusers would call it a pickle, or an id on the hub
        low_cpu_mem_usage = kwargs.pop("low_cpu_mem_usage", True)
        weights, metadata = self.lora_state_dict(source, return_lora_metadata=True, **kwargs)
        where = str(source) if isinstance(source, str | Path) else _UNNAMED
        transformer = unwrap_module(self.transformer)
        if any(name.endswith(f".{_ALPHA}") for name in weights):
            metadata = None  # they say the same, and alphas are multiplied in below
        transformer.load_lora_adapter(
            read_lora(weights, transformer, where=where),
            prefix=None,
            adapter_name=adapter_name,
            hotswap=hotswap,
            metadata=metadata and {_without_prefix(key): value for key, value in metadata.items()},
            low_cpu_mem_usage=low_cpu_mem_usage,
            _pipeline=self,
        )


def read_lora(
    weights: Mapping[str, Tensor], transformer: nn.Module, *, where: str = _UNNAMED
) -> dict[str, Tensor]:
    """Weights of an adapter under the names that peft gives them in this transformer.

    Args:
        weights: Two matrices for each layer, and maybe an alpha, which is multiplied in.
        transformer: What they are for. It may have adapters already.
        where: What to call them in errors, such as their file.

    Raises:
        LuminaError: If the weights are no LoRA, or do not fit the transformer.
    """
    found = _group(weights, where)
    layers = _linear_layers(transformer)
    places = _places(transformer, list(layers))
    _check_names(list(found), places, model=type(transformer).__name__, where=where)
    adapter = {}
    for layer, parts in found.items():
        alpha = parts.pop(_ALPHA, None)
        for place in places[layer]:
            _check_shapes(layer, parts, layers[place], where=where)
            adapter |= {f"{place}.{part}": weight for part, weight in parts.items()}
            if alpha is not None:
                up, rank = f"{place}.lora_B.weight", len(parts["lora_A.weight"])
                adapter[up] = adapter[up] * (alpha.item() / rank)
    return adapter


def _group(weights: Mapping[str, Tensor], where: str) -> dict[str, dict[str, Tensor]]:
    """For each layer, as the file calls it without its prefix, the parts of its adapter."""
    found: dict[str, dict[str, Tensor]] = {}
    for name, weight in weights.items():
        layer, _, alpha = name.rpartition(".")
        match = _PART.fullmatch(name)
        if match:
            layer, part, suffix = match.groups()
            found.setdefault(_without_prefix(layer), {})[f"{PARTS[part]}{suffix}"] = weight
        elif alpha == _ALPHA:
            found.setdefault(_without_prefix(layer), {})[_ALPHA] = weight
        else:
            raise LuminaError(
                f"{where}: {name} is no weight of a LoRA",
                hint="a LoRA holds lora_A and lora_B, or lora_down and lora_up, for each layer",
            )
    if not found:
        raise LuminaError(f"{where} holds no weights", hint="copy or download it again")
    return found


def _linear_layers(transformer: nn.Module) -> dict[str, nn.Linear]:
    """Layers that can be adapted, by the names that they have without adapters."""
    layers = {}
    for name, module in transformer.named_modules():
        layer = without_adapters(module)
        if isinstance(layer, nn.Linear) and not _OF_ADAPTERS.search(name):
            layers[name] = layer
    return layers


def _places(transformer: nn.Module, layers: list[str]) -> dict[str, list[str]]:
    """Our layers for each name that a file may give them; two for the query of the original."""
    shapes = {
        name.replace(".base_layer.", "."): tuple(weight.shape)
        for name, weight in transformer.state_dict().items()
        if ".lora_" not in name
    }
    try:
        originals = with_copies({ours: name for name, ours in original_names(shapes).items()})
    except KeyError:  # the original has no such model
        originals = {}
    places: dict[str, list[str]] = {}
    for layer in layers:
        original = originals.get(f"{layer}.weight", layer).removesuffix(".weight")
        for name in {layer, original}:
            for spelling in (name, name.replace(".", "_")):
                places.setdefault(spelling, []).append(layer)
    return places


def _check_names(
    names: list[str], places: Mapping[str, list[str]], *, model: str, where: str
) -> None:
    unknown = [name for name in names if name not in places]
    if unknown:
        listed = ", ".join(unknown[:_NAMED]) + (", ..." if len(unknown) > _NAMED else "")
        raise LuminaError(
            f"{len(unknown)} of the {len(names)} layers of {where} are not in {model}: {listed}",
            hint=_ELSEWHERE,
        )


def _check_shapes(name: str, parts: Mapping[str, Tensor], layer: nn.Linear, *, where: str) -> None:
    if missing := {"lora_A.weight", "lora_B.weight"} - set(parts):
        raise LuminaError(
            f"{where}: {name} lacks {' and '.join(sorted(missing))}",
            hint="copy or download it again",
        )
    rank = len(parts["lora_A.weight"])
    expected = {
        "lora_A.weight": (rank, layer.in_features),
        "lora_B.weight": (layer.out_features, rank),
    }
    for part, shape in expected.items():
        if parts[part].shape != shape:
            raise LuminaError(
                f"{name}.{part} of {where} has the shape {list(parts[part].shape)},"
                f" where this model takes {list(shape)}",
                hint=_ELSEWHERE,
            )


def _without_prefix(name: str) -> str:
    for prefix in PREFIXES:
        name = name.removeprefix(prefix)
    return name


_PART = re.compile(rf"(.+)\.({'|'.join(map(re.escape, PARTS))})(?:\.\w+)??((?:\.weight|\.bias)?)")
_OF_ADAPTERS = re.compile(r"\.(base_layer|lora_\w+)(\.|$)")
