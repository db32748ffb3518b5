"""Recipes of flows: a backbone that turns noise into what captions or classes ask for."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lumina.errors import LuminaError
from lumina.settings import from_table, setting
from lumina.training.recipes.recipe import Recipe

if TYPE_CHECKING:
    from lumina.training.trainer import Objective


def _check_data(tables: Sequence[dict]) -> None:
    from lumina.training.data.sources import read_sources

    read_sources(tables)


def _check_crops(table: dict) -> None:
    from lumina.training.data.buckets import Crops

    from_table(Crops, table).list_sizes()


@dataclass(frozen=True, kw_only=True)
class FlowRecipe(Recipe):
    """Train a backbone to turn noise into latents of pictures, from captions or classes."""

    task = "flow"

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
    multiple_of: int = setting(
        256, "feed-forward widths are rounded up to a multiple of this", ge=1
    )
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
    save_rank: int = setting(
        0, "rank that adapters are cut to where they are written with `parts_of`; 0: as it is", ge=0
    )
    parts_of: str = setting(
        "",
        "write a pipeline that shares the parts which are named by this model, with it",
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
    usual_size: str = setting(
        "", "size of what is made where none is asked for; that of most data where empty"
    )
    usual_steps: int = setting(0, "steps where none are asked for; 0: as its pipeline has", ge=0)
    usual_guidance: float = setting(0.0, "guidance where none is asked for; 0: as above", ge=0)
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
        of_media = ("usual_size", "usual_steps", "usual_guidance")
        for name in of_media if self.modality == "image" else ():
            if getattr(self, name):
                raise LuminaError(f"{name} is for other media than pictures", hint="leave it out")
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
        if self.lora_whole and not self.lora_rank:
            raise LuminaError(
                "lora_whole names layers beside adapters, and there are none",
                hint="set lora_rank, or leave lora_whole out",
            )
        if self.lora_whole and not (self.lora_merge or self.parts_of):
            raise LuminaError(
                f"{', '.join(self.lora_whole)} would be trained whole and not be written, since"
                " files of adapters hold nothing else",
                hint="set lora_merge = true, or parts_of, or leave lora_whole out",
            )
        if self.parts_of:
            self._check_sharing()
        self._check_languages()
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

    @property
    def goes_on(self) -> bool:
        """Whether adapters go on from those that an earlier run wrote with `parts_of`."""
        from lumina.checkpoints.folder import differs_from

        if not (self.parts_of and self.lora_rank) or self.lora_merge:
            return False
        folder = self._start_folder()
        return folder is not None and differs_from(folder, self.parts_of)

    def _start_folder(self) -> Path | None:
        """What a run starts from; None where that is not there yet, such as of an earlier part."""
        from lumina.catalog import find

        try:
            return find(self.start_from).folder
        except LuminaError:
            return None

    def _check_sharing(self) -> None:
        sources = {"text_encoder": self.text_encoder, "autoencoder": self.autoencoder}
        if self.lora_rank and not self.lora_merge:
            sources = {k: v for k, v in sources.items() if v}
            if self._start_folder() and not self.goes_on:
                sources = {"start_from": self.start_from} | sources
            others = [name for name, of in sources.items() if Path(of).name != self.parts_of]
            if others:
                raise LuminaError(
                    f"{others[0]} is {sources[others[0]]!r}, and adapters are written without what"
                    f" {self.parts_of} has",
                    hint=f'set {others[0]} = "{self.parts_of}", or leave parts_of out',
                )
        elif self.parts_of not in {Path(of).name for of in sources.values() if of}:
            raise LuminaError(
                f"no part is one of {self.parts_of}, which parts_of names",
                hint=f'set text_encoder = "{self.parts_of}", or leave parts_of out',
            )

    def _check_languages(self) -> None:
        from lumina.checkpoints.folder import DIFFERENCE

        folder = self._start_folder() if self.start_from else None
        has_learned = folder is not None and (folder / "text_encoder" / DIFFERENCE).is_file()
        if has_learned and self.text_encoder != self.start_from:
            raise LuminaError(
                f"the text encoder of {self.start_from} has learned languages, and text_encoder is"
                f" {self.text_encoder!r}",
                hint=f'set text_encoder = "{self.start_from}", and parts_of, if it is set, to its'
                " name",
            )

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
class FewStepsRecipe(Recipe):
    """Distill a model that draws in many guided steps into one that needs a few without."""

    task = "few_steps"

    teacher: str = setting("lumina-mini", "model to learn from: a name, or a folder such as `last`")
    teacher_steps: int = setting(12, "steps in which the teacher is followed", ge=1)
    solver: str = setting(
        "euler", "how the teacher is followed", choices=("euler", "ab2", "dpm++", "unipc")
    )
    guidance: float = setting(4.0, "guidance of the teacher, which the student learns", ge=1)
    evaluations: int = setting(4, "most steps that the student is made for, and all fewer", ge=1)
    ways: int = setting(8000, "ways of the teacher from noise to picture, followed once", ge=1)
    pairs: float = setting(0.25, "share of captions that ask for two things", ge=0, le=1)
    foreign: float = setting(
        0.5, "share of captions that are not English, where possible", ge=0, le=1
    )

    def make_objective(self) -> "Objective":
        """A student with the ways of its teacher."""
        from lumina.training.distillation import FewStepsObjective

        return FewStepsObjective(self)


@dataclass(frozen=True, kw_only=True)
class ShapesRecipe(Recipe):
    """Train a small Next-DiT on pictures of one shape, to see what larger canvases do to it."""

    task = "shapes"

    start_from: str = setting("", "folder of a run whose weights to start from")
    side: int = setting(64, "side of the pictures in pixels", ge=16)
    patch: int = setting(2, "side of the patch of a token in pixels", ge=1)
    width: int = setting(96, "width of the network", ge=8)
    depth: int = setting(4, "blocks", ge=1)
    heads: int = setting(2, "attention heads", ge=1)
    rope_theta: float = setting(100.0, "how much slower the slowest rotation is", ge=1)
    class_dropout: float = setting(0.1, "share of pictures whose class is not told", ge=0, le=1)
    time_shift: float = setting(2.0, "above 1 draws more training times near noise", above=0)

    def make_objective(self) -> "Objective":
        """A flow over the pixels of shapes."""
        from lumina.training.shapes import ShapesObjective

        return ShapesObjective(self)
