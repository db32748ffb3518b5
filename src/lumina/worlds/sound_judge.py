"""The judge of generated sounds: which instrument or effect is heard."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from safetensors import safe_open
from safetensors.numpy import save_file

from lumina.errors import LuminaError
from lumina.worlds.hearing import describe

CLIPS = 60
"""Renderings of each kind that a judge is made of."""

JUDGE_SEED = 77
"""Nothing that is trained or judged has this seed."""


class Verdict(NamedTuple):
    """What a sound is taken for, and how clearly.

    Args:
        name: The nearest kind.
        margin: How much nearer it is than the second, relative to that.
    """

    name: str
    margin: float


class SoundJudge:
    """Nearest kind by what sounds are like, in the directions in which kinds differ.

    Args:
        names: The kinds.
        center: What all sounds are like on average.
        axes: Directions in which kinds differ, each as wide as one kind is on its own (linear
            discriminant analysis).
        means: The middle of each kind along them.
    """

    def __init__(
        self,
        names: Sequence[str],
        *,
        center: Float[np.ndarray, " features"],
        axes: Float[np.ndarray, "features directions"],
        means: Float[np.ndarray, "kinds directions"],
    ):
        self.names = list(names)
        self.center = center
        self.axes = axes
        self.means = means

    @classmethod
    def fit(cls, examples: Mapping[str, Sequence[Float[np.ndarray, " samples"]]]) -> "SoundJudge":
        """A judge from waveforms of each kind, of which there are at least two."""
        names = list(examples)
        groups = [np.stack([describe(one) for one in examples[name]]) for name in names]
        everything = np.concatenate(groups)
        center, spread = everything.mean(0), everything.std(0) + 1e-3
        scaled = [(group - center) / spread for group in groups]
        within = np.concatenate([group - group.mean(0) for group in scaled])
        covariance = within.T @ within / len(within)
        shrunk = (1 - _SHRINK) * covariance + _SHRINK * np.eye(
            len(center)
        ) * covariance.trace() / len(center)
        variances, turn = np.linalg.eigh(shrunk)
        whiten = turn / np.sqrt(variances)
        middles = np.stack([group.mean(0) for group in scaled]) @ whiten
        _, _, directions = np.linalg.svd(middles - middles.mean(0), full_matrices=False)
        kept = directions[: len(names) - 1].T
        axes = whiten @ kept / spread[:, None]
        return cls(names, center=center, axes=axes, means=middles @ kept)

    def judge(self, waveform: Float[np.ndarray, " samples"]) -> Verdict:
        """What a sound at 16 kHz is taken for."""
        place = (describe(waveform) - self.center) @ self.axes
        distances = np.linalg.norm(self.means - place, axis=1)
        first, second = np.argsort(distances)[:2]
        return Verdict(self.names[first], float(1 - distances[first] / distances[second]))

    def save(self, path: Path) -> None:
        """Write the judge to a safetensors file."""
        tensors = {
            "center": self.center.astype(np.float32),
            "axes": self.axes.astype(np.float32),
            "means": self.means.astype(np.float32),
        }
        save_file(tensors, path, metadata={"names": "\n".join(self.names)})

    @classmethod
    def load(cls, path: Path) -> "SoundJudge":
        """Read a judge.

        Raises:
            LuminaError: If there is no such file.
        """
        if not path.is_file():
            raise LuminaError(f"there is no judge at {path}")
        with safe_open(path, "numpy") as file:
            names = file.metadata()["names"].split("\n")
            center, axes, means = (file.get_tensor(name) for name in ("center", "axes", "means"))
        return cls(names, center=center, axes=axes, means=means)


_SHRINK = 0.1  # toward equal spread in all directions, since there are more features than sounds
