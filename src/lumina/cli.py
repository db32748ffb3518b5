"""The `lumina` command: one subcommand for each thing a person does."""

import argparse
import dataclasses
import difflib
import gc
import json
import logging
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import lumina
from lumina.errors import LuminaError
from lumina.flags import (
    MEASURED,
    add_config_flag,
    add_convert_flags,
    add_evaluate_flags,
    add_ray_flags,
    add_recipe_words,
    add_recognize_flags,
    add_reproduce_flags,
    add_task_flags,
)
from lumina.requests import OF_MODALITIES, ClassToImage
from lumina.settings import names_of
from lumina.tasks import TASKS

_log = logging.getLogger(__name__)

INTERRUPTED = 130
"""Exit code of a program that Ctrl-C ended: 128 and the number of the signal."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        The exit code: 0, 1 after an error, 2 if the command line makes no sense, 130 after Ctrl-C.
    """
    gc.set_threshold(10_000)  # what is imported stays: it is searched for garbage less often
    _show_warnings()
    try:
        options = _make_parser().parse_args(arguments)
    except LuminaError as error:
        _tell(f"error: {error}")
        return 2
    try:
        options.run(options)
    except LuminaError as error:
        if options.debug:
            traceback.print_exc()
        _tell(f"error: {error}")
        return 1
    except OSError as error:
        if options.debug:
            traceback.print_exc()
        _tell(f"error: {error}")
        _tell("hint: is the disk full, or a folder not readable? --debug shows where this is from")
        return 1
    except KeyboardInterrupt:
        _tell("stopped")
        return INTERRUPTED
    return 0


def make(task: str, options: argparse.Namespace) -> None:
    """Make the pictures of a task."""
    from lumina.generation import run
    from lumina.planning import plan

    _refuse_missing_words(task, options)
    job = plan(
        task,
        _settings(task, options),
        prompts=_prompts(options),
        source=options.source,
        images=options.images,
        vary=options.vary,
        output=options.output,
        grid=options.grid,
        force=options.force,
        preview=options.preview,
    )
    _quiet_libraries()
    _tell_unknown_words(job)
    _tell(f"seed: {job.requests[0].seed}")
    begin = time.perf_counter()
    for path in run(job, _tell):
        print(path, flush=True)
    _tell(f"time: {time.perf_counter() - begin:.1f} s")


def _tell_unknown_words(job: Any) -> None:
    from lumina.evaluation.knowledge import unknown_words

    asked = [one for one in job.requests if isinstance(one, tuple(OF_MODALITIES.values()))]
    prompts = [
        (one.model, prompt)
        for one in asked
        for prompt in (one.prompt, getattr(one, "to_prompt", None))
        if prompt is not None
    ]
    for model, prompt in dict.fromkeys(prompts):
        try:
            words = unknown_words(model, prompt)
        except LuminaError as error:
            _log.warning("%r was not checked for unknown words: %s", prompt, error.args[0])
            continue
        if words:
            _log.warning(
                "%s was not trained on the words %s: `lumina models %s` lists what it knows",
                model,
                ", ".join(words),
                model,
            )


def show(options: argparse.Namespace) -> None:
    """Print how a picture was made."""
    from lumina.media import read_record

    print(json.dumps(read_record(options.file), indent=2, ensure_ascii=False))


def models(options: argparse.Namespace) -> None:
    """List the models that can be loaded, or the names that one of them knows."""
    from lumina.catalog import list_models, list_networks

    if options.model:
        from lumina.evaluation.knowledge import known_names

        for called, known in known_names(options.model).items():
            print(f"{called}: {', '.join(known)}")
        return
    table = list_networks() if options.networks else list_models()
    rows = [list(table[0]), *(list(row.values()) for row in table)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(map(str.ljust, row, widths)).rstrip())


def get(options: argparse.Namespace) -> None:
    """Download a model."""
    from lumina.catalog import download

    print(download(options.model))


def convert(options: argparse.Namespace) -> None:
    """Write a network in another format."""
    from lumina.checkpoints.convert import convert

    print(
        convert(
            options.source,
            options.target,
            to=options.to,
            dtype=options.dtype,
            max_shard=options.max_shard,
            force=options.force,
            config=dict(options.config),
        )
    )


def inspect(options: argparse.Namespace) -> None:
    """Print what a checkpoint is, without loading it."""
    from lumina.checkpoints.description import describe, lines

    facts = describe(options.path, dict(options.config))
    print(json.dumps(facts, indent=2) if options.json else "\n".join(lines(facts)))


def env(options: argparse.Namespace) -> None:
    """Print what a bug report needs to say about this machine."""
    from lumina.devices import report

    for name, value in report().items():
        print(f"{name:14} {value}")


def train(options: argparse.Namespace) -> None:
    """Run a recipe, from where it stopped if it was run before."""
    from lumina.training.recipes import load

    _refuse_lone_gpus(options)
    _refuse_missing_recipe(options.recipe)
    recipe = load(options.recipe, options.settings)
    _quiet_libraries()
    if options.plan:
        from lumina.training.planning import plan

        print("\n".join(plan(recipe)))
        return
    if options.ray is not None:
        from lumina.training.launching import train_on_ray

        print(train_on_ray(recipe, workers=options.ray, gpus=options.gpus or 0))
        return

    from lumina.training.trainer import train

    print(train(recipe))


