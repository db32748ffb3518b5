"""Flags of the command line: of fields of requests, and of the commands that have no request."""

import argparse
import dataclasses
import json
from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import Any, get_type_hints

from lumina.catalog import MODELS
from lumina.errors import LuminaError
from lumina.requests import (
    OF_MODALITIES,
    SCHEDULER_SETTINGS,
    ClassToImage,
    ImageRequest,
    TextRequest,
    TextToImage,
)
from lumina.settings import TEXTS, flags_of, is_list, names_of, read_setting, without_none
from lumina.tasks import TASKS

MEASURED = ("steps", "guidance", *SCHEDULER_SETTINGS)
"""Settings that models can be measured with."""

RECOGNIZER = "lumina-mini-recognition"
"""The model that tells what pictures show, where none is named."""

Command = argparse.ArgumentParser | argparse._ArgumentGroup


def add_task_flags(command: argparse.ArgumentParser, name: str) -> None:
    """Give a command the flags of a task: of its own, of its output, and of how to draw."""
    request = TASKS[name].request
    if name == "generate":
        command.add_argument(
            "prompt_words", nargs="*", metavar="PROMPT", help="what to draw, a picture each"
        )
        command.add_argument(
            "--prompts", dest="prompt_file", type=Path, metavar="FILE", help="one prompt a line"
        )
        add_flags(command, ClassToImage, set(names_of(ClassToImage)) - set(names_of(TextToImage)))
        known = set(names_of(TextToImage))
        for modality, kind in OF_MODALITIES.items():
            own = set(names_of(kind)) - known
            add_flags(command.add_argument_group(f"for models of {modality}"), kind, own)
            known |= own
    by_words = {"prompt"} if name == "generate" else set()
    set_by_model = {setting for model in MODELS.values() for setting in model.defaults}
    add_flags(
        command,
        request,
        set(names_of(request)) - set(names_of(TextRequest)) - by_words,
        set_by_model=set_by_model,
    )
    _add_output_flags(command, images=TASKS[name].images)
    add_flags(
        command.add_argument_group("how to draw"),
        request,
        set(names_of(TextRequest)),
        set_by_model=set_by_model,
    )


def add_recipe_words(command: argparse.ArgumentParser) -> None:
    """Give a command a recipe, and what is changed in it."""
    command.add_argument("recipe", type=Path, metavar="FILE", help="a TOML file of recipes/")
    command.add_argument("settings", nargs="*", metavar="key=value", help="changes to it")


def add_ray_flags(command: argparse.ArgumentParser, *, gpus: type[float]) -> None:
    """Give a command the workers of a Ray cluster.

    Args:
        command: Gets the flags.
        gpus: What GPUs of a worker are counted in: int, or float where workers may share one.
    """
    command.add_argument(
        "--ray", type=_read_workers, metavar="N", help="on N workers of a Ray cluster"
    )
    command.add_argument(
        "--gpus", type=gpus, metavar="G", help="GPUs of each worker (default: none)"
    )


def add_convert_flags(command: argparse.ArgumentParser) -> None:
    """Give a command what to convert, and into what."""
    command.add_argument("source", type=Path, metavar="SRC", help="a network in any format")
    command.add_argument("target", type=Path, metavar="DST", help="the file or folder to write")
    command.add_argument(
        "--to",
        choices=("diffusers", "original", "single"),
        help="the format (default: single if DST ends in .safetensors, else diffusers)",
    )
    command.add_argument("--dtype", metavar="bf16|fp16|fp32", help="type of the numbers")
    command.add_argument(
        "--max-shard", metavar="SIZE", help="largest file of a diffusers folder (default: 10GB)"
    )
    command.add_argument("--force", action="store_true", help="replace DST")
    add_config_flag(command)


def add_config_flag(command: argparse.ArgumentParser) -> None:
    """Give a command arguments of a network."""
    command.add_argument(
        "--config",
        type=_name_and_value,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an argument of the network that its weights do not tell: num_attention_heads=16",
    )


def add_reproduce_flags(command: argparse.ArgumentParser) -> None:
    """Give a command claims, and where their results go."""
    command.add_argument(
        "--claim",
        dest="claims",
        action="append",
        metavar="NAME",
        help="one of them; may be given again (default: all, which takes hours)",
    )
    command.add_argument(
        "--out",
        type=Path,
        default=Path(),
        metavar="FOLDER",
        help="where docs/claims.md and benchmarks/results/claims go (default: here)",
    )
    command.add_argument(
        "--runs",
        type=Path,
        metavar="FOLDER",
        help="where unfinished work is kept, to go on with (default: runs/claims in --out)",
    )


def add_recognize_flags(command: argparse.ArgumentParser) -> None:
    """Give a command pictures, and what to tell of them by which model."""
    command.add_argument("files", nargs="*", type=Path, metavar="FILE", help="pictures")
    command.add_argument(
        "--top", type=int, default=5, metavar="K", help="labels of each picture (default: 5)"
    )
    command.add_argument("--json", action="store_true", help="print JSON, not a table")
    command.add_argument(
        "--model",
        default=RECOGNIZER,
        metavar="NAME|FOLDER",
        help=f"what recognises (default: {RECOGNIZER})",
    )
    _add_place_flags(command)


