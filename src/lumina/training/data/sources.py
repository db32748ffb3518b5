"""Sources of training data as typed settings: the `[[data]]` tables of a recipe."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lumina.errors import LuminaError, UnknownNameError, refuse_missing_library
from lumina.media import refuse_missing_writer
from lumina.modalities import find_modality
from lumina.requests import read_axes, read_size
from lumina.settings import from_table, setting
from lumina.worlds import WORLDS, find_world

if TYPE_CHECKING:
    from lumina.training.data.examples import Found

OF_FILES = ("sound", "video", "points")
"""Modalities whose files can be trained on, besides pictures."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """What every source has."""

    name: str = setting("", "what reports call it")
    weight: float = setting(1.0, "how often it is drawn from, relative to the others", above=0)
    start: float = setting(0.0, "share of the run before it is drawn from", ge=0, le=1)
    until: float = setting(1.0, "share of the run after which it is drawn from no more", ge=0, le=1)
    loss_weight: float = setting(1.0, "how much its pictures count, relative to others", ge=0)
    crops: dict = setting({}, "sizes of its pictures, where they differ from those of the run")
    clean: bool = setting(
        True, "captions are lower-cased and freed of what the web left in them, as prompts are"
    )

    @property
    def modality(self) -> str:
        """What its examples are."""
        return "image"

    def check(self) -> None:
        """Refuse, before anything is read, what cannot be found.

        Raises:
            LuminaError: If a file, a folder or a library is missing.
        """
        raise NotImplementedError

    def find(self) -> "Found":
        """Its examples, for which the headers of pictures are read.

        Raises:
            LuminaError: If a list of pictures cannot be read.
        """
        raise NotImplementedError

    @property
    def title(self) -> str:
        """What reports call it."""
        return self.name or " ".join([kind_of(self), getattr(self, "path", "")]).strip()


@dataclass(frozen=True, kw_only=True)
class FolderSource(Source):
    """Pictures of a folder and those in it, with a .txt or .json file of captions beside each."""

    path: str = setting("", "the folder")
    caption: str = setting("", "caption of every picture that has no file of captions")

    def check(self) -> None:
        """Refuse a folder that is not there."""
        refuse_missing_folder(self.path)

    def find(self) -> "Found":
        """Its pictures, by name."""
        from lumina.training.data.folders import find_in_folder

        return find_in_folder(self)


@dataclass(frozen=True, kw_only=True)
class MediaSource(Source):
    """Sounds, clips or clouds of a folder and those in it, with captions as those of pictures."""

    path: str = setting("", "the folder")
    of: str = setting("sound", "what its files are", choices=OF_FILES)
    sizes: tuple[str, ...] = setting(
        (), "sizes that each is taken at: 192 frames of 16 ms, 64x64x8 of a clip, 256 points"
    )
    caption: str = setting("", "caption of every file that has no file of captions")

    @property
    def modality(self) -> str:
        """What its files are."""
        return self.of

    def check(self) -> None:
        """Refuse a folder that is not there, a library that is not, and sizes of another kind."""
        refuse_missing_folder(self.path)
        refuse_missing_writer(Path(f"any{find_modality(self.of).endings[0]}"))
        axes = find_modality(self.of).axes
        if not self.sizes or any(len(read_axes(size)) != len(axes) for size in self.sizes):
            raise LuminaError(
                f"sizes of {self.title} are {list(self.sizes)}", hint=f"give {' x '.join(axes)}"
            )

    def find(self) -> "Found":
        """Its files at each size, by name."""
        from lumina.training.data.folders import find_media

        return find_media(self)


@dataclass(frozen=True, kw_only=True)
class ClassesSource(Source):
    """A folder with a folder of pictures for each class, as ImageNet has them."""

    path: str = setting("", "the folder of folders")

    def check(self) -> None:
        """Refuse a folder that is not there."""
        refuse_missing_folder(self.path)

    def find(self) -> "Found":
        """Its pictures, by class and name."""
        from lumina.training.data.folders import find_classes

        return find_classes(self)


@dataclass(frozen=True, kw_only=True)
class JsonlSource(Source):
    """A file with a line of JSON for each picture."""

    path: str = setting("", "the .jsonl file")
    root: str = setting("", "folder that the pictures are in; that of the file where it is empty")
    image: str = setting("image", "field with the path of the picture")
    caption: str = setting("", "field with the captions; found by its usual names where empty")
    label: str = setting("label", "field with the number of the class, if there is one")

    def check(self) -> None:
        """Refuse a file or a folder that is not there."""
        refuse_missing_file(self.path)
        if self.root:
            refuse_missing_folder(self.root)

    def find(self) -> "Found":
        """Its pictures, by line."""
        from lumina.training.data.lists import find_in_jsonl

        return find_in_jsonl(self)


@dataclass(frozen=True, kw_only=True)
class OriginalSource(Source):
    """The data of a recipe of the original release: YAML that lists files of JSON."""

    path: str = setting("", "the .yaml file, with META")

    def check(self) -> None:
        """Refuse a file that is not there."""
        refuse_missing_file(self.path)

    def find(self) -> "Found":
        """Its pictures, by file and item."""
        from lumina.training.data.lists import find_in_original

        return find_in_original(self)


@dataclass(frozen=True, kw_only=True)
class DatasetsSource(Source):
    """Rows of a Hugging Face dataset."""

    path: str = setting("", "folder that `save_to_disk` wrote, or a name on the hub")
    split: str = setting("train", "which part of it")
    image: str = setting("image", "column of the pictures")
    caption: str = setting(
        "text",
        "column of the captions: a text or a list of texts; found by its usual names where empty",
    )
    label: str = setting("", "column of the numbers of classes, if there is one")

    def check(self) -> None:
        """Refuse a folder that is not there, and a missing library."""
        refuse_missing_library("datasets", extra="data")
        _refuse_unnamed(self.path)
        if self.path.startswith(("/", ".", "~")):
            refuse_missing_folder(self.path)

    def find(self) -> "Found":
        """Its rows, by number."""
        from lumina.training.data.rows import find_rows

        return find_rows(self)


@dataclass(frozen=True, kw_only=True)
class WebdatasetSource(Source):
    """Tar files in which files of one name are one example: 0001.jpg, 0001.txt, 0001.json."""

    path: str = setting("", "the .tar files, with * or {000..009} for several")

    def check(self) -> None:
        """Refuse files that are not there."""
        from lumina.training.data.shards import list_shards

        _refuse_unnamed(self.path)
        list_shards(self.path)

    def find(self) -> "Found":
        """Its pictures, by shard and place in it."""
        from lumina.training.data.shards import find_in_shards

        return find_in_shards(self)


@dataclass(frozen=True, kw_only=True)
class DrawingsSource(Source):
    """Scenes of emoji, painted when they are needed, with captions in fourteen languages."""

    scenes: int = setting(20000, "different scenes of each size", ge=1)
    sizes: tuple[str, ...] = setting(("128x128",), "sizes of the pictures")
    pairs: float = setting(0.15, "share of scenes that show two things", ge=0, le=1)
    grounds: float = setting(0.25, "share of those whose caption names a background", ge=0, le=1)
    foreign: float = setting(0.5, "share of captions not in English, where possible", ge=0, le=1)
    seed: int = setting(0, "seed of the scenes", ge=0)

    def check(self) -> None:
        """Refuse if the font or the names of the drawings are missing."""
        from lumina.worlds.drawings import find_font

        refuse_missing_library("emoji", extra="train")
        find_font()
        _refuse_bad_sizes(self.sizes)

    def find(self) -> "Found":
        """Its scenes, by number."""
        from lumina.training.data.generated import find_scenes
        from lumina.worlds.vocabulary import choose_things

        return find_scenes(self, choose_things()[0])


@dataclass(frozen=True, kw_only=True)
class ShapesSource(Source):
    """Pictures of one disc, square or triangle each, painted when they are needed."""

    pictures: int = setting(1200, "different pictures", ge=1)
    side: int = setting(64, "side of the pictures in pixels", ge=16)
    seed: int = setting(0, "seed of the pictures", ge=0)

    def check(self) -> None:
        """Refuse nothing: nothing is needed."""

    def find(self) -> "Found":
        """Its pictures, classes in turn."""
        from lumina.training.data.generated import find_shapes

        return find_shapes(self)


@dataclass(frozen=True, kw_only=True)
class WorldSource(Source):
    """Clips, sounds and other things that a world of this library makes, with captions."""

    world: str = setting("", "which world", choices=("", *WORLDS))
    examples: int = setting(10000, "different examples of each size", ge=1)
    sizes: tuple[str, ...] = setting((), "sizes, such as 96x96x8 for clips; its usual ones if none")
    seed: int = setting(0, "seed of the examples", ge=0)
    settings: dict = setting({}, "settings of the world itself")

    @property
    def modality(self) -> str:
        """That of the world."""
        return find_world(self.world, self.settings).modality

    def check(self) -> None:
        """Refuse if something that the world needs is missing."""
        find_world(self.world, self.settings).check()

    def find(self) -> "Found":
        """Its examples, by number."""
        from lumina.training.data.generated import find_in_world

        return find_in_world(self)


KINDS: dict[str, type[Source]] = {
    "folder": FolderSource,
    "media": MediaSource,
    "classes": ClassesSource,
    "jsonl": JsonlSource,
    "original": OriginalSource,
    "datasets": DatasetsSource,
    "webdataset": WebdatasetSource,
    "drawings": DrawingsSource,
    "shapes": ShapesSource,
    "world": WorldSource,
}
"""Sources by the `kind` of their table."""


def read_sources(tables: Sequence[Mapping[str, Any]]) -> list[Source]:
    """Sources from the `[[data]]` tables of a recipe.

    Raises:
        LuminaError: If there are none, or a setting is unknown or out of its range.
    """
    if not tables:
        raise LuminaError("no data are named", hint='add a table: [[data]], kind = "folder", ...')
    return [read_source(table) for table in tables]


def read_source(table: Mapping[str, Any]) -> Source:
    """One source from its table.

    Raises:
        LuminaError: If the kind is missing, or a setting is unknown or out of its range.
    """
    name = table.get("kind")
    if name is None:
        raise LuminaError("[[data]] has no kind", hint=f"choose one of {', '.join(KINDS)}")
    if name not in KINDS:
        raise UnknownNameError.among(KINDS, str(name), kind="kind of data")
    return from_table(KINDS[name], {key: value for key, value in table.items() if key != "kind"})


def check_sources(sources: Sequence[Source]) -> None:
    """Refuse, before anything is read, what cannot be found.

    Raises:
        LuminaError: If a file, a folder or a library is missing.
    """
    for source in sources:
        source.check()


def find_examples(sources: Sequence[Source], *, of_classes: bool = False) -> "list[Found]":
    """What there is in each source, after all of them have been checked.

    Args:
        sources: Where to look.
        of_classes: Whether classes are trained on. Else examples without a caption are left out.

    Raises:
        LuminaError: If something is missing, or a source has no example to train on.
    """
    check_sources(sources)
    found = [source.find() for source in sources]
    if not of_classes:
        found = [_without_uncaptioned(one) for one in found]
    for _, report in found:
        report.refuse_unusable()
    return found


def kind_of(source: Source) -> str:
    """The kind that the table of a source names."""
    return next(name for name, kind in KINDS.items() if type(source) is kind)


def refuse_missing_folder(path: str) -> None:
    """Raise a `LuminaError` if there is no such folder."""
    _refuse_missing(path, "folder", Path.is_dir)


def refuse_missing_file(path: str) -> None:
    """Raise a `LuminaError` if there is no such file."""
    _refuse_missing(path, "file", Path.is_file)


def _without_uncaptioned(found: "Found") -> "Found":
    """Examples of which something is said, and an account of the others."""
    from lumina.training.data.examples import Written

    nothing, report = Written(()), found.report.copy()
    report.without_caption += [one.key for one in found.examples if one.captions == nothing]
    examples = [one for one in found.examples if one.captions != nothing]
    return found._replace(examples=examples, report=report)


def _refuse_missing(path: str, what: str, is_there: Callable[[Path], bool]) -> None:
    _refuse_unnamed(path)
    if not is_there(Path(path).expanduser()):
        raise LuminaError(f"there is no {what} {path}", hint=f"it was looked for from {Path.cwd()}")


def _refuse_unnamed(path: str) -> None:
    if not path:
        raise LuminaError("a source has no path", hint='say where its data are: path = "..."')


def _refuse_bad_sizes(sizes: Sequence[str]) -> None:
    if not sizes:
        raise LuminaError("sizes is empty", hint='such as sizes = ["128x128"]')
    for size in sizes:
        read_size(size)
