"""Training of a student that needs few evaluations, from where a teacher's guided flow leads.

The teacher is followed once from each of many noises to its picture, with guidance and in small
steps. The student learns to go straight there. Its velocity at pure noise is then the teacher's
whole flow map in one step. Where several steps are taken, it learns, from where its own steps have
led it, to go straight on to the same picture, and so mends what the first ones got wrong. Guidance
is part of what was learned: the student is sampled without, by Euler's steps, and is a Next-DiT
like its teacher, so that whatever loads one loads the other.

Source:
    Rectified flow, arXiv:2209.03003, section 2.2; with a guided teacher of text to images,
    InstaFlow, arXiv:2309.06380, section 3. Both train on all points of the straight lines from
    noise to data. Here they are those that samplers of few equal steps come to, since no other is
    ever asked for: times at which such a sampler stops, and points to which the student itself
    leads (as DAgger has it, arXiv:1011.0686), which lie beside the line as far as it errs.
"""

import copy
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
import torch.distributed as dist
from jaxtyping import Float, Int, Shaped
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lumina.backbones.next_dit import NextDiT
from lumina.catalog import Checkpoint, find, load
from lumina.checkpoints.folder import INDEX, MADE_BY, read_json
from lumina.devices import move
from lumina.errors import LuminaError
from lumina.flow.scheduler import FlowSolverScheduler
from lumina.media import make_grid
from lumina.pipelines.text_to_image import LuminaPipeline
from lumina.training.alignment import draw_caption
from lumina.training.recipes import FewStepsRecipe
from lumina.training.sharding import ALONE, Share, own_share
from lumina.worlds.captions import draw_brief
from lumina.worlds.references import load_references

TEACHER_MADE_BY = "teacher.json"
"""File beside the student's weights that says which run made the teacher's."""

AT_ONCE = 64
"""Ways of the teacher that are followed together, and kept in one file."""

PREVIEWS = 16


class Ways(NamedTuple):
    """Both ends of ways of the teacher, and what they were asked for."""

    noise: Float[Tensor, "b c rows cols"]
    data: Float[Tensor, "b c rows cols"]
    captions: list[str]


class Chords(NamedTuple):
    """Ways, how far on them to train, and the text as the network reads it."""

    noise: Float[Tensor, "b c rows cols"]
    data: Float[Tensor, "b c rows cols"]
    steps: Int[Tensor, " b"]
    """In how many equal steps a sampler goes this way."""
    taken: Int[Tensor, " b"]
    """How many of these it has taken."""
    features: Float[Tensor, "b m d"]
    mask: Shaped[Tensor, "b m"]


