"""Training runs as typed settings, read from commented TOML files."""

import dataclasses
import json
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lumina.errors import LuminaError
from lumina.settings import from_table, setting

if TYPE_CHECKING:
    from lumina.training.trainer import Objective

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
    "context_parallel",
    "context_parallel_by",
    "checkpoint_activations",
    "tensorboard",
}


def _check_data(tables: Sequence[dict]) -> None:
    from lumina.training.data.sources import read_sources

    read_sources(tables)


def _check_crops(table: dict) -> None:
    from lumina.training.data.buckets import Crops

    from_table(Crops, table).list_sizes()


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
        "muon",
        "optimizer of hidden matrices; adamw8bit, of all, keeps its averages in a quarter of the"
        " memory",
        choices=("muon", "adamw", "adamw8bit"),
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
    context_parallel: int = setting(
        1, "neighbouring processes that share the tokens of each sample", ge=1
    )
    context_parallel_by: str = setting(
        "ulysses",
        "how: each takes some heads of all tokens, or keys and values go round a ring",
        choices=("ulysses", "ring"),
    )
    ema: float = setting(0.999, "memory of the average of the weights", ge=0, le=1)
    log_every: int = setting(50, "steps between lines of progress", ge=1)
    preview_every: int = setting(1000, "steps between preview pictures", ge=1)
    validate_every: int = setting(0, "steps between measurements on unseen data; 0: none", ge=0)
    save_minutes: float = setting(5.0, "minutes between saved states", ge=0)
    keep_states: int = setting(2, "how many of the latest states stay", ge=1)
    keep_every: int = setting(0, "steps whose multiples stay for good; 0: none", ge=0)
    tensorboard: bool = setting(False, "write a log that TensorBoard reads")

    def check(self) -> None:
        """Refuse settings that do not go together, before anything loads.

        Raises:
            LuminaError: If some do not.
        """

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
        then = json.loads(type(self)().to_json()) | then
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
    """Train a backbone to turn noise into latents of pictures, from captions or classes."""

    # Data
    modality: str = setting("image", "what is trained on", metavar="NAME")
    data: tuple[dict, ...] = setting((), "sources: tables [[data]]", check=_check_data)
    crops: dict = setting({}, "sizes of pictures: the table [crops]", check=_check_crops)
    shapes: str = setting(
        "one", "pictures of a batch have one size, or any", choices=("one", "packed")
    )
    batch_multiple: int = setting(
        1, "pictures of a batch are a multiple of this, for as many processes", ge=1
    )
    caption_dropout: float = setting(0.1, "share of captions or classes left out", ge=0, le=1)
    validation: float = setting(0.0, "share of pictures that are kept to validate on", ge=0, le=0.5)
    autoencoder: str = setting("", "the autoencoder: a folder or the name of a model")
    text_encoder: str = setting(
        "", "the text encoder and tokenizer: a folder or the name of a model; none: classes"
    )
    max_tokens: int = setting(256, "where longer captions are cut", ge=1, unit="tokens")
    cache: str = setting("", "folder of latents and text features; that of the run where empty")
    cache_texts: bool = setting(True, "keep the features of all captions, instead of encoding them")

    # Network
    start_from: str = setting("", "whose weights to start from: a folder or the name of a model")
    network: str = setting("", "a network of the family by its name, instead of the sizes below")
    backbone: str = setting(
        "next-dit", "which network of these sizes", choices=("next-dit", "flag-dit")
    )
    width: int = setting(256, "width of the network", ge=8)
    depth: int = setting(8, "blocks", ge=1)
    heads: int = setting(8, "attention heads", ge=1)
    kv_heads: int = setting(8, "attention heads of keys and values", ge=1)
    multiple_of: int = setting(256, "feed-forward widths are rounded up to a multiple of this")
    classes: int = setting(0, "classes, where there is no text encoder", ge=0)
    lora_rank: int = setting(0, "train adapters of this rank instead; 0: all weights", ge=0)
    lora_scale: float = setting(1.0, "strength of the adapters", above=0)
    lora_layers: tuple[str, ...] = setting(
        ("to_q", "to_k", "to_v", "to_out.0", "linear_1", "linear_2", "linear_3"),
        "layers that get adapters, by the ends of their names",
    )
    lora_whole: tuple[str, ...] = setting(
        (), "layers that are trained whole beside the adapters, by the ends of their names"
    )
    lora_merge: bool = setting(False, "write the whole network with the adapters in it")
    parts_of: str = setting(
        "",
        "write a pipeline with the adapters, whose other parts are those of this model that ships",
    )
    quantize: str = setting(
        "", "numbers of the weights that adapters are trained on", choices=("", "nf4", "int8")
    )

    # Flow
    times: str = setting(
        "uniform", "how training times are drawn", choices=("uniform", "logit-normal")
    )
    time_shift: float = setting(1.0, "above 1 draws more training times near noise", above=0)
    time_mean: float = setting(0.0, "mean of the logit of the time; above 0 is nearer to data")
    time_spread: float = setting(1.0, "spread of the logit of the time", above=0)
    sample_latents: bool = setting(False, "draw latents from their spread, instead of the mean")

    # Pictures drawn on the way
    prompts: tuple[str, ...] = setting((), "what previews draw; the first captions where empty")
    preview_steps: int = setting(15, "steps of previews", ge=1)
    preview_guidance: float = setting(4.0, "guidance of previews", ge=0)
    save_dtype: str = setting(
        "float16", "numbers of the exported weights", choices=("float16", "bfloat16", "float32")
    )

    # Prior preservation (DreamBooth)
    prior_prompts: tuple[str, ...] = setting((), "what the network shall still draw as it does now")
    prior_pictures: int = setting(64, "how many of these it draws before, to train on", ge=1)
    prior_weight: float = setting(1.0, "how much they count, relative to the data", ge=0)

    def check(self) -> None:
        """Refuse settings that do not go together, and models that are not on this machine."""
        if not self.data:
            raise LuminaError("there are no data", hint='add a table: [[data]], kind = "folder"')
        for table in self.data:
            if table.get("start", 0) >= table.get("until", 1):
                raise LuminaError("a source has a start that is not before its until")
        self._check_autoencoder()
        if self.modality != "image" and self.shapes == "packed":
            raise LuminaError(
                "only pictures are packed to batches of several sizes", hint='set shapes = "one"'
            )
        if bool(self.text_encoder) == bool(self.classes):
            raise LuminaError(
                "give a text_encoder to train on captions, or the number of classes",
                hint='such as text_encoder = "gemma-2b", or classes = 1000',
            )
        needing = {
            "lora_rank": self.lora_rank,
            "prior_prompts": self.prior_prompts,
            "quantize": self.quantize,
        }
        for name, value in needing.items():
            if value and not self.start_from:
                raise LuminaError(f"{name} needs a network to start from", hint="set start_from")
        if self.parts_of and (not self.lora_rank or self.lora_merge):
            raise LuminaError(
                "parts_of is for adapters that stay apart", hint="set lora_rank, or leave it out"
            )
        if self.quantize and (not self.lora_rank or self.lora_merge):
            raise LuminaError(
                "quantized weights are not trained, and nothing is merged into them",
                hint="set lora_rank, and lora_merge = false",
            )
        if self.quantize and self.precision != "bf16":
            raise LuminaError(
                f"quantized weights are multiplied in bfloat16, and precision is {self.precision}",
                hint='set precision = "bf16"',
            )
        if not self.start_from and not self.network:
            self._check_heads()

    def _check_autoencoder(self) -> None:
        from lumina.modalities import find_modality

        needed = find_modality(self.modality).needs_autoencoder
        if needed and not self.autoencoder:
            raise LuminaError("there is no autoencoder", hint='such as autoencoder = "sdxl"')
        if self.autoencoder and not needed:
            raise LuminaError(
                f"data of the modality {self.modality} need no autoencoder", hint="leave it out"
            )

    def _check_heads(self) -> None:
        if self.width % self.heads or self.heads % self.kv_heads:
            raise LuminaError(
                f"a width of {self.width} with {self.heads} heads and {self.kv_heads} kv_heads",
                hint="heads must divide the width, and kv_heads must divide heads",
            )
        if self.width // self.heads % 4:
            raise LuminaError(
                f"a head is {self.width // self.heads} wide",
                hint="choose width / heads as a multiple of 4, for rows and columns",
            )

    def make_objective(self) -> "Objective":
        """A flow over cached latents."""
        from lumina.training.flow import FlowObjective

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


