"""Recipes of what flows are made with: an autoencoder of pictures, and text encoders."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lumina.errors import LuminaError
from lumina.settings import setting
from lumina.training.recipes.recipe import Recipe

if TYPE_CHECKING:
    from lumina.training.trainer import Objective


TRANSLATED = ("items", "motion", "music")
"""Worlds whose first English caption says what those of other languages say."""


@dataclass(frozen=True, kw_only=True)
class AutoencoderRecipe(Recipe):
    """Train an image autoencoder on drawings."""

    task = "autoencoder"

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

    task = "alignment"

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
class LanguagesRecipe(Recipe):
    """Teach the text encoder of a model that captions of other languages mean the English ones."""

    task = "languages"

    model: str = setting("", "model that knows English captions: its name or folder")
    world: str = setting("", "world whose captions are learned", choices=("", *TRANSLATED))
    pairs: str = setting("", "or file of lines with a caption and its English translation")
    rank: int = setting(16, "rank of the adapters of the text encoder", ge=1)
    english: float = setting(
        0.25, "share of English captions, which shall act as they did", ge=0, le=1
    )
    samples: int = setting(24, "samples that queries are taken from", ge=1)
    queries: int = setting(32, "queries of each block that captions are compared by", ge=1)
    prompts: tuple[str, ...] = setting((), "what previews make; none where empty")

    def check(self) -> None:
        """Refuse a run without captions, or with those of two sources."""
        if bool(self.world) == bool(self.pairs):
            raise LuminaError(
                "give a world whose captions are learned, or a file of pairs",
                hint='such as world = "motion", or pairs = "captions.jsonl"',
            )
        if not self.model:
            raise LuminaError("there is no model that learns", hint='such as model = "lumina-mini"')

    def make_objective(self) -> "Objective":
        """A text encoder with its captions."""
        from lumina.training.languages import LanguagesObjective

        return LanguagesObjective(self)