def precompute(options: argparse.Namespace) -> None:
    """Encode the pictures and captions of a recipe into its cache, before it is run."""
    from lumina.training.recipes import FlowRecipe, load

    _refuse_lone_gpus(options)
    _refuse_missing_recipe(options.recipe)
    recipe = load(options.recipe, options.settings)
    if not isinstance(recipe, FlowRecipe):
        raise LuminaError("this recipe has no cache", hint='those of task = "flow" have one')
    _quiet_libraries()

    from lumina.training.data.precompute import RayRunner, run_alone
    from lumina.training.flow import precompute
    from lumina.training.prior import with_prior

    run = run_alone if options.ray is None else RayRunner(options.ray, gpus=options.gpus or 0)
    encoded = precompute(with_prior(recipe), run)
    print("\n".join([*encoded.survey.lines(), f"cached in {encoded.cache}"]))


def push(options: argparse.Namespace) -> None:
    """Put a trained folder, with its model card, on the hub."""
    from lumina.training.cards import push

    print(push(options.folder, options.repo, private=options.private))


def recipe(options: argparse.Namespace) -> None:
    """Print a recipe to start from, with every setting that it leaves as it is."""
    from lumina.training.starters import list_recipes, write_starter

    if options.name is None:
        print("\n".join(f"{name:28} {what}" for name, what in list_recipes().items()))
        return
    print(write_starter(options.name), end="")


def recognize(options: argparse.Namespace) -> None:
    """Tell what pictures show, each at the size that it has."""
    if not options.files:
        raise LuminaError("no picture is given", hint="name one or more: photo.png scan.png")
    from lumina.pipelines.recognition import describe, load_recognizer, read_picture

    pictures = [read_picture(file) for file in options.files]  # before any weight is read
    _quiet_libraries()
    pipeline = load_recognizer(options.model, dtype=options.dtype, device=options.device)
    guesses = pipeline(pictures, top=options.top)
    print(describe(options.files, guesses, as_json=options.json))


def evaluate(options: argparse.Namespace) -> None:
    """Measure how well a model makes what prompts say, or tells what pictures show."""
    from lumina.evaluation.models import Wanted, evaluate

    given = vars(options)
    names = ("model", "names", "languages", "full", "output", "dtype", "device")
    chosen = {name: given[name] for name in MEASURED if name in given}
    wanted = Wanted(**{name: given[name] for name in names}, chosen=chosen)
    _quiet_libraries()
    evaluated = evaluate(wanted, _tell)
    print(json.dumps(evaluated.result, indent=2) if options.json else evaluated.table)
    _tell(f"files and numbers: {evaluated.folder}")


def reproduce(options: argparse.Namespace) -> None:
    """Measure claims of the papers on this machine."""
    from lumina.evaluation.claims import reproduce

    def train_by(name: str, settings: list[str]) -> None:
        from lumina.training.recipes import load
        from lumina.training.starters import recipes_folder
        from lumina.training.trainer import train

        train(load(recipes_folder() / f"{name}.toml", settings))

    verdicts = reproduce(options.claims, options.out, _tell, runs=options.runs, train=train_by)
    for name, verdict in verdicts.items():
        print(f"{name:14} {verdict}")
    _tell(f"page: {options.out / 'docs' / 'claims.md'}")


_OTHER_NAMES = {
    "duration": "seconds",
    "length": "seconds",
    "num-frames": "frames",
    "num-inference-steps": "steps",
    "num-images-per-prompt": "images",
    "cfg": "guidance",
    "height": "size",
    "width": "size",
    "negative-prompt": "negative",
    "lang": "languages",
}
"""What others call flags, and what they are called here."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str, suggestion: str = "") -> NoReturn:
        self.exit(2, f"error: {message}\nhint: {suggestion}{self.prog} --help\n")


class _Command(_Parser):
    """A subcommand, whose words may be anywhere between its flags."""

    _is_reading = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Read flags first, and then all that is left as words."""
        if self._is_reading:  # the reading below takes two turns of this
            return super().parse_known_args(args, namespace)
        self._is_reading = True
        try:
            known, left = self.parse_known_intermixed_args(args, namespace)
        finally:
            self._is_reading = False
        if left:
            self._refuse(left)
        return known, left

    def _refuse(self, left: Sequence[str]) -> NoReturn:
        """Refuse what is neither a flag of the command nor a word that it takes."""
        unknown = [text.partition("=")[0] for text in left if text.startswith("-")]
        if not unknown:
            self.error(f"one word too many: {left[0]!r}")
        flags = {flag.lstrip("-"): flag for flag in self._option_string_actions}
        name = unknown[0].lstrip("-").replace("_", "-")
        own = _OTHER_NAMES.get(name)
        close = [own] if own in flags else difflib.get_close_matches(name, flags, 1)
        suggestion = f"did you mean {flags[close[0]]}? " if close else ""
        self.error(f"unknown flag {unknown[0]}", suggestion)


