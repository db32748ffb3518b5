"""Training runs as typed settings, read from commented TOML files."""

import dataclasses
import difflib
import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

from lumina.errors import LuminaError, UnknownNameError
from lumina.settings import setting

if TYPE_CHECKING:
    from lumina.training.trainer import Objective

MADE_BY = "training.json"
"""File beside weights that says which run made them."""

# Settings that a run may change between a stop and a resume.
CHANGEABLE = {
    "out",
    "device",
    "log_every",
    "preview_every",
    "validate_every",
    "save_minutes",
    "keep_states",
    "keep_every",
    "replicas",
    "checkpoint_activations",
    "tensorboard",
}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What every training run has."""

    out: str = setting("", "folder of the run")
    seed: int = setting(0, "seed of weights, data and noise", ge=0)
    steps: int = setting(1000, "optimizer steps", ge=1)
    batch_size: int = setting(64, "samples in a batch (of the usual size)", ge=1)
    accumulate: int = setting(1, "batches in a step", ge=1)
    device: str = setting("auto", "where to compute: cpu, cuda, cuda:1, mps")
    learning_rate: float = setting(2e-3, "peak learning rate", ge=0)
    adam_scale: float = setting(1.0, "learning rate of AdamW relative to that of Muon", ge=0)
    matrix_optimizer: str = setting(
        "muon", "optimizer of hidden matrices", choices=("muon", "adamw")
    )
    weight_decay: float = setting(0.0, "decoupled weight decay of matrices", ge=0)
    warmup: int = setting(100, "steps of linear warm-up", ge=0)
    decay: float = setting(0.3, "share of the run in which the rate falls to 0", ge=0, le=1)
    precision: str = setting(
        "fp32", "of the products of matrices; weights are fp32", choices=("fp32", "bf16", "fp16")
    )
    clip: float = setting(1.0, "largest norm of the gradient", ge=0)
    spike: float = setting(
        0.0, "stop where the gradient has this many times its usual norm; 0 never does", ge=0
    )
    checkpoint_activations: bool = setting(
        False, "compute each block again for its gradient, in less memory"
    )
    compile: bool = setting(False, "compile the blocks")
    replicas: int = setting(
        1, "groups of processes that hold all weights each; 1 spreads them over all", ge=1
    )
    ema: float = setting(0.999, "memory of the average of the weights", ge=0, le=1)
    log_every: int = setting(50, "steps between lines of progress", ge=1)
    preview_every: int = setting(1000, "steps between preview pictures", ge=1)
    validate_every: int = setting(0, "steps between measurements on unseen data; 0: none", ge=0)
    save_minutes: float = setting(5.0, "minutes between saved states", ge=0)
    keep_states: int = setting(2, "how many of the latest states stay", ge=1)
    keep_every: int = setting(0, "steps whose multiples stay for good; 0: none", ge=0)
    tensorboard: bool = setting(False, "write a log that TensorBoard reads")

    def make_objective(self) -> "Objective":
        """What this run trains."""
        raise NotImplementedError

    def to_json(self) -> str:
        """All settings, as text that is stored with the weights."""
        return json.dumps({"task": _task_of(self)} | dataclasses.asdict(self))

    def changes_since(self, saved: str) -> list[str]:
        """Names of settings that differ from a stored recipe and matter to the result.

        A setting that was added to the library since then had its default.
        """
        now, then = json.loads(self.to_json()), json.loads(saved)
        added = [field for field in dataclasses.fields(self) if field.name not in then]
        then |= {field.name: field.default for field in added}
        names = (now.keys() | then.keys()) - CHANGEABLE
        return sorted(name for name in names if now.get(name) != then.get(name))


@dataclass(frozen=True, kw_only=True)
class AutoencoderRecipe(Recipe):
    """Train an image autoencoder on drawings."""

    channels: tuple[int, ...] = setting((16, 32, 64, 128), "channels at 1, 1/2, 1/4, 1/8 size")
    latent_channels: int = setting(4, "channels of the latent picture", ge=1)
    groups: int = setting(8, "groups of each normalization", ge=1)
    crop: int = setting(64, "side of the training crops in pixels", ge=16)
    start_from: str = setting("", "folder of an autoencoder whose weights to start from")
    decoder_only: bool = setting(False, "keep the encoder, and so all latents, as they are")
    latent_noise: float = setting(
        0.1, "noise on latents while decoding, relative to their spread", ge=0
    )
    spread_weight: float = setting(
        0.03, "how strongly latents are kept at zero mean, unit spread, uncorrelated", ge=0
    )
    smoothness: float = setting(0.0, "weight of the agreement of small and large latents", ge=0)

    def make_objective(self) -> "Objective":
        """An autoencoder with its drawings."""
        from lumina.training.autoencoder import AutoencoderObjective

        return AutoencoderObjective(self)


@dataclass(frozen=True, kw_only=True)
class AlignmentRecipe(Recipe):
    """Teach a text encoder what the things that captions name look like."""

    vocabulary_size: int = setting(8192, "tokens of the tokenizer", ge=300)
    width: int = setting(256, "width of the encoder", ge=8)
    depth: int = setting(4, "layers of the encoder, the last of which only diffusers runs", ge=2)
    heads: int = setting(4, "attention heads", ge=1)
    hidden: int = setting(768, "width inside the feed-forward layers", ge=8)
    appearance: int = setting(192, "numbers that describe how a drawing looks", ge=1)
    languages_weight: float = setting(0.6, "share of captions that are not English", ge=0, le=1)

    def make_objective(self) -> "Objective":
        """A text encoder with its captions."""
        from lumina.training.alignment import AlignmentObjective

        return AlignmentObjective(self)


@dataclass(frozen=True, kw_only=True)
class FlowRecipe(Recipe):
    """Train a Next-DiT to turn noise into latents of drawings."""

    autoencoder: str = setting("", "folder of the trained autoencoder")
    text_encoder: str = setting("", "folder of the trained text encoder and tokenizer")
    start_from: str = setting("", "folder of a run whose weights to start from")
    width: int = setting(256, "width of the network", ge=8)
    depth: int = setting(8, "blocks", ge=1)
    heads: int = setting(8, "attention heads", ge=1)
    kv_heads: int = setting(8, "attention heads of keys and values", ge=1)
    multiple_of: int = setting(256, "feed-forward widths are rounded up to a multiple of this")
    sizes: tuple[str, ...] = setting(("128x128",), "picture sizes, one for each step in turn")
    early_sizes: tuple[str, ...] = setting(("64x64",), "picture sizes at the start of the run")
    early_share: float = setting(0.0, "share of the run that takes the early sizes", ge=0, le=1)
    early_scenes: int = setting(20000, "scenes of early sizes, painted and encoded once", ge=1)
    scenes: int = setting(20000, "scenes of all other sizes, painted and encoded once", ge=1)
    caption_dropout: float = setting(0.1, "share of captions that are emptied", ge=0, le=1)
    pairs: float = setting(0.15, "share of scenes that show two things", ge=0, le=1)
    foreign: float = setting(0.5, "share of captions that are not English, where possible")
    time_shift: float = setting(1.0, "above 1 draws more training times near noise", ge=0)

    def make_objective(self) -> "Objective":
        """A flow over cached latents."""
        from lumina.training.text_to_image import FlowObjective

        return FlowObjective(self)


@dataclass(frozen=True, kw_only=True)
class ShapesRecipe(Recipe):
    """Train a small Next-DiT on pictures of one shape, to see what larger canvases do to it."""

    start_from: str = setting("", "folder of a run whose weights to start from")
    side: int = setting(64, "side of the pictures in pixels", ge=16)
    patch: int = setting(2, "side of the patch of a token in pixels", ge=1)
    width: int = setting(96, "width of the network", ge=8)
    depth: int = setting(4, "blocks", ge=1)
    heads: int = setting(2, "attention heads", ge=1)
    rope_theta: float = setting(100.0, "how much slower the slowest rotation is", ge=1)
    class_dropout: float = setting(0.1, "share of pictures whose class is not told", ge=0, le=1)
    time_shift: float = setting(2.0, "above 1 draws more training times near noise", ge=0)

    def make_objective(self) -> "Objective":
        """A flow over the pixels of shapes."""
        from lumina.training.shapes import ShapesObjective

        return ShapesObjective(self)


TASKS: dict[str, type[Recipe]] = {
    "autoencoder": AutoencoderRecipe,
    "alignment": AlignmentRecipe,
    "flow": FlowRecipe,
    "shapes": ShapesRecipe,
}


def load(path: str | Path, overrides: list[str] | None = None) -> Recipe:
    """Read a recipe from a TOML file.

    Args:
        path: The file.
        overrides: Later settings as `key=value`, values written as in TOML (quotes optional).

    Raises:
        LuminaError: If the file cannot be read, or a setting is unknown or out of its range.
    """
    path = Path(path)
    try:
        values = tomllib.loads(path.read_text())
    except FileNotFoundError as error:
        raise LuminaError(f"no recipe at {path}", hint="recipes ship in recipes/") from error
    except tomllib.TOMLDecodeError as error:
        raise LuminaError(f"{path} is not valid TOML: {error}") from error
    values |= dict(_override(text) for text in overrides or [])
    task = values.pop("task", None)
    if task not in TASKS:
        raise LuminaError(f"task is {task!r}", hint=f"choose one of {', '.join(TASKS)}")
    kind = TASKS[task]
    values.setdefault("out", f"runs/{path.stem}")
    hints = get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    checked = {}
    for name, value in values.items():
        if name not in fields:
            close = difflib.get_close_matches(name, fields, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(fields)}"
            raise LuminaError(f"unknown setting {name!r} in {path}", hint=hint)
        checked[name] = _check(name, value, hints[name], fields[name].metadata)
    return kind(**checked)


def _override(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise LuminaError(f"{text!r} is not key=value")
    try:
        return name, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return name, value


def _check(name: str, value: Any, kind: Any, limits: Any) -> Any:
    if get_origin(kind) is tuple:
        if not isinstance(value, list):
            raise LuminaError(f"{name} is {value!r}, not a list")
        return tuple(_check(name, item, get_args(kind)[0], limits) for item in value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not kind:
        raise LuminaError(f"{name} is {value!r}, not of type {kind.__name__}")
    if limits["choices"] and value not in limits["choices"]:
        raise UnknownNameError.among(limits["choices"], str(value), kind=name)
    low, high = limits.get("ge"), limits.get("le")
    if (low is not None and value < low) or (high is not None and value > high):
        raise LuminaError(f"{name} is {value}, outside {_range(low, high)}")
    return value


def _range(low: float | None, high: float | None) -> str:
    if high is None:
        return f"{low} and above"
    return f"{low} to {high}"


def _task_of(recipe: Recipe) -> str:
    return next(task for task, kind in TASKS.items() if type(recipe) is kind)
