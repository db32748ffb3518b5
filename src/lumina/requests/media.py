"""Requests for clips and other media, by models that make those."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from lumina.errors import LuminaError
from lumina.requests.fields import check_file, check_prompt_of, prompt_setting
from lumina.requests.sampling import ImageRequest, Rule
from lumina.requests.sizes import check_size, read_size
from lumina.settings import setting
from lumina.spelling import SPEEDS, VOICES, read_letters

if TYPE_CHECKING:
    from lumina.tasks import Pictures

OF_TEXT = ("transformer", "vae", "text_encoder", "scheduler", "tokenizer")
"""Folders of a checkpoint that makes latents of an autoencoder from texts."""

FRAME_RATE = 8.0
"""Frames a second of clips, and of those that they are trained on and go on from."""

SECONDS_OF_FRAME = 0.016
"""Of the spectrogram of a sound."""


@dataclass(frozen=True, kw_only=True)
class MediaRequest(ImageRequest):
    """One medium from a prompt.

    A subclass is all that the command line, the catalog and checkpoints know of a modality.
    """

    has_size: ClassVar[bool] = False
    """Whether what it makes has a width and a height."""
    modality: ClassVar[str]
    """A name of `lumina.modalities`."""
    pipeline: ClassVar[str]
    """A public name of lumina."""
    parts: ClassVar[tuple[str, ...]] = OF_TEXT
    """Folders of its checkpoints."""
    hub_task: ClassVar[str]
    """What the Hugging Face hub calls what it does."""

    prompt: str = prompt_setting()
    negative: str = setting("", "what to keep out of it", metavar="TEXT", separator="|")
    size: str | None = setting(None, "not for this model", metavar="WxH", check=check_size)

    @property
    def fits_any_size(self) -> bool:
        """Whether the pipeline knows what is usual."""
        return True

    @staticmethod
    def usual(size: Sequence[int]) -> dict[str, Any]:
        """Settings that ask for the usual size of a pipeline."""
        raise NotImplementedError

    def arguments(self, pictures: "Pictures") -> dict[str, Any]:
        """Arguments of its pipeline, besides the prompt and those of sampling.

        Args:
            pictures: Reads files that it names.

        Raises:
            LuminaError: If one cannot be used.
        """
        raise NotImplementedError


def _size_setting() -> Any:
    return setting(
        None,
        "width and height (default: what suits the model)",
        unit="pixels",
        metavar="WxH",
        check=check_size,
    )


def _refuse_two_beginnings(request: "TextToVideo") -> None:
    if request.first and request.to_prompt:
        raise LuminaError(
            "first frames and a transition cannot both decide how a clip begins",
            hint="leave --first or --to-prompt out",
        )


def _refuse_lone_frame(request: "TextToVideo") -> None:
    if request.frames == 1 and (request.first or request.to_prompt):
        flag = "--first" if request.first else "--to-prompt"
        raise LuminaError(
            f"a clip of one frame has no room for what {flag} asks for",
            hint="ask for two frames or more",
        )


def _check_files(paths: Sequence[str]) -> None:
    for path in paths:
        if not path:
            raise LuminaError("a picture has no name", hint="name a file: --first photo.png")


@dataclass(frozen=True, kw_only=True)
class TextToVideo(MediaRequest):
    """Make clips from prompts, by models of clips."""

    rules: ClassVar[tuple[Rule, ...]] = (
        *MediaRequest.rules,
        _refuse_two_beginnings,
        _refuse_lone_frame,
    )
    has_size = True
    endings: ClassVar[tuple[str, ...]] = (".mp4", ".gif")
    modality = "video"
    pipeline = "LuminaVideoPipeline"
    hub_task = "text-to-video"

    size: str | None = _size_setting()
    frames: int | None = setting(
        None, "frames of a clip (default: what suits the model)", ge=1, le=128
    )
    first: tuple[str, ...] = setting(
        (),
        "a picture that a clip begins with; given again, the next one; of a clip the last"
        " frames, eight a second, up to half of those asked for",
        metavar="FILE",
        separator="|",
        check=_check_files,
    )
    to_prompt: str | None = setting(
        None,
        "what the clip turns into, without a cut",
        metavar="PROMPT",
        separator="|",
        check=check_prompt_of("--to-prompt"),
    )

    @staticmethod
    def usual(size: Sequence[int]) -> dict[str, Any]:
        """Of width, height and frames."""
        return {"size": f"{size[0]}x{size[1]}", "frames": size[2]}

    @property
    def pictures_at_once(self) -> int:
        """All frames."""
        return self.frames or 1

    def arguments(self, pictures: "Pictures") -> dict[str, Any]:
        """Size, frames, those that are known, and what follows."""
        width, height = read_size(str(self.size))
        chosen: dict[str, Any] = {"width": width, "height": height, "frames": self.frames}
        if self.first:
            most = max(1, (self.frames or 2) // 2)
            size = str(self.size)
            chosen["first_frames"] = pictures.read_frames(self.first, size, most, rate=FRAME_RATE)
        return chosen if self.to_prompt is None else chosen | {"to_prompt": self.to_prompt}


@dataclass(frozen=True, kw_only=True)
class TextToPoints(MediaRequest):
    """Make point clouds from prompts, by models of points."""

    endings: ClassVar[tuple[str, ...]] = (".ply", ".html", ".png")
    modality = "points"
    pipeline = "LuminaPointCloudPipeline"
    hub_task = "text-to-3d"
    parts = ("transformer", "text_encoder", "scheduler", "tokenizer")

    points: int | None = setting(
        None, "points of a cloud (default: what suits the model)", ge=256, le=8192
    )

    @staticmethod
    def usual(size: Sequence[int]) -> dict[str, Any]:
        """Of a number of points."""
        return {"points": size[0]}

    def arguments(self, pictures: "Pictures") -> dict[str, Any]:
        """How many points."""
        return {"points": self.points}


@dataclass(frozen=True, kw_only=True)
class _Heard:
    """What requests for anything that is heard have."""

    endings: ClassVar[tuple[str, ...]] = (".wav", ".flac", ".png")

    spectrogram: bool = setting(False, "write a picture of the spectrogram beside the file")

    def beside(self, path: Path) -> list[Path]:
        """The spectrogram, if it is wanted and is not the result itself."""
        picture = path.with_suffix(".png")
        return [picture] if self.spectrogram and picture != path else []


@dataclass(frozen=True, kw_only=True)
class TextToSound(_Heard, MediaRequest):
    """Make sounds from prompts, by models of sound."""

    modality = "sound"
    pipeline = "LuminaAudioPipeline"
    hub_task = "text-to-audio"
    parts = (*OF_TEXT, "vocoder")

    seconds: float | None = setting(
        None, "length of a sound (default: what suits the model)", ge=0.1, le=60
    )
    text_encoder: str | None = setting(
        None, "T5 of a model of the original release (default: its usual)", metavar="NAME|FOLDER"
    )

    @staticmethod
    def usual(size: Sequence[int]) -> dict[str, Any]:
        """Of a number of frames."""
        return {"seconds": size[0] * SECONDS_OF_FRAME}

    def arguments(self, pictures: "Pictures") -> dict[str, Any]:
        """How long it is."""
        return {"seconds": self.seconds}


def _refuse_unspoken(request: "TextToSpeech") -> None:
    read_letters(request.prompt)
    if request.negative:
        read_letters(request.negative)


@dataclass(frozen=True, kw_only=True)
class TextToSpeech(_Heard, MediaRequest):
    """Say sentences, by models of speech."""

    rules: ClassVar[tuple[Rule, ...]] = (*MediaRequest.rules, _refuse_unspoken)
    modality = "speech"
    pipeline = "LuminaSpeechPipeline"
    hub_task = "text-to-speech"
    parts = ("transformer", "vocoder", "scheduler")

    voice: str = setting(VOICES[0], "who says it", choices=VOICES)
    speed: float = setting(
        1.0, "how much faster than usual it is said", ge=SPEEDS[0], le=SPEEDS[1], step=0.05
    )

    @staticmethod
    def usual(size: Sequence[int]) -> dict[str, Any]:
        """Nothing: how long it is follows from what is said."""
        return {}

    def arguments(self, pictures: "Pictures") -> dict[str, Any]:
        """Who says it, and how fast."""
        return {"voice": self.voice, "speed": self.speed}


def _refuse_lone_view(request: "TextToMultiView") -> None:
    if request.image is not None and request.views == 1:
        raise LuminaError(
            "the one view is the picture that is given, and nothing is left to make",
            hint="ask for two views or more",
        )


@dataclass(frozen=True, kw_only=True)
class TextToMultiView(MediaRequest):
    """Make views of things from all around them, by models of views."""

    rules: ClassVar[tuple[Rule, ...]] = (*MediaRequest.rules, _refuse_lone_view)
    has_size = True
    endings: ClassVar[tuple[str, ...]] = (".png", ".gif")
    modality = "multiview"
    pipeline = "LuminaMultiViewPipeline"
    hub_task = "text-to-3d"

    size: str | None = _size_setting()
    views: int | None = setting(
        None, "views of a thing, from all around (default: what suits the model)", ge=1, le=8
    )
    image: str | None = setting(
        None, "a picture that is the first view", metavar="FILE", check=check_file
    )
    each: bool = setting(False, "write each view into a picture of its own, beside the file")

    @staticmethod
    def usual(size: Sequence[int]) -> dict[str, Any]:
        """Of width, height and views."""
        return {"size": f"{size[0]}x{size[1]}", "views": size[2]}

    @property
    def pictures_at_once(self) -> int:
        """All views."""
        return self.views or 1

    def arguments(self, pictures: "Pictures") -> dict[str, Any]:
        """Size, views, and the one that is known."""
        width, height = read_size(str(self.size))
        chosen: dict[str, Any] = {"width": width, "height": height, "views": self.views}
        if self.image is None:
            return chosen
        return chosen | {"image": pictures.read_cropped(self.image, str(self.size))}

    def beside(self, path: Path) -> list[Path]:
        """A file of each view, if they are wanted."""
        count = self.views or 0 if self.each else 0
        return [path.with_name(f"{path.stem}-view-{number + 1}.png") for number in range(count)]


OF_MODALITIES = {kind.modality: kind for kind in MediaRequest.__subclasses__()}
"""What models of each modality but pictures are asked by."""
