"""The judge of generated sounds: which instrument or effect is heard."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from safetensors import safe_open
from safetensors.numpy import save_file

from lumina.errors import LuminaError
from lumina.worlds.hearing import describe
from lumina.worlds.sounds import KINDS, SECONDS, draw_brief, render
from lumina.worlds.vocoding import pass_through_mel

CLIPS = 60
"""Renderings of each kind that a judge is made of."""

JUDGES = Path(__file__).parent / "judges"
"""Where those are that `benchmarks/judges.py --fit` has made."""

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
    def fit(cls, examples: Mapping[str, Sequence[Float[np.ndarray, " _"]]]) -> "SoundJudge":
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


def fit_kinds() -> SoundJudge:
    """A judge of all kinds of instruments and effects.

    Raises:
        LuminaError: If fluidsynth or the soundfont is not installed.
    """
    examples = {}
    for number, name in enumerate(KINDS):
        rng = np.random.default_rng((JUDGE_SEED, number))
        briefs = [draw_brief(rng, kind=name) for _ in range(CLIPS)]
        clips = [render(brief, rng, seconds=float(rng.uniform(*SECONDS))) for brief in briefs]
        examples[name] = with_losses(clips, rng)
    return SoundJudge.fit(examples)


def with_losses(
    clips: Sequence[Float[np.ndarray, " _"]], rng: np.random.Generator
) -> list[Float[np.ndarray, " _"]]:
    """Sounds, and each as a better or worse vocoder leaves it."""
    lost = [pass_through_mel(clip, rng, rounds=4, astray=float(rng.random())) for clip in clips]
    return [*clips, *lost]


@functools.cache
def usual_judge(name: str) -> SoundJudge:
    """A judge that comes with the package: of "sounds", or of the instruments of "music"."""
    return SoundJudge.load(JUDGES / f"{name}.safetensors")


_SHRINK = 0.1  # toward equal spread in all directions, since there are more features than sounds