@dataclass(frozen=True, kw_only=True)
class FewStepsRecipe(Recipe):
    """Distill a model that draws in many guided steps into one that needs a few without."""

    teacher: str = setting("lumina-mini", "model to learn from: a name, or a folder such as `last`")
    teacher_steps: int = setting(12, "steps in which the teacher is followed", ge=1)
    solver: str = setting(
        "euler", "how the teacher is followed", choices=("euler", "ab2", "dpm++", "unipc")
    )
    guidance: float = setting(4.0, "guidance of the teacher, which the student learns", ge=1)
    evaluations: int = setting(4, "most steps that the student is made for, and all fewer", ge=1)
    ways: int = setting(8000, "ways of the teacher from noise to picture, followed once", ge=1)
    pairs: float = setting(0.25, "share of captions that ask for two things", ge=0, le=1)
    foreign: float = setting(0.5, "share of captions that are not English, where possible")

    def make_objective(self) -> "Objective":
        """A student with the ways of its teacher."""
        from lumina.training.distillation import FewStepsObjective

        return FewStepsObjective(self)


@dataclass(frozen=True, kw_only=True)
class RecognitionRecipe(Recipe):
    """Train a Next-DiT without time and text to tell what pictures of any size show."""

    start_from: str = setting("", "folder of a run whose weights to start from")
    side: int = setting(64, "side of pictures of the usual size", ge=16, unit="pixels")
    usual: float = setting(1.0, "share of pictures of the usual size", ge=0, le=1)
    smallest: float = setting(40.0, "side of the smallest others", ge=8, unit="pixels")
    largest: float = setting(104.0, "side of the largest others", ge=8, unit="pixels")
    aspect: float = setting(1.75, "most that a side of others is longer than the next", ge=1)
    patch: int = setting(8, "side of the patch of a token", ge=1, unit="pixels")
    width: int = setting(128, "width of the network", ge=8)
    depth: int = setting(6, "blocks", ge=1)
    heads: int = setting(4, "attention heads", ge=1)
    positions: str = setting(
        "rotary", "how tokens know where they are", choices=("rotary", "learned")
    )
    rope_theta: float = setting(100.0, "how much slower the slowest rotation is", ge=1)
    smoothing: float = setting(0.1, "share of a label that is spread over all", ge=0, le=0.5)
    unseen: int = setting(260, "pictures of each size to validate on", ge=1)

    def check(self) -> None:
        """Refuse settings that do not go together."""
        if self.smallest > self.largest:
            raise LuminaError(
                f"smallest is {self.smallest:g}, above largest, {self.largest:g}",
                hint="they are sides of squares of the same area as the pictures",
            )
        if self.width % self.heads or self.width // self.heads % 4:
            raise LuminaError(
                f"a width of {self.width} with {self.heads} heads",
                hint="choose width / heads as a multiple of 4, for rows and columns",
            )

    def make_objective(self) -> "Objective":
        """A classifier with its pictures."""
        from lumina.training.recognition import RecognitionObjective

        return RecognitionObjective(self)


