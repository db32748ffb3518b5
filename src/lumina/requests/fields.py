"""Fields and rules that the requests of several tasks have."""

from collections.abc import Callable, Sequence
from typing import Any

from lumina.errors import LuminaError
from lumina.requests.sampling import STOCHASTIC, TextRequest
from lumina.requests.sizes import check_size
from lumina.settings import setting

STRENGTH = 0.6
"""How much of the way to noise a picture is brought back, where nobody says it."""


def check_prompt(text: str) -> None:
    """Refuse a prompt that says nothing."""
    if not text.strip():
        raise LuminaError("the prompt is empty", hint='say what to make: "a red apple"')


def check_prompt_of(flag: str) -> Callable[[str], None]:
    """What refuses a prompt of a flag that says nothing."""

    def check(text: str) -> None:
        if not text.strip():
            raise LuminaError(
                f"{flag}: the prompt is empty", hint=f"say something, or leave {flag} out"
            )

    return check


def check_texts(texts: Sequence[str]) -> None:
    """Refuse prompts of which one says nothing."""
    for text in texts:
        check_prompt(text)


def check_file(path: str) -> None:
    """Refuse a file without a name."""
    if not path:
        raise LuminaError("no picture is given", hint="name a file: photo.png")


def prompt_setting(help: str = "what to draw") -> Any:  # noqa: A002
    """A prompt, given as a word."""
    return setting("", help, metavar="PROMPT", separator="|", is_word=True, check=check_prompt)


def prompts_setting(help: str) -> Any:  # noqa: A002
    """Several prompts, given as words."""
    return setting((), help, metavar="PROMPT", is_word=True, separator="|", check=check_texts)


def file_setting(help: str, metavar: str) -> Any:  # noqa: A002
    """A picture in a file, given as a word."""
    return setting("", help, metavar=metavar, is_word=True, check=check_file)


def picture_size_setting() -> Any:
    """A size that is usually that of a picture."""
    return setting(
        None,
        "width and height (default: those of the picture)",
        unit="pixels",
        metavar="WxH",
        check=check_size,
    )


def size_setting() -> Any:
    """A size that nothing else says."""
    return setting(None, "width and height", unit="pixels", metavar="WxH", check=check_size)


def strength_setting(help: str) -> Any:  # noqa: A002
    """How far a picture is brought back to noise."""
    return setting(None, help, above=0, le=1, step=0.05)


def refuse_missing_size(request: TextRequest) -> None:
    """Refuse a request that needs a size and has none."""
    if request.size is None:
        raise LuminaError("the size is not given", hint="say how large to make it: --size 256x128")


def hold_setting() -> Any:
    """How firmly a large picture holds to the small one."""
    return setting(
        None,
        "how firmly to hold to the small picture, from 0: not at all (default: 1)",
        ge=0,
        le=1,
        step=0.1,
    )


def refuse_noise(request: TextRequest) -> None:
    """Refuse solvers that add noise, for tasks that go by the noise of the beginning."""
    if request.solver in STOCHASTIC:
        raise LuminaError(
            f"the solver {request.solver} adds noise on the way, and this task goes by the noise"
            " that a picture began with",
            hint="take another solver",
        )