def _make_parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="lumina", description=lumina.__doc__, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"lumina {lumina.__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=_Command)

    def add_named(
        name: str, about: str | None, run: Callable[[argparse.Namespace], None]
    ) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=about, description=about, allow_abbrev=False)
        command.add_argument("--debug", action="store_true", help="show where an error came from")
        command.set_defaults(run=run)
        return command

    def add(run: Callable[[argparse.Namespace], None]) -> argparse.ArgumentParser:
        return add_named(run.__name__, run.__doc__, run)

    for name, task in TASKS.items():
        add_task_flags(add_named(name, task.request.__doc__, partial(make, name)), name)
    add(show).add_argument("file", type=Path, metavar="FILE", help="a file that lumina made")
    command = add(models)
    command.add_argument(
        "model", nargs="?", metavar="NAME|FOLDER", help="tell what this one knows by name"
    )
    command.add_argument(
        "--networks", action="store_true", help="the named networks of the family, without weights"
    )
    add(get).add_argument("model", metavar="NAME|HUB_ID", help="what to download")
    add_convert_flags(add(convert))
    command = add(inspect)
    command.add_argument("path", type=Path, metavar="FILE|FOLDER", help="a network, or a pipeline")
    command.add_argument("--json", action="store_true", help="print JSON")
    add_config_flag(command)
    add(env)
    command = add(recipe)
    command.add_argument("name", nargs="?", metavar="NAME", help="which one (default: list them)")
    command = add(train)
    add_recipe_words(command)
    command.add_argument(
        "--plan", action="store_true", help="print what the run would do, and do not run it"
    )
    add_ray_flags(command, gpus=int)
    command = add(push)
    command.add_argument("folder", type=Path, metavar="FOLDER", help="such as runs/quick/last")
    command.add_argument("repo", metavar="NAME/REPO", help="where on the hub it goes")
    command.add_argument("--private", action="store_true", help="only for those you let in")
    command = add(precompute)
    add_recipe_words(command)
    add_ray_flags(command, gpus=float)
    add_reproduce_flags(add(reproduce))
    add_evaluate_flags(add(evaluate))
    add_recognize_flags(add(recognize))
    return parser


def _refuse_lone_gpus(options: argparse.Namespace) -> None:
    if options.gpus is not None and options.ray is None:
        raise LuminaError(
            "--gpus says what each worker of a Ray cluster has, and there are none",
            hint="add --ray N, or leave --gpus out: `device` in a recipe says where to compute",
        )


def _refuse_missing_recipe(path: Path) -> None:
    if not path.exists():
        raise LuminaError(f"no recipe at {path}", hint="`lumina recipe` lists those that ship")


def _refuse_missing_words(task: str, options: argparse.Namespace) -> None:
    """Refuse some of the words of a task, where all are needed and nothing else says them."""
    if TASKS[task].remember or options.source or options.vary:
        return
    words = [f for f in dataclasses.fields(TASKS[task].request) if f.metadata["is_word"]]
    given = [field for field in words if getattr(options, field.name, None) is not None]
    if 0 < len(given) < len(words):
        raise LuminaError(
            f"the prompt is empty: {len(words)} words are needed, and {len(given)} given",
            hint=f"lumina {task} {' '.join(str(field.metadata['metavar']) for field in words)}",
        )


def _prompts(options: argparse.Namespace) -> list[str]:
    """Prompts of `generate`, which makes a picture of each."""
    words = getattr(options, "prompt_words", [])
    return [*words, *_lines(getattr(options, "prompt_file", None))]


def _settings(task: str, options: argparse.Namespace) -> dict[str, Any]:
    """Settings of a task that were given."""
    known = set(names_of(TASKS[task].request))
    if task == "generate":  # which may be for a model of another kind
        known |= {
            name for kind in (ClassToImage, *OF_MODALITIES.values()) for name in names_of(kind)
        }
    given = {name: value for name, value in vars(options).items() if name in known}
    return {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in given.items()
        if value != []
    }


def _lines(file: Path | None) -> list[str]:
    if file is None:
        return []
    try:
        # Some editors begin a file with a mark of its encoding, which is no part of a prompt.
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise LuminaError(
            f"cannot read {file}: {reason}", hint="give a text file in UTF-8, one prompt a line"
        ) from error
    prompts = [line.strip() for line in lines if line.strip()]
    if not prompts:
        raise LuminaError(f"{file} holds no prompt", hint="write one in each line")
    return prompts


def _show_warnings() -> None:
    logging.addLevelName(logging.WARNING, "warning")
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    logging.getLogger("lumina").handlers = [handler]
    # Where torchao is installed, diffusers imports it, and both say which kernels are not for
    # this machine.
    for library in ("torchao", "torch.utils._pytree", "diffusers.quantizers.torchao"):
        logging.getLogger(library).setLevel(logging.ERROR)


def _quiet_libraries() -> None:
    import diffusers
    import transformers

    for library in (diffusers, transformers):
        library.utils.logging.disable_progress_bar()


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
