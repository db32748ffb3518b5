"""Recipes of classifiers."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lumina.errors import LuminaError
from lumina.settings import setting
from lumina.training.recipes.recipe import Recipe

if TYPE_CHECKING:
    from lumina.training.trainer import Objective


@dataclass(frozen=True, kw_only=True)
class RecognitionRecipe(Recipe):
    """Train a Next-DiT without time and text to tell what pictures of any size show."""

    task = "recognition"

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