class FewStepsObjective:
    """Go straight to where the teacher's guided flow leads, from wherever the student has come."""

    def __init__(self, recipe: FewStepsRecipe):
        self.recipe = recipe
        self.checkpoint = _find_teacher(recipe.teacher)
        self.things, _ = load_references(self.checkpoint.folder)
        self.pipeline: LuminaPipeline = cast(
            LuminaPipeline, load(self.checkpoint.folder, device=recipe.device)
        )
        self.pipeline.scheduler = FlowSolverScheduler(solver=recipe.solver)
        self.scheduler = FlowSolverScheduler(solver="euler")
        self.pipeline.set_progress_bar_config(disable=True)
        self.module = NextDiT.from_pretrained(self.checkpoint.folder, subfolder="transformer")
        chunks = -(-recipe.ways // AT_ONCE)
        self._make_missing(chunks + 1)
        self.ways = _join([self._load(number) for number in range(chunks)])
        self.unseen = self._load(chunks)

    def batch(self, number: int, share: Share = ALONE) -> Chords:
        """Some ways, each up to where a sampler of few steps stops."""
        rng = np.random.default_rng((self.recipe.seed, 3, number))
        chosen = rng.integers(len(self.ways.captions), size=self.recipe.batch_size)
        stops = draw_stops(rng, self.recipe.batch_size, most=self.recipe.evaluations)
        return share.take(self._chords(_take(self.ways, chosen), *stops))

    def loss(self, batch: Chords, step: int) -> tuple[Tensor, dict[str, float]]:
        """Mean squared error of the velocity that leads straight to the teacher's picture."""
        times = batch.taken / batch.steps
        points = self._arrive(batch)
        target = (batch.data - points) / (1 - times).view(-1, 1, 1, 1)
        found = self._velocity(batch.features, batch.mask, points, times)
        return (found.float() - target).square().mean(), {"samples": len(batch.data)}

    def to(self, device: torch.device) -> None:
        """Move the weights, and what else the loss needs."""
        nn.Module.to(self.module, device)
        self.pipeline.to(device)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Relative error of pictures in most steps and in one, on ways that no step sees."""
        errors = {}
        for name, steps in (("validation", self.recipe.evaluations), ("validation_1", 1)):
            counts = torch.full((len(self.unseen.captions),), steps)
            batch = self._chords(self.unseen, counts, counts)
            batch = move(batch, next(self.module.parameters()).device)
            error = (self._arrive(batch) - batch.data).square().mean() / batch.data.square().mean()
            errors[name] = error.sqrt().item()
        return errors

    @torch.no_grad()
    def preview(self, folder: Path, step: int) -> None:
        """Pictures on ways that no step sees, in as many steps as the student may take."""
        captions = self.unseen.captions[:PREVIEWS]
        student: Any = LuminaPipeline.from_pipe(
            self.pipeline, transformer=self.module, scheduler=self.scheduler
        )
        student.set_progress_bar_config(disable=True)
        output = student(
            captions,
            latents=self.unseen.noise[:PREVIEWS].to(student.device),
            num_inference_steps=self.recipe.evaluations,
            guidance_scale=1.0,
        )
        make_grid(output.images, captions).save(folder / f"step-{step:06d}.png")

    def export(self, folder: Path) -> None:
        """Write the teacher's checkpoint with the student in the place of its network.

        Its scheduler stops at the times that the student was trained at, and ends at data: those of
        diffusers leave a thousandth of the noise to the last step, and spread the others over the
        rest.
        """
        shutil.copytree(self.checkpoint.folder, folder, dirs_exist_ok=True)
        if (folder / MADE_BY).exists():
            (folder / MADE_BY).replace(folder / TEACHER_MADE_BY)
        for weights in (folder / "transformer").glob("*.safetensors*"):
            weights.unlink()
        module = copy.deepcopy(self.module)
        nn.Module.to(module, torch.float16)  # diffusers' own would warn, of nothing
        module.save_pretrained(folder / "transformer")
        self.scheduler.save_pretrained(folder / "scheduler")
        index = read_json(folder / INDEX)
        index["scheduler"] = [FlowSolverScheduler.__module__, FlowSolverScheduler.__name__]
        (folder / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")

    @torch.no_grad()
    def _arrive(self, batch: Chords) -> Float[Tensor, "b c rows cols"]:
        """Where the student's own steps lead, each sample as many as it has taken."""
        points = batch.noise.clone()
        most = self.recipe.evaluations
        # As often on all processes, since those that share weights wait for each other.
        for number in range(most if batch.taken.eq(batch.steps).all() else most - 1):
            going = batch.taken > number
            rows = going if going.any() else torch.arange(1, device=going.device)
            times = number / batch.steps[rows]
            found = self._velocity(batch.features[rows], batch.mask[rows], points[rows], times)
            if going.any():
                points[rows] += found.float() / batch.steps[rows].view(-1, 1, 1, 1)
        return points

    def _velocity(
        self,
        features: Float[Tensor, "b m d"],
        mask: Shaped[Tensor, "b m"],
        points: Float[Tensor, "b c rows cols"],
        times: Float[Tensor, " b"],
    ) -> Float[Tensor, "b c rows cols"]:
        output = self.module(points, times, features, mask, return_dict=False)[0]
        return output[:, : points.shape[1]]

    @torch.no_grad()
    def _chords(self, ways: Ways, steps: Int[Tensor, " b"], taken: Int[Tensor, " b"]) -> Chords:
        features, mask, *_ = self.pipeline.encode_prompt(ways.captions, False)
        return Chords(ways.noise, ways.data, steps, taken, features.float(), mask)

    def _make_missing(self, chunks: int) -> None:
        """Follow the ways that are not in the run's folder yet, each process some of them."""
        share = own_share()
        for number in range(share.number, chunks, share.count):
            if not self._path(number).exists():
                self._follow(number)
        if share.count > 1:
            dist.barrier()

    @torch.no_grad()
    def _follow(self, number: int) -> None:
        noise, captions = self._begin(number)
        found: Any = self.pipeline(
            captions,
            latents=noise,
            num_inference_steps=self.recipe.teacher_steps,
            guidance_scale=self.recipe.guidance,
            output_type="latent",
        )
        path = self._path(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".partial")
        save_file({"data": found.images.half().cpu().contiguous()}, unfinished)
        unfinished.replace(path)

    def _load(self, number: int) -> Ways:
        noise, captions = self._begin(number)
        return Ways(noise, load_file(self._path(number))["data"].float(), captions)

    def _begin(self, number: int) -> tuple[Float[Tensor, "b c rows cols"], list[str]]:
        """Noise and captions of some ways; no caption asks for a combination that is held out."""
        recipe = self.recipe
        rng = np.random.default_rng((recipe.seed, 9, number))
        briefs = [draw_brief(rng, self.things, pairs=recipe.pairs) for _ in range(AT_ONCE)]
        captions = [draw_caption(brief, rng, foreign=recipe.foreign) for brief in briefs]
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        side = self.module.config["sample_size"]
        shape = (AT_ONCE, self.module.config["in_channels"], side, side)
        return torch.randn(shape, generator=generator), captions

    def _path(self, number: int) -> Path:
        recipe = self.recipe
        asked = [self.checkpoint.fingerprint(), self.things, recipe.seed, recipe.pairs]
        asked += [recipe.foreign, recipe.teacher_steps, recipe.solver, recipe.guidance]
        key = hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:12]
        return Path(recipe.out) / f"ways-{key}" / f"{number:05d}.safetensors"


