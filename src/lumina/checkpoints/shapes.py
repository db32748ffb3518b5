"""Shapes of weights: those that were found, held against those that a network has."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lumina.errors import LuminaError

Shapes = Mapping[str, Sequence[int]]

_NAMED = 3


@dataclass(frozen=True)
class Differences:
    """Names of weights at which a checkpoint and a network differ."""

    missing: list[str]
    unexpected: list[str]
    reshaped: dict[str, tuple[list[int], list[int]]]
    """Shapes that are found and expected."""

    @classmethod
    def between(cls, found: Shapes, expected: Shapes) -> "Differences":
        """Compare what was found with what was expected."""
        return cls(
            missing=[name for name in expected if name not in found],
            unexpected=[name for name in found if name not in expected],
            reshaped={
                name: (list(found[name]), list(shape))
                for name, shape in expected.items()
                if name in found and list(found[name]) != list(shape)
            },
        )

    def refuse(self, where: str, *, hint: str) -> None:
        """Refuse a checkpoint that differs.

        Args:
            where: File or folder of the checkpoint.
            hint: What to do where weights are missing.

        Raises:
            LuminaError: If there is any difference. It names the first of them.
        """
        if self.missing:
            raise LuminaError(f"{where} lacks {listed(self.missing)}", hint=hint)
        same_model = "the configuration and the weights must come from the same model"
        if self.unexpected:
            raise LuminaError(
                f"{where} has {listed(self.unexpected)}, which its configuration does not describe",
                hint=same_model,
            )
        for name, (found, expected) in self.reshaped.items():
            raise LuminaError(
                f"{where}: {name} has the shape {found}, not {expected}", hint=same_model
            )


def listed(names: list[str]) -> str:
    """The first few of many names, and how many more there are."""
    named = ", ".join(names[:_NAMED])
    return named if len(names) <= _NAMED else f"{named} and {len(names) - _NAMED} more tensors"
