"""What can be asked for: one dataclass of settings for each task.

Nothing heavy is imported here, so that `lumina --help` answers at once.
"""

from lumina.requests.adapters import Adapter, read_adapter
from lumina.requests.composing import Compose, read_cells
from lumina.requests.drawing import (
    Anagram,
    ClassToImage,
    Interpolate,
    Panorama,
    StyleSet,
    TextToImage,
    Tile,
    read_view,
)
from lumina.requests.editing import EditImage, InpaintImage, OutpaintImage, UpscaleImage, VaryImage
from lumina.requests.fields import STRENGTH
from lumina.requests.media import OF_MODALITIES, MediaRequest, TextToPoints, TextToVideo
from lumina.requests.sampling import (
    ADAPTIVE,
    CONTEXT_DROPS,
    DIFFUSIONS,
    DTYPES,
    EXTRAPOLATIONS,
    LAST_STEPS,
    MULTISTEP,
    PRESETS,
    SCALES,
    SCHEDULER_SETTINGS,
    SCHEDULES,
    SOLVERS,
    STOCHASTIC,
    ImageRequest,
    TextRequest,
    check_increasing,
    check_steps,
    steps_left,
)
from lumina.requests.sizes import (
    SIZE_MULTIPLE,
    check_larger,
    check_size,
    nearest_size,
    read_axes,
    read_place,
    read_size,
)

__all__ = [
    "ADAPTIVE",
    "CONTEXT_DROPS",
    "DIFFUSIONS",
    "DTYPES",
    "EXTRAPOLATIONS",
    "LAST_STEPS",
    "MULTISTEP",
    "OF_MODALITIES",
    "PRESETS",
    "SCALES",
    "SCHEDULER_SETTINGS",
    "SCHEDULES",
    "SIZE_MULTIPLE",
    "SOLVERS",
    "STOCHASTIC",
    "STRENGTH",
    "Adapter",
    "Anagram",
    "ClassToImage",
    "Compose",
    "EditImage",
    "ImageRequest",
    "InpaintImage",
    "Interpolate",
    "MediaRequest",
    "OutpaintImage",
    "Panorama",
    "StyleSet",
    "TextRequest",
    "TextToImage",
    "TextToPoints",
    "TextToVideo",
    "Tile",
    "UpscaleImage",
    "VaryImage",
    "check_increasing",
    "check_larger",
    "check_size",
    "check_steps",
    "nearest_size",
    "read_adapter",
    "read_axes",
    "read_cells",
    "read_place",
    "read_size",
    "read_view",
    "steps_left",
]
