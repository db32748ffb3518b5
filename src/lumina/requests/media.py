"""Requests for clips and other media, by models that make those."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from lumina.errors import LuminaError
from lumina.requests.fields import check_prompt, prompt_setting
from lumina.requests.sampling import ImageRequest, Rule
from lumina.requests.sizes import check_size
from lumina.settings import setting
from lumina.spelling import SPEEDS, VOICES, read_letters


@dataclass(frozen=True, kw_only=True)
class MediaRequest(ImageRequest):
    """One medium from a prompt."""

    prompt: str = prompt_setting()
    negative: str = setting("", "what to keep out of it", metavar="TEXT", separator="|")
    size: str | None = setting(None, "not for this model", metavar="WxH", check=check_size)

    @property
    def fits_any_size(self) -> bool:
        """Whether the pipeline knows what is usual."""
        return True


def _refuse_two_beginnings(request: "TextToVideo") -> None:
    if request.first and request.to_prompt:
        raise LuminaError(
            "first frames and a transition cannot both decide how a clip begins",
            hint="leave --first or --to-prompt out",
        )


def _check_files(paths: Sequence[str]) -> None:
    for path in paths:
        if not path:
            raise LuminaError("a picture has no name", hint="name a file: --first photo.png")


@dataclass(frozen=True, kw_only=True)
class TextToVideo(MediaRequest):
    """Make clips from prompts, by models of clips."""

    rules: ClassVar[tuple[Rule, ...]] = (*MediaRequest.rules, _refuse_two_beginnings)
    endings: ClassVar[tuple[str, ...]] = (".mp4", ".gif")

    size: str | None = setting(
        None,
        "width and height (default: what suits the model)",
        unit="pixels",
        metavar="WxH",
        check=check_size,
    )
    frames: int | None = setting(
        None, "frames of a clip (default: what suits the model)", ge=1, le=128
    )
    first: tuple[str, ...] = setting(
        (),
        "a picture that a clip begins with; given again, the next one; a clip is gone on with",
        metavar="FILE",
        separator="|",
        check=_check_files,
    )
    to_prompt: str | None = setting(
        None, "what the clip turns into, without a cut", metavar="PROMPT", check=check_prompt
    )


@dataclass(frozen=True, kw_only=True)
class TextToPoints(MediaRequest):
    """Make point clouds from prompts, by models of points."""

    endings: ClassVar[tuple[str, ...]] = (".ply", ".html", ".png")

    points: int | None = setting(
        None, "points of a cloud (default: what suits the model)", ge=256, le=8192
    )


@dataclass(frozen=True, kw_only=True)
class TextToSound(MediaRequest):
    """Make sounds from prompts, by models of sound."""

    endings: ClassVar[tuple[str, ...]] = (".wav", ".flac", ".png")

    seconds: float | None = setting(
        None, "length of a sound (default: what suits the model)", above=0, le=60
    )
    spectrogram: bool = setting(False, "write a picture of the spectrogram beside the file")


def _refuse_unspoken(request: "TextToSpeech") -> None:
    read_letters(request.prompt)
    if request.negative:
        read_letters(request.negative)


@dataclass(frozen=True, kw_only=True)
class TextToSpeech(MediaRequest):
    """Say sentences, by models of speech."""

    rules: ClassVar[tuple[Rule, ...]] = (*MediaRequest.rules, _refuse_unspoken)
    endings: ClassVar[tuple[str, ...]] = (".wav", ".flac", ".png")

    voice: str = setting(VOICES[0], "who says it", choices=VOICES)
    speed: float = setting(
        1.0, "how much faster than usual it is said", ge=SPEEDS[0], le=SPEEDS[1], step=0.05
    )
    spectrogram: bool = setting(False, "write a picture of the spectrogram beside the file")


OF_MODALITIES: dict[str, type[MediaRequest]] = {
    "points": TextToPoints,
    "sound": TextToSound,
    "speech": TextToSpeech,
    "video": TextToVideo,
}
"""What models of each modality but pictures are asked by."""