def draw_stops(
    rng: np.random.Generator, count: int, *, most: int
) -> tuple[Int[Tensor, " b"], Int[Tensor, " b"]]:
    """Where samplers of 1 to `most` equal steps ask for a velocity, as often as they do.

    Args:
        rng: Source of chance.
        count: How many to draw.
        most: Steps of the sampler with the most; each number of steps comes up equally often.

    Returns:
        The numbers of steps, and how many of these have been taken.
    """
    steps = rng.integers(1, most + 1, size=count)
    return torch.from_numpy(steps), torch.from_numpy(rng.integers(steps))


def _find_teacher(name: str) -> Checkpoint:
    checkpoint = find(name)
    if checkpoint.is_network or checkpoint.is_sequence or checkpoint.classes is not None:
        raise LuminaError(
            f"{name} is no whole text-to-image model with a Next-DiT",
            hint="teacher names a model such as lumina-mini, or the folder of a flow run's `last`",
        )
    return checkpoint


def _take(ways: Ways, chosen: np.ndarray) -> Ways:
    rows = torch.from_numpy(chosen)
    return Ways(ways.noise[rows], ways.data[rows], [ways.captions[index] for index in chosen])


def _join(parts: list[Ways]) -> Ways:
    noise = torch.cat([part.noise for part in parts])
    data = torch.cat([part.data for part in parts])
    return Ways(noise, data, [caption for part in parts for caption in part.captions])