def add_evaluate_flags(command: argparse.ArgumentParser) -> None:
    """Give a command a model to measure, by what and how."""
    command.add_argument("model", metavar="NAME|FOLDER", help="what to measure")
    command.add_argument("--names", type=int, metavar="N", help="how many things to ask for")
    command.add_argument(
        "--languages", type=_comma_separated, metavar="LIST", help="such as en,fr,ja (default: all)"
    )
    command.add_argument("--full", action="store_true", help="everything, which takes long")
    command.add_argument("--json", action="store_true", help="print JSON, not a table")
    _add_place_flags(command)
    command.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FOLDER",
        help="for some results and all numbers; an evaluation that was stopped goes on there"
        " (default: a new one here)",
    )
    chosen = command.add_argument_group("how to draw")
    add_flags(chosen, TextToImage, MEASURED, set_by_model={"steps"})


def add_flags(
    command: Command,
    kind: type[Any],
    names: Collection[str],
    *,
    set_by_model: Collection[str] = (),
) -> None:
    """Give a command a flag for each of some fields of a dataclass of settings.

    What is not given is not among the options, so that a file or a model may say it.

    Args:
        command: Gets the flags.
        kind: The dataclass.
        names: Of the fields.
        set_by_model: Fields whose default is for each model to say.
    """
    hints = get_type_hints(kind)
    for field in dataclasses.fields(kind):
        if field.name in names:
            shown = describe(field, set_by_model=field.name in set_by_model)
            _add_flag(command, field, without_none(hints[field.name]), shown)


def describe(field: dataclasses.Field, *, set_by_model: bool = False) -> str:
    """What the help says about a field."""
    facts = field.metadata
    unit = f", in {facts['unit']}" if facts["unit"] else ""
    if set_by_model and field.default is not None:
        return f"{facts['help']}{unit} (default: what suits the model)"
    default = "" if field.default in (None, "", 0, ()) else f" (default: {field.default})"
    return f"{facts['help']}{unit}{default}"


def _add_flag(command: Command, field: dataclasses.Field, kind: Any, shown: str) -> None:
    facts: Any = field.metadata
    options: dict[str, Any] = {"default": argparse.SUPPRESS, "help": shown.replace("%", "%%")}
    if kind is not bool:
        options["metavar"] = facts["metavar"] or "|".join(facts["choices"] or ()) or "N"
        options["type"] = partial(read_setting, field, kind)
    if facts["is_word"]:
        options |= {"nargs": "*", "type": str} if is_list(kind) else {"nargs": "?"}
        command.add_argument(field.name, **options)
        return
    if kind is bool:
        options["action"] = argparse.BooleanOptionalAction
    if kind == TEXTS:
        options["action"] = _Texts
    command.add_argument(*flags_of(field), dest=field.name, **options)


class _Texts(argparse.Action):
    """Adds a text to the several texts of a setting."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Take one more."""
        setattr(namespace, self.dest, (*getattr(namespace, self.dest, ()), *values))


def _add_output_flags(command: argparse.ArgumentParser, *, images: int) -> None:
    into_a_file = "" if images == 1 else ", and 1 into a file named with -o"
    command.add_argument(
        "-o", "--output", type=Path, metavar="FILE|FOLDER", help="where to write (default: here)"
    )
    command.add_argument(
        "--images",
        type=int,
        metavar="N",
        help=f"pictures of each prompt, with a seed each (default: {images}{into_a_file})",
    )
    command.add_argument(
        "--vary",
        action="append",
        default=[],
        metavar="NAME=VALUE,...",
        help="compare values of a setting in a table: --vary guidance=2,4,8 --vary steps=4,8,16",
    )
    command.add_argument("--grid", action="store_true", help="put all pictures into one file")
    command.add_argument(
        "--preview", type=Path, metavar="FOLDER", help="write what each step is heading for"
    )
    command.add_argument(
        "--from", dest="source", type=Path, metavar="FILE", help="begin with a picture's settings"
    )
    command.add_argument(
        "--force", action="store_true", help="replace a file named with -o, and previews"
    )


def _add_place_flags(command: argparse.ArgumentParser) -> None:
    fields = {field.name: field for field in dataclasses.fields(ImageRequest)}
    for name in ("dtype", "device"):
        command.add_argument(
            f"--{name}",
            default="auto",
            type=partial(read_setting, fields[name], str),
            metavar=name.upper(),
            help="as in generate",
        )


def _name_and_value(text: str) -> tuple[str, Any]:
    name, is_there, value = text.partition("=")
    if not is_there:
        raise LuminaError(
            f"--config {text} has no value", hint="write --config num_attention_heads=16"
        )
    try:
        return name, json.loads(value)
    except ValueError:  # a text, such as moe_routing=time
        return name, value


def _read_workers(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise LuminaError(f"--ray {text} names no number of workers", hint="write --ray 2")
    return int(text)


def _comma_separated(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")]
