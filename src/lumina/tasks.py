"""What each task calls: its request, its pipeline, and how the one becomes a call of the other.

A task is one entry of `TASKS`, one request in `lumina.requests`, and one file of
`lumina.pipelines`. The command line, files and their records follow from these.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lumina.catalog import PIXELS_PER_LATENT
from lumina.errors import LuminaError
from lumina.regions import Place, draw_box, read_region, refuse_overlap
from lumina.requests import (
    SCHEDULER_SETTINGS,
    STOCHASTIC,
    Anagram,
    ClassToImage,
    Compose,
    EditImage,
    ImageRequest,
    InpaintImage,
    Interpolate,
    MediaRequest,
    OutpaintImage,
    Panorama,
    StyleSet,
    TextRequest,
    TextToImage,
    Tile,
    UpscaleImage,
    VaryImage,
    check_larger,
    nearest_size,
    read_cells,
    read_place,
    read_size,
    read_view,
)
from lumina.settings import names_of

if TYPE_CHECKING:
    from PIL.Image import Image

BORDER = 16
"""Width of the soft borders of regions, in pixels, as in `lumina.pipelines.compose`."""

Sides = tuple[int, int]
"""Width and height, in pixels."""

CLIPS = (".mp4", ".gif", ".mov", ".webm", ".mkv", ".avi")
"""Endings of files that are read as clips, not as pictures."""

WHITE = 128
"""From this gray of 255 on, a mask is white, as in `lumina.pipelines.pictures`."""


class Call(NamedTuple):
    """What makes the pictures of a request."""

    pipeline: str | None
    """A public name of lumina. None is the pipeline of the model itself."""
    arguments: dict[str, Any]
    """All but those of sampling, the size and the source of noise."""
    method: str = "__call__"
    generator: str = "generator"
    """The argument that takes the source of noise."""


class Pictures:
    """Pictures and clips that requests name, each read once.

    Args:
        tell: Gets what is done to them.
    """

    def __init__(self, tell: Callable[[str], None]):
        self._tell = tell
        self._known: dict[Any, Any] = {}

    def read(self, path: str, size: str | None) -> "Image":
        """A picture at a size. None leaves it as it is.

        Raises:
            LuminaError: If it cannot be read.
        """
        picture = self._once((path,), lambda: _open(path))
        if size is None or picture.size == read_size(size):
            return picture
        return self._once((path, size), lambda: self._resize(path, picture, size))

    def read_cropped(self, path: str, size: str) -> "Image":
        """A picture at a size, of which the middle is kept where its aspect ratio is another.

        Raises:
            LuminaError: If it cannot be read.
        """
        picture = self.read(path, None)
        return self._once((path, size), lambda: self._crop_all(path, [picture], size)[0])

    def nearest_size(self, path: str) -> str:
        """The size nearest to that of a picture that models can make."""
        return "{}x{}".format(*nearest_size(*self.read(path, None).size))

    def read_mask(self, path: str, *, size: Sides, original: Sides) -> "Image":
        """A mask of black and white for a picture.

        Args:
            path: Its file.
            size: Of the picture as it is worked on.
            original: Of the picture in its file, which the mask has to have, or that above.

        Raises:
            LuminaError: If it cannot be read, has another size, or nothing of it is white.
        """
        return self._once((path, size, original), lambda: self._fit_mask(path, size, original))

    def read_frames(
        self, paths: Sequence[str], size: str, most: int, *, rate: float
    ) -> "list[Image]":
        """Frames of pictures and clips, one after the other, at a size: the last of them.

        Args:
            paths: Files.
            size: Of the frames.
            most: How many are taken.
            rate: How many a second of a clip.

        Raises:
            LuminaError: If one cannot be read.
        """
        key = (tuple(paths), size, most, rate)
        return self._once(key, lambda: self._last_frames(paths, size, most, rate))

    def _last_frames(
        self, paths: Sequence[str], size: str, most: int, rate: float
    ) -> "list[Image]":
        # One more than is taken tells whether any is left out.
        frames = [frame for path in paths for frame in self._frames(path, size, most + 1, rate)]
        if len(frames) > most:
            self._tell(f"the last {most} of the first frames are taken")
        return frames[-most:]

    def _frames(self, path: str, size: str, most: int, rate: float) -> "list[Image]":
        """The picture of a file, or the last frames of its clip."""
        from PIL import Image

        if Path(path).suffix.lower() not in CLIPS:
            try:
                return [self.read_cropped(path, size)]
            except LuminaError as error:
                if Path(path).suffix.lower() in Image.registered_extensions():
                    raise
                hint = f"{error.hint}; or a clip, which ends in {', '.join(CLIPS)}"
                raise LuminaError(error.args[0], hint=hint) from error
        from lumina.media import refuse_missing_writer
        from lumina.media.video import read_last_frames

        refuse_missing_writer(Path("any.mp4"))
        clip = read_last_frames(Path(path), most, rate=rate)
        return self._crop_all(path, [Image.fromarray(frame) for frame in clip], size)

    def _crop_all(self, path: str, pictures: "list[Image]", size: str) -> "list[Image]":
        """Pictures of one size at another, without what has no place at its aspect ratio."""
        from PIL import ImageOps

        sides = read_size(size)
        width, height = pictures[0].size
        if (width, height) == sides:
            return pictures
        is_cropped = width * sides[1] != height * sides[0]
        how = "is cropped and resized" if is_cropped else "is resized"
        self._tell(f"{path} is {width}x{height} pixels, and {how} to {size}")
        return [ImageOps.fit(picture, sides, _lanczos()) for picture in pictures]

    def _once(self, key: Any, make: Callable[[], Any]) -> Any:
        if key not in self._known:
            self._known[key] = make()
        return self._known[key]

    def _resize(self, path: str, picture: "Image", size: str) -> "Image":
        self._tell(f"{path} is {picture.width}x{picture.height} pixels, and is resized to {size}")
        return picture.resize(read_size(size), _lanczos())

    def _fit_mask(self, path: str, size: Sides, original: Sides) -> "Image":
        gray = self._read_gray(path)
        if gray.size not in (size, original):
            raise LuminaError(
                f"the mask {path} is {gray.width}x{gray.height} pixels, and the picture"
                f" {original[0]}x{original[1]}",
                hint="give a mask of the size of the picture",
            )
        if sum(gray.histogram()[1:255]):
            self._tell(f"{path} has gray pixels: from {WHITE} of 255 on they count as white")
        mask = gray.point([0] * WHITE + [255] * (256 - WHITE)).resize(size, resample=0)
        if mask.getbbox() is None:
            raise LuminaError(
                f"nothing of the mask {path} is white",
                hint="paint white what is meant, and the rest black",
            )
        if mask.getextrema() == (255, 255):
            self._tell(f"all of the mask {path} is white")
        return mask

    def _read_gray(self, path: str) -> "Image":
        """A mask in grays. What is transparent is black."""
        picture = _open(path, behind="black")
        if picture.tobytes() != _open(path).tobytes():
            self._tell(f"{path} is transparent in places, which count as black")
        return picture.convert("L")


@dataclass(frozen=True, kw_only=True)
class Task:
    """A thing to do, and a subcommand.

    Args:
        request: What can be asked for.
        call: What makes it, for a request whose every setting is known. Raises a `LuminaError`
            if its files, or its settings with them, cannot be used.
        images: How many pictures are made where nobody says it.
    """

    request: type[TextRequest]
    call: Callable[[Any, Pictures], Call]
    images: int = 1
    remember: Callable[[Mapping[str, Any], Mapping[str, Any]], dict[str, Any]] | None = None
    """Settings that hold where nothing else was chosen, if lumina drew the picture that it begins
    from: out of those in its file, and those that were chosen."""


def call_of(request: ImageRequest, pictures: Pictures) -> Call:
    """What makes the pictures of a request.

    Raises:
        LuminaError: If its files, or its settings with them, cannot be used.
    """
    if isinstance(request, ClassToImage):
        return Call(None, {"class_labels": request.class_label} | _size(request))
    if isinstance(request, MediaRequest):
        return Call(None, {"prompt": request.prompt} | request.arguments(pictures))
    return task_of(request).call(request, pictures)


def name_of(request: ImageRequest) -> str:
    """The subcommand that a request is for."""
    if isinstance(request, ClassToImage | MediaRequest):
        return "generate"
    return next(name for name, task in TASKS.items() if task.request is type(request))


def task_of(request: ImageRequest) -> Task:
    """The task that a request is for."""
    return TASKS[name_of(request)]


def sampling_of(request: ImageRequest) -> dict[str, Any]:
    """Arguments of sampling that every pipeline of the request's kind takes.

    What was not asked for is left out: it is for the pipeline to say what is usual.
    """
    chosen: dict[str, Any] = {
        "num_inference_steps": request.steps,
        "guidance_scale": request.guidance,
    }
    if isinstance(request, MediaRequest):
        return chosen | {"negative_prompt": request.negative or None}
    if not isinstance(request, TextRequest):
        return chosen
    chosen |= {
        "negative_prompt": request.negative,
        # Schedulers of diffusers add the end by themselves.
        "sigmas": None if request.times is None else [1 - time for time in request.times[:-1]],
        "guidance_interval": request.guidance_interval,
        "guidance_rescale": request.guidance_rescale,
        "extrapolation": request.extrapolation,
        "scale_by": request.scale_by,
        "context_drop": request.context_drop,
    }
    chosen = {name: value for name, value in chosen.items() if value is not None}
    return chosen | ({"guided_channels": None} if request.guide_all else {})


def _draw(request: TextToImage, pictures: Pictures) -> Call:
    pipeline = "LuminaUpscalePipeline" if request.two_stage else None
    return Call(pipeline, {"prompt": request.prompt} | _size(request))


def _edit(request: EditImage, pictures: Pictures) -> Call:
    image = pictures.read(request.image, request.size)
    arguments = {"prompt": request.prompt, "image": image} | _given(strength=request.strength)
    if request.was is None:
        return Call("LuminaImg2ImgPipeline", arguments)
    return Call("LuminaRewritePipeline", arguments | {"source_prompt": request.was})


def _inpaint(request: InpaintImage, pictures: Pictures) -> Call:
    original = pictures.read(request.image, None).size
    size = original if request.size is None else read_size(request.size)
    mask = pictures.read_mask(request.mask, size=size, original=original)
    image = pictures.read(request.image, request.size)
    arguments = {"prompt": request.prompt, "image": image, "mask_image": mask}
    arguments |= _given(border=request.border, padding_mask_crop=request.crop)
    return Call("LuminaInpaintPipeline", arguments)


def _outpaint(request: OutpaintImage, pictures: Pictures) -> Call:
    from lumina.pipelines.inpaint import extend_canvas

    place = None if request.at is None else read_place(request.at)
    size = read_size(str(request.size))
    image, mask = extend_canvas(pictures.read(request.image, None), size, place)
    arguments = {"prompt": request.prompt, "image": image, "mask_image": mask}
    return Call("LuminaInpaintPipeline", arguments | _given(border=request.border))


def _upscale(request: UpscaleImage, pictures: Pictures) -> Call:
    image = pictures.read(request.image, None)
    check_larger(image.size, read_size(str(request.size)))
    arguments = {"prompt": request.prompt, "image": image} | _size(request)
    chosen = _given(strength=request.strength, hold=request.hold)
    return Call("LuminaUpscalePipeline", arguments | chosen)


def _vary(request: VaryImage, pictures: Pictures) -> Call:
    arguments = {"prompt": request.prompt, "amount": request.amount, "images": 1} | _size(request)
    if request.origin is None:
        arguments["image"] = pictures.read(request.image, request.size)
    else:
        arguments["origin"] = _seeded(request.origin)
    return Call("LuminaInterpolationPipeline", arguments, method="vary")


def _interpolate(request: Interpolate, pictures: Pictures) -> Call:
    arguments = {"prompts": list(request.prompts), "frames": request.frames} | _size(request)
    if request.to_seed is not None:
        sources = [_seeded(seed) for seed in (request.seed, request.to_seed)]
        arguments["generators"] = sources
    return Call("LuminaInterpolationPipeline", arguments, generator="generators")


def _compose(request: Compose, pictures: Pictures) -> Call:
    from lumina.pipelines.regions import Region, cover_all, grid_regions
    from lumina.types import Size

    size = read_size(str(request.size))
    places = [read_region(region) for region in request.regions]
    masks = [_cover(place, size, pictures) for place in places]
    for place, mask in zip(places, masks, strict=True):
        _refuse_thin(place, mask, BORDER if request.border is None else request.border)
    if not request.order:
        refuse_overlap([place.prompt for place in places], masks)
    regions = [
        Region(place.prompt, place.box, None if place.mask is None else mask.convert("L"))
        for place, mask in zip(places, masks, strict=True)
    ]
    if request.cells is not None:
        columns, rows = read_cells(request.cells)
        # What is named by its place lies over the grid.
        regions = grid_regions(rows, columns, request.prompts, size) + regions
    cover_all(regions, Size(*size))  # refuses what is hidden, before anything is loaded
    arguments = {"regions": regions, "prompt": request.prompt} | _size(request)
    chosen = _given(
        border=request.border,
        background=request.background,
        windows_until=request.windows_until,
    )
    return Call("LuminaComposePipeline", arguments | chosen)


def _style(request: StyleSet, pictures: Pictures) -> Call:
    arguments = {"prompts": list(request.prompts)} | _size(request)
    return Call(
        "LuminaStylePipeline", arguments | _given(sharing=request.sharing, shared=request.shared)
    )


def _turn(request: Anagram, pictures: Pictures) -> Call:
    from lumina.pipelines.views import check_view, find_view
    from lumina.types import Size

    views = [read_view(view) for view in request.views]
    size, on_pixels = Size(*read_size(str(request.size))), request.through != "latents"
    for name, _ in views:
        check_view(find_view(name), size, scale=PIXELS_PER_LATENT, on_pixels=on_pixels)
    arguments = {"views": views, "two_stage": request.two_stage} | _size(request)
    chosen = _given(through=request.through, strength=request.strength, hold=request.hold)
    return Call("LuminaAnagramPipeline", arguments | chosen)


def _panorama(request: Panorama, pictures: Pictures) -> Call:
    arguments = {"prompt": request.prompt, "wraps": "x" if request.around else "none"}
    arguments |= _size(request) | _given(overlap=request.overlap)
    return Call("LuminaPanoramaPipeline", arguments)


def _tile(request: Tile, pictures: Pictures) -> Call:
    arguments = {"prompt": request.prompt, "wraps": "both"}
    arguments |= _size(request) | _given(overlap=request.overlap)
    return Call("LuminaPanoramaPipeline", arguments)


def _remember_prompt(stored: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    return {"prompt": stored["prompt"]}


def _remember_origin(stored: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """All that the picture was made with, and the seed, as long as it means the same noise."""
    names = set(names_of(VaryImage)) - {"seed"}
    remembered = {name: value for name, value in stored.items() if name in names}
    is_other = any(given.get(name, stored[name]) != stored[name] for name in ("model", "size"))
    if stored.get("solver") in STOCHASTIC:  # variations take another, and go back to the noise
        return {name: remembered[name] for name in remembered if name not in SCHEDULER_SETTINGS}
    if is_other or stored.get("two_stage"):
        return remembered
    return remembered | {"origin": stored["seed"]}


TASKS = {
    "generate": Task(request=TextToImage, call=_draw),
    "edit": Task(request=EditImage, call=_edit),
    "inpaint": Task(request=InpaintImage, call=_inpaint),
    "outpaint": Task(request=OutpaintImage, call=_outpaint),
    "upscale": Task(request=UpscaleImage, call=_upscale, remember=_remember_prompt),
    "variations": Task(request=VaryImage, call=_vary, images=4, remember=_remember_origin),
    "interpolate": Task(request=Interpolate, call=_interpolate),
    "compose": Task(request=Compose, call=_compose),
    "style": Task(request=StyleSet, call=_style),
    "anagram": Task(request=Anagram, call=_turn),
    "panorama": Task(request=Panorama, call=_panorama),
    "tile": Task(request=Tile, call=_tile),
}
"""Tasks by subcommand."""


def _size(request: ImageRequest) -> dict[str, int]:
    width, height = read_size(str(request.size))
    return {"width": width, "height": height}


def _given(**arguments: Any) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if value is not None}


def _seeded(seed: int | None) -> Any:
    import torch

    return torch.Generator().manual_seed(seed or 0)


def _open(path: str, behind: str = "white") -> "Image":
    from lumina.media import open_picture

    return open_picture(Path(path), behind=behind)


def _lanczos() -> Any:
    from PIL import Image

    return Image.Resampling.LANCZOS


def _cover(place: Place, size: Sides, pictures: Pictures) -> "Image":
    """Where a region is, as a picture of black and white."""
    if place.box is None:
        return pictures.read_mask(str(place.mask), size=size, original=size).convert("1")
    return draw_box(place.box, size)


def _refuse_thin(place: Place, cover: "Image", border: int) -> None:
    """Refuse a region of which soft borders leave nothing."""
    left, top, right, bottom = cover.getbbox() or (0, 0, 0, 0)
    width, height = right - left, bottom - top
    if min(width, height) < border:
        raise LuminaError(
            f"the region of {place.prompt!r} has {width}x{height} pixels, which is narrower than"
            f" its soft border of {border}",
            hint=f"make it larger, or use --border {min(width, height) // 2}",
        )
