"""Lumina-mini, as claims ask for it: exact velocities of prompts in float32."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

import lumina
from lumina.backbones.blocks import Attends, StepCache
from lumina.catalog import find
from lumina.devices import pick_dtype
from lumina.evaluation.trials import shuffled
from lumina.flow.guidance import Guidance, guide
from lumina.nn.extrapolation import UNSCALED, RopeScaling
from lumina.pipelines.sampling import GUIDED_CHANNELS
from lumina.types import Velocity
from lumina.worlds.captions import Brief, write
from lumina.worlds.judge import Lineup
from lumina.worlds.references import load_references

NAME = "lumina-mini"
SIDE = 16  # latents of its usual picture
GUIDANCE = 4.0  # as in use
TRAINED_TOKENS = 64


def usual_numbers() -> str:
    """Those that networks are multiplied in here where nothing else is asked for, by name."""
    return str(pick_dtype("auto", torch.device("cpu"))).removeprefix("torch.")


@dataclass
class Mini:
    """The shipped model with its judge."""

    pipeline: Any
    lineup: Lineup
    drawings: UInt8[np.ndarray, "n side side 4"]

    @classmethod
    def load(cls) -> "Mini":
        """Load it as float32 on the CPU, where figures are the same for all."""
        pipeline = lumina.load(NAME, dtype="float32", device="cpu")
        things, drawings = load_references(find(NAME).folder)
        return cls(pipeline, Lineup(things, drawings), drawings)

    def drawing(self, thing: str) -> UInt8[np.ndarray, "side side 4"]:
        """The reference drawing of a thing, as RGBA."""
        return self.drawings[self.lineup.things.index(thing)]

    def name_of(self, brief: Brief) -> str:
        """What a brief asks for, in English."""
        return write(brief, "en", with_article=False)

    def briefs(self, purpose: str, count: int) -> list[Brief]:
        """Single things, in an order of their own for each purpose."""
        return [Brief((thing,)) for thing in shuffled(self.lineup.things, purpose)[:count]]

    def prompts(self, briefs: Sequence[Brief]) -> "Prompts":
        """What the network is given of prompts, and of the empty one beside each."""
        texts = [write(brief, "en") for brief in briefs]
        with torch.no_grad():
            features, mask, no_features, no_mask = self.pipeline.encode_prompt(texts, True)
        pair = (torch.cat([features, no_features]), torch.cat([mask, no_mask]))
        return Prompts(self.pipeline.transformer, *pair)

    @torch.no_grad()
    def decode(self, latents: Float[Tensor, "b c rows cols"]) -> UInt8[np.ndarray, "b h w 3"]:
        """Pictures of latents."""
        scaling = self.pipeline.vae.config["scaling_factor"]
        pixels = self.pipeline.vae.decode(latents / scaling).sample
        whole = ((pixels.clamp(-1, 1) + 1) * 127.5).round().byte()
        return whole.permute(0, 2, 3, 1).numpy()

    def found(self, briefs: Sequence[Brief], pictures: UInt8[np.ndarray, "b h w 3"]) -> list[bool]:
        """Whether each picture resembles what was asked for more than all other things."""
        pairs = zip(briefs, pictures, strict=True)
        return [self.lineup.judge(brief, picture).is_found for brief, picture in pairs]


@cache
def load_mini() -> Mini:
    """Lumina-mini, loaded once for all that is measured on it."""
    return Mini.load()


@dataclass
class Prompts:
    """Features of prompts, followed by those of the empty prompt as many times."""

    network: Any
    features: Float[Tensor, "pairs m d"]
    mask: Tensor
    cache: StepCache = field(default_factory=StepCache)

    @property
    def count(self) -> int:
        """How many prompts there are."""
        return len(self.features) // 2

    def noise(self, first_seed: int, side: int = SIDE) -> Float[Tensor, "b c side side"]:
        """Noise of one seed for each prompt."""
        seeds = range(first_seed, first_seed + self.count)
        shape = (self.network.config["in_channels"], side, side)
        return torch.stack(
            [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        )

    def velocity(
        self,
        *,
        guidance: float = GUIDANCE,
        rope: RopeScaling = UNSCALED,
        attend: Attends = None,
        proportional: bool = True,
    ) -> Velocity:
        """What a sampler follows.

        Args:
            guidance: How closely to follow the prompts. 1 does not guide.
            rope: How positions are read.
            attend: Attention to tokens.
            proportional: Scale attention with the number of tokens.
        """
        is_guided = guidance != 1
        rows = slice(None) if is_guided else slice(self.count)
        features, mask = self.features[rows], self.mask[rows]
        cache = self.cache if is_guided else StepCache()

        @torch.no_grad()
        def plain(x: Tensor, t: Tensor) -> Tensor:
            base = {"base_sequence_length": TRAINED_TOKENS} if proportional else {}
            output = self.network(
                x,
                t.expand(len(x)),
                features,
                mask,
                cross_attention_kwargs=base,
                return_dict=False,
                cache=cache,
                rope=rope,
                attend=attend,
            )[0]
            return output[:, : x.shape[1]]

        if not is_guided:
            return plain
        return guide(plain, Guidance(scale=guidance, channels=GUIDED_CHANNELS))