@dataclass(frozen=True, kw_only=True)
class SoundRecipe(Recipe):
    """What training on generated sounds has besides."""

    clips: int = setting(2000, "sounds that are rendered before the run", ge=1)
    music: float = setting(0.4, "share of music among them", ge=0, le=1)
    speech: float = setting(0.0, "share of speech among them", ge=0, le=1)
    frames: int = setting(64, "length of the training parts in frames of 16 ms", ge=16)


@dataclass(frozen=True, kw_only=True)
class MelAutoencoderRecipe(SoundRecipe):
    """Train a small autoencoder of mel spectrograms on generated sounds."""

    latent_channels: int = setting(16, "channels of the latents", ge=1)
    width: int = setting(64, "channels of the first level", ge=8)
    multipliers: tuple[int, ...] = setting((1, 2), "channels of each level, relative to the width")
    blocks: int = setting(1, "residual blocks of each level", ge=1)
    halved_levels: tuple[int, ...] = setting((0,), "levels after which frames are halved")
    groups: int = setting(8, "groups of each normalization", ge=1)
    latent_noise: float = setting(
        0.1, "noise on latents while decoding, relative to their spread", ge=0
    )
    spread_weight: float = setting(
        0.03, "how strongly latents are kept at zero mean, unit spread, uncorrelated", ge=0
    )

    def check(self) -> None:
        """Refuse channels that do not divide into the groups, and parts that do not halve."""
        for multiplier in self.multipliers:
            if self.width * multiplier % self.groups:
                raise LuminaError(
                    f"{self.width * multiplier} channels do not divide into {self.groups} groups",
                    hint="choose a width that is a multiple of groups",
                )
        if self.frames % 2 ** len(self.halved_levels):
            raise LuminaError(
                f"{self.frames} frames cannot be halved {len(self.halved_levels)} times",
                hint=f"choose a multiple of {2 ** len(self.halved_levels)}",
            )

    def make_objective(self) -> "Objective":
        """An autoencoder with its sounds."""
        from lumina.training.sound_autoencoder import MelAutoencoderObjective

        return MelAutoencoderObjective(self)


