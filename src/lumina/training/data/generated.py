"""Pictures that are painted when they are needed, each described by a few numbers."""

import functools
import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from PIL import Image

from lumina.encoders.cleaning import clean_caption
from lumina.requests import read_axes, read_size
from lumina.training.alignment import draw_caption
from lumina.training.data.examples import Example, Found, Written
from lumina.training.data.report import Report
from lumina.training.data.sources import DrawingsSource, ShapesSource, WorldSource
from lumina.types import Size
from lumina.worlds import World, find_world
from lumina.worlds.captions import Brief, draw_brief, stage, write
from lumina.worlds.drawings import Scene, find_font, paint
from lumina.worlds.shapes import CLASSES, Shape, draw_shape, paint_shape

SCENES, PICTURES, WORLD = 4, 8, 16
"""What tells the random numbers of scenes, shapes and worlds from those of other parts of a run."""


@dataclass(frozen=True)
class ScenePicture:
    """A scene of emoji at a size."""

    scene: Scene
    size: Size

    def open(self) -> Image.Image:
        """The painted scene."""
        return paint(self.scene, self.size)

    def digest(self) -> str:
        """Hash of the scene, its size, and the font with the drawings."""
        return _digest_of(["scene", asdict(self.scene), self.size, _font_digest()])


@dataclass(frozen=True)
class SceneCaptions:
    """All that languages can say of a brief, in other words each time.

    Args:
        brief: What the scene answers.
        foreign: Share of captions in other languages than English, where they can say it.
    """

    brief: Brief
    foreign: float

    def every(self) -> tuple[str, ...]:
        """Captions in all languages that are drawn, in English with articles and without."""
        brief = self.brief
        with_article = [write(brief, language) for language in self._languages]
        without = write(brief, "en", with_article=False)
        return tuple(dict.fromkeys(map(clean_caption, [*with_article, without])))

    def draw(self, rng: np.random.Generator) -> str:
        """One of them, in English as often as asked."""
        return draw_caption(self.brief, rng, foreign=self.foreign)

    @property
    def _languages(self) -> tuple[str, ...]:
        return self.brief.languages if self.foreign else ("en",)


@dataclass(frozen=True)
class ShapePicture:
    """A shape on white, in a square of so many pixels a side."""

    shape: Shape
    side: int

    @property
    def size(self) -> Size:
        """Width and height."""
        return Size(self.side, self.side)

    def open(self) -> Image.Image:
        """The painted shape."""
        return Image.fromarray(paint_shape(self.shape, self.side))

    def digest(self) -> str:
        """Hash of the shape and the side."""
        return _digest_of(["shape", self.shape, self.side])


def find_scenes(source: DrawingsSource, things: list[str]) -> Found:
    """Scenes of each size, by number; a number has the same scene at all sizes.

    Args:
        source: How many, of which sizes, and what they show.
        things: Emoji to draw.
    """
    examples = []
    for text in source.sizes:
        size = Size(*read_size(text))
        examples += [_scene(source, things, size, number) for number in range(source.scenes)]
    return Found(examples, Report(source.title, found=len(examples)))


def find_shapes(source: ShapesSource) -> Found:
    """Pictures of shapes, classes in turn, captioned as "a red disc"."""
    examples = [_shape(source, number) for number in range(source.pictures)]
    return Found(examples, Report(source.title, found=len(examples)))


def _scene(source: DrawingsSource, things: list[str], size: Size, number: int) -> Example:
    rng = np.random.default_rng((source.seed, SCENES, number))
    brief = draw_brief(rng, things, pairs=source.pairs, grounds=source.grounds)
    picture = ScenePicture(stage(brief, rng), size)
    origin = f"{source.seed}-{number}"
    key = f"{size.width}x{size.height} {origin}"
    return Example(key, picture, SceneCaptions(brief, source.foreign), origin=origin)


def _shape(source: ShapesSource, number: int) -> Example:
    rng = np.random.default_rng((source.seed, PICTURES, number))
    label = number % CLASSES
    shape = draw_shape(rng, label)
    picture = ShapePicture(shape, source.side)
    return Example(
        f"{source.seed}-{number}", picture, Written((f"a {shape.color} {shape.kind}",)), label
    )


@dataclass(frozen=True)
class Made:
    """What a world makes of a brief, at a size."""

    world: World
    brief: Any
    size: tuple[int, ...]

    def open(self) -> np.ndarray:
        """The clip, sound ..."""
        return self.world.make(self.brief, self.size)

    def digest(self) -> str:
        """Hash of the brief, the size and the world."""
        return _digest_of([self.world.digest(), asdict(self.brief), self.size])


def find_in_world(source: WorldSource) -> Found:
    """Examples of each size, by number; each size has its own.

    Raises:
        LuminaError: If a size is written wrongly.
    """
    world = find_world(source.world, source.settings)
    sizes = [read_axes(text) for text in source.sizes] or list(world.sizes)
    examples = []
    for size in sizes:
        for number in range(source.examples):
            rng = np.random.default_rng((source.seed, WORLD, *size, number))
            brief = world.draw(rng)
            key = f"{'x'.join(map(str, size))} {source.seed}-{number}"
            captions = tuple(map(clean_caption, world.captions(brief)))
            label = getattr(brief, "label", None)
            examples.append(Example(key, Made(world, brief, size), Written(captions), label))
    return Found(examples, Report(source.title, found=len(examples)))


def _digest_of(description: list[Any]) -> str:
    return hashlib.sha256(json.dumps(description, ensure_ascii=False).encode()).hexdigest()


@functools.cache
def _font_digest() -> str:
    with find_font().open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
