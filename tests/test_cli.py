import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from PIL import Image

import lumina
from lumina.cli import main
from lumina.media import read_record, write_png
from lumina.tasks import TASKS

COMMANDS = [
    *TASKS,
    *["show", "models", "get", "convert", "inspect", "env", "train", "evaluate"],
    "recognize",
]


@pytest.fixture
def command(tiny_folder, tmp_path, monkeypatch, capfd):
    """Run the command with the tiny model in an empty folder: exit code, output, messages."""
    monkeypatch.chdir(tmp_path)

    def command(*arguments):
        if arguments[0] in TASKS:
            has_steps = {"--steps", "--times", "--from"} & set(arguments)
            arguments += () if has_steps else ("--steps", "2")
            arguments += () if "--model" in arguments else ("--model", tiny_folder)
        code = main([str(argument) for argument in arguments])
        return code, *capfd.readouterr()

    return command


def test_help_loads_nothing_heavy():
    program = f"""
import sys
from lumina.cli import main
for arguments in [["--help"], *([name, "--help"] for name in {COMMANDS})]:
    try:
        main(arguments)
    except SystemExit as end:
        assert end.code == 0
heavy = ["torch", "diffusers", "transformers", "numpy", "PIL", "huggingface_hub"]
print([name for name in heavy if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr
    assert all(f"usage: lumina {name}" in done.stdout for name in COMMANDS)


def test_the_package_runs_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "lumina", "--version"], capture_output=True, text=True
    )
    assert done.stdout == f"lumina {lumina.__version__}\n"


def test_a_picture_is_made_with_its_path_on_output_and_its_seed_among_the_messages(command):
    code, output, messages = command("generate", "a cat", "--seed", "3")
    assert (code, output) == (0, "a-cat-3.png\n")
    assert "seed: 3\n" in messages
    assert Image.open("a-cat-3.png").size == (64, 64)


def test_a_picture_is_made_again_from_its_file_with_another_seed(command, tiny_folder):
    command("generate", "a cat", "--seed", "3", "--guidance", "2", "-o", "a.png")
    assert command("generate", "--from", "a.png", "--seed", "8", "--model", tiny_folder)[0] == 0
    first, second = read_record("a.png")["request"], read_record("a-cat-8.png")["request"]
    assert second == first | {"seed": 8}


def test_other_weights_than_those_of_the_file_are_told(command, own_folder):
    command("generate", "a cat", "-o", "a.png", "--model", own_folder)
    record = read_record("a.png")
    write_png(Path("b.png"), Image.open("a.png"), record | {"model_hash": "0"})
    _, _, messages = command("generate", "--from", "a.png", "--model", own_folder)
    assert "warning" not in messages
    _, _, messages = command("generate", "--from", "b.png", "--model", own_folder)
    assert "warning: the weights" in messages


def test_prompts_of_a_file_are_made_in_order(command):
    Path("prompts.txt").write_text("a cat\n\n  a dog \n", encoding="utf-8")
    code, output, _ = command("generate", "--prompts", "prompts.txt", "--seed", "1", "-o", "out")
    assert (code, output) == (0, "out/a-cat-1.png\nout/a-dog-2.png\n")


def test_the_mark_that_some_editors_begin_a_file_with_is_no_part_of_a_prompt(command):
    Path("prompts.txt").write_text("a cat\n", encoding="utf-8-sig")
    command("generate", "--prompts", "prompts.txt", "-o", "a.png")
    assert read_record("a.png")["request"]["prompt"] == "a cat"


def test_words_that_a_model_does_not_know_are_told_of_what_a_clip_turns_into(command):
    clip = ["--model", "lumina-mini-video", "--frames", "2", "--size", "32x32", "--steps", "1"]
    words = ["a red apple", "--to-prompt", "a zeppelin"]
    code, _, messages = command("generate", *words, *clip, "-o", "a.gif")
    assert code == 0, messages
    assert "was not trained on the words zeppelin" in messages
    assert messages.count("was not trained on") == 1


def test_show_prints_how_a_picture_was_made(command):
    command("generate", "猫", "-o", "a.png")
    code, output, _ = command("show", "a.png")
    assert code == 0
    assert "猫" in output
    assert json.loads(output) == read_record("a.png")


def test_adapters_that_are_named_as_a_model_are_told_apart(command):
    Path("mine").mkdir()
    Path("mine/pytorch_lora_weights.safetensors").touch()
    code, _, messages = command("generate", "a cat", "--model", "mine")
    assert code == 1
    assert "give it as --lora mine" in messages


def test_env_prints_what_a_bug_report_needs(command):
    code, output, _ = command("env")
    assert code == 0
    assert {"python", "torch", "diffusers", "cpu", "chosen"} <= {
        line.split()[0] for line in output.splitlines()
    }


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["generate", ""], "the prompt is empty"),
        (["generate"], "the prompt is empty"),
        (["generate", "( )"], "nothing of the prompt '( )' is read"),
        (["generate", "a cat", "star.png"], "nothing of the prompt 'star.png' is read"),
        (["interpolate", "a cat", "star.png"], "nothing of the prompt 'star.png' is read"),
        (["generate", "a cat", "--model", "lumina-mni"], "did you mean 'lumina-mini'?"),
        (["generate", "a cat", "--model", "/"], "no weights of the family"),
        (["generate", "a dog", "-o", "a.wav"], "models of sound or speech write"),
        (["generate", "a dog", "-o", "a.ply"], "models of points write"),
        (["models", "lumina-next-sft"], "not on this machine"),
        (["generate", "a cat", "--model", "some/one"], "lumina get some/one"),
        (["generate", "a cat", "--size", "100x100"], "96x96"),
        (["generate", "a cat", "--size", "1600000x1600000"], "GB of memory"),
        (["generate", "a cat", "--steps", "0"], "allowed: 1 to 1000"),
        (["generate", "a cat", "--guidance", "nan"], "not a number"),
        (["generate", "a cat", "--device", "cuda:99"], "available: cpu"),
        (["generate", "a cat", "--dtype", "int8"], "known: auto, float32"),
        (["generate", "a cat", "-o", "/proc/a.png"], "cannot write /proc/a.png"),
        (["generate", "a cat", "-o", "there.png"], "--force"),
        (["generate", "a cat", "--from", "none.png"], "none.png"),
        (["generate", "--prompts", "none.txt"], "none.txt"),
        (["generate", "--prompts", "there.png"], "holds no prompt"),
        (["generate", "a cat", "--images", "0"], "images is 0"),
        (["show", "there.png"], "there.png is not a picture"),
        (["get", "lumina-mni"], "did you mean 'lumina-mini'?"),
        (["train", "none.toml"], "none.toml"),
        (["evaluate", "lumina-mni"], "did you mean 'lumina-mini'?"),
        (["generate", "a cat", "--model", "a--b/c"], "unknown model"),
        (["generate", "a cat", "--solver", "midpint"], "did you mean 'midpoint'"),
        (["generate", "a cat", "--shift", "0"], "allowed: 0.01 to 100"),
        (["evaluate", "lumina-mini", "--steps", "0"], "allowed: 1 to 1000"),
        (["evaluate", "lumina-mini", "--solver", "dopri6"], "did you mean 'dopri5'"),
        (["generate", "a cat", "--model", "runs/typo"], "there is no folder runs/typo"),
        (["generate", "a cat", "--times", "0,0.5,0.2,1"], "do not increase"),
        (["generate", "a cat", "--times", "0,0.5,1", "--steps", "3"], "make 2 steps, not 3"),
        (["evaluate", "lumina-mini", "--tolerance", "0.1"], "a setting of the solver dopri5"),
        (["generate", "a cat", "--solver", "dopri5", "--steps", "9"], "leave one out"),
        (["generate", "a cat", "--solver", "unipc", "--steps", "1"], "2 steps or more"),
        (["generate", "a cat", "--vary", "guidance=2,x"], "guidance is 'x', not a number"),
        (["edit", "there.png", "a cat"], "there.png is not a picture"),
        (["edit", "none.png", "a cat"], "cannot read none.png"),
        (["edit", "--strength", "0", "there.png", "a cat"], "allowed: above 0, up to 1"),
        (["edit"], "no picture is given"),
        (["inpaint", "there.png", "a cat"], "the prompt is empty"),
        (["outpaint", "there.png", "a cat"], "--size 256x128"),
        (["interpolate", "a cat"], "--to-seed"),
        (["compose"], "write --region"),
        (["anagram", "--view", "rotate18=a cat"], "did you mean 'rotate180'?"),
        (["style", "a cat"], "two prompts or more"),
        (["inpaint", "there.png", "a cat"], "hint: lumina inpaint IMAGE MASK PROMPT"),
        (["edit", "there.png"], "2 words are needed, and 1 given"),
        (["upscale", "none.png", "--size", "96x96"], "cannot read none.png"),
        (["generate", "a cat", "--times", "0"], "give two or more"),
        (["generate", "a cat", "--images", "1001"], "allowed: 1 to 1000"),
        (["generate", "a cat", "--frames", "4"], "it is for models of video"),
        (["generate", "a cat", "--two-stage"], "add --size 128x128, or leave --two-stage out"),
        (["anagram", "--view", "identity=a", "--two-stage"], "leave --two-stage out"),
        (["generate", "a cat", "--text-encoder", "nosuch"], "leave --text-encoder out"),
        (["generate", "a cat", "--device", "cuda:99", "-o", "new/a.png"], "available: cpu"),
        (["interpolate", "a cat", "--to-seed", "5", "--seed", "5"], "both ends are 'a cat'"),
        (["recognize"], "no picture is given"),
        (["train", "none.toml"], "`lumina recipe` lists"),
        (["inspect", "there.png"], "is no file of weights"),
    ],
    ids=str,
)
def test_bad_input_is_one_error_and_one_hint(command, arguments, told):
    Path("there.png").touch()
    code, output, messages = command(*arguments)
    assert (code, output) == (1, "")
    assert messages.startswith("error: ")
    assert told in messages
    assert len(messages.splitlines()) == 2
    assert messages.splitlines()[1].startswith("hint: ")
    assert [path.name for path in Path().iterdir()] == ["there.png"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["generate", "a cat", "--guidance", "high"], "guidance is 'high', not a number"),
        (["generate", "a cat", "--steps", "many"], "steps is 'many', not a whole number"),
    ],
    ids=str,
)
def test_a_value_of_the_wrong_kind_is_a_usage_error(command, arguments, told):
    code, _, messages = command(*arguments)
    assert code == 2
    assert told in messages


@pytest.mark.parametrize("arguments", [[], ["dance"], ["generate", "a cat", "--sparkle", "3"]])
def test_an_unknown_command_or_flag_is_a_usage_error(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert "hint: lumina" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["generate", "a cat", "--stps", "3"], "did you mean --steps? lumina generate --help"),
        (["generate", "rain", "--duration=3"], "did you mean --seconds? lumina generate --help"),
        (["generate", "a cat", "--num_inference_steps", "3"], "did you mean --steps?"),
        (["generate", "a cat", "--sparkle"], "hint: lumina generate --help"),
        (["show", "a.png", "b.png"], "one word too many: 'b.png'"),
    ],
    ids=str,
)
def test_an_unknown_flag_is_told_with_the_nearest_of_its_command(arguments, told, capsys):
    with pytest.raises(SystemExit):
        main(arguments)
    assert told in capsys.readouterr().err


def test_a_file_that_is_not_there_is_named_once(command):
    messages = command("generate", "--prompts", "none.txt")[2]
    assert "error: cannot read none.txt: No such file or directory\n" in messages


def test_a_model_is_called_what_it_was_asked_for_by(command, monkeypatch, tiny_folder):
    monkeypatch.chdir(tiny_folder.parent)
    messages = command("generate", "a cat", "--frames", "4", "--model", tiny_folder.name)[2]
    assert f"error: {tiny_folder.name} is a model of pictures, for which --frames" in messages
    assert command("generate", "a cat", "--class-label", "4", "--model", tiny_folder.name)[
        2
    ].startswith(f"error: {tiny_folder.name} draws prompts")


def test_words_may_be_anywhere_between_flags(command):
    assert command("generate", "--seed", "3", "a cat", "--guidance", "2", "a dog")[1] == (
        "a-cat-3/a-cat-3.png\na-cat-3/a-dog-4.png\n"
    )


def test_a_table_of_settings_is_one_file(command):
    code, output, messages = command(
        "generate", "a cat", "--vary", "guidance=1,4", "--vary", "solver=euler,heun", "--seed", "1"
    )
    assert (code, output) == (0, "a-cat-1-grid.png\n")
    assert "guidance 4.0, solver heun, evaluations: 4 pairs, 8 passes" in messages
    assert len(read_record("a-cat-1-grid.png")["requests"]) == 4


def test_debug_shows_where_an_error_came_from(command):
    _, _, messages = command("generate", "", "--debug")
    assert "Traceback" in messages
    assert "Traceback" not in command("generate", "")[2]


def test_a_prompt_that_is_too_long_is_cut_with_a_warning_that_shows_what_is_lost(command):
    code, _, messages = command("generate", "word " * 300, "-o", "a.png")
    assert code == 0
    assert "warning: " in messages
    assert "truncated" in messages


def test_ctrl_c_ends_with_its_own_code_and_no_file(command):
    def interrupt():
        while not list(Path("steps").glob("*.png")):
            stop.wait(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    stop = threading.Event()
    # A shell that runs tests in the background has them ignore Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=interrupt, daemon=True).start()
    try:
        code, output, messages = command(
            "generate", "a cat", "--steps", "1000", "--preview", "steps", "-o", "a.png"
        )
    finally:
        signal.signal(signal.SIGINT, before)
    assert (code, output) == (130, "")
    assert messages.endswith("stopped\n")
    assert not Path("a.png").exists()
    assert not list(Path().rglob("*.part"))


def test_reproduce_writes_a_page_of_what_was_measured(tmp_path, capsys):
    assert main(["reproduce", "--claim", "phases", "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out.split() == ["phases", "holds"]
    page = (tmp_path / "docs" / "claims.md").read_text()
    assert "not measured yet" in page  # the others
    assert (tmp_path / "benchmarks" / "results" / "claims" / "phases.json").is_file()


def test_reproduce_knows_its_claims(tmp_path, capsys):
    assert main(["reproduce", "--claim", "phase", "--out", str(tmp_path)]) == 1
    assert "did you mean 'phases'?" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_help_of_show_takes_files_of_every_format(capsys):
    with pytest.raises(SystemExit):
        main(["show", "--help"])
    assert "PNG" not in capsys.readouterr().out