@dataclass(frozen=True, kw_only=True)
class VocoderRecipe(SoundRecipe):
    """Train a small vocoder on generated sounds, against a critic."""

    width: int = setting(256, "channels of every layer", ge=8)
    depth: int = setting(4, "blocks", ge=1)
    inner_width: int = setting(512, "channels inside each block", ge=8)
    critic_start: float = setting(0.3, "share of the run after which the critic is asked", ge=0)
    critic_weight: float = setting(0.1, "how much the critic counts", ge=0)

    def make_objective(self) -> "Objective":
        """A vocoder with its critic and its sounds."""
        from lumina.training.vocoder import VocoderObjective

        return VocoderObjective(self)


TASKS: dict[str, type[Recipe]] = {
    "autoencoder": AutoencoderRecipe,
    "alignment": AlignmentRecipe,
    "flow": FlowRecipe,
    "shapes": ShapesRecipe,
    "few_steps": FewStepsRecipe,
    "recognition": RecognitionRecipe,
    "mel_autoencoder": MelAutoencoderRecipe,
    "vocoder": VocoderRecipe,
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
    for text in overrides or []:
        _override(values, text)
    task = values.pop("task", None)
    if task not in TASKS:
        raise LuminaError(f"task is {task!r}", hint=f"choose one of {', '.join(TASKS)}")
    recipe = from_table(TASKS[task], {"out": f"runs/{path.stem}"} | values)
    recipe.check()
    return recipe


def _override(values: dict[str, Any], text: str) -> None:
    """Set what `key=value` says; a dot leads into a table, as `data.0.path` does.

    Raises:
        LuminaError: If there is nothing at the key, or no value.
    """
    name, equals, written = text.partition("=")
    if not equals:
        raise LuminaError(f"{text!r} is not key=value")
    try:
        value = tomllib.loads(f"value = {written}")["value"]
    except tomllib.TOMLDecodeError:
        value = written
    *tables, last = name.split(".")
    place: Any = values
    for table in tables:
        place = _enter(place, table, name)
    if not isinstance(place, dict):
        raise LuminaError(f"{name} names no setting", hint="such as data.0.path=FOLDER")
    place[last] = value


def _enter(place: Any, key: str, name: str) -> Any:
    if isinstance(place, dict):
        return place.setdefault(key, {})
    if isinstance(place, list) and key.isdecimal() and int(key) < len(place):
        return place[int(key)]
    raise LuminaError(f"{name} names no setting: there is no {key}")


def _task_of(recipe: Recipe) -> str:
    return next(task for task, kind in TASKS.items() if type(recipe) is kind)
