"""Measure the seconds from a command to its file, for each model that ships.

Run `python benchmarks/seconds.py` on an idle machine, where Python may keep what it compiles. Each
command is a process of its own, as a user starts it; the first run of each is not counted. Writes
`results/seconds.json` and `results/seconds.md`.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from lumina.devices import report

RESULTS = Path(__file__).parent / "results"
LUMINA = [sys.executable, "-m", "lumina"]
IMPORTS = {
    "import LuminaPipeline of lumina": "from lumina import LuminaPipeline",
    "import LuminaPipeline of diffusers": "from diffusers import LuminaPipeline",
}
PROMPTS = {
    "lumina-mini": "a red apple on a blue background",
    "lumina-mini-video": "a panda moving to the left",
    "lumina-mini-sound": "a violin",
    "lumina-mini-points": "a chair",
    "lumina-mini-multiview": "a red chair",
    "lumina-mini-music": "a melody in A minor on a violin at 100 beats per minute",
    "lumina-mini-speech": "The red cat sits on the table.",
}
ENDINGS = {"video": "mp4", "sound": "wav", "points": "ply", "music": "wav", "speech": "wav"}


def main() -> None:
    """Measure all commands."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="that count, of each command")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        commands = commands_in(Path(folder))
        for command in commands.values():
            run(command)
        # In turns, so that what slows the machine for a while slows all.
        rounds = [{name: run(commands[name]) for name in commands} for _ in range(options.runs)]
    result = {
        "command": " ".join(["python", *sys.argv]),
        "seconds": {name: sorted(one[name] for one in rounds) for name in commands},
        "machine": report(),
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "seconds.json").write_text(json.dumps(result, indent=2) + "\n")
    (RESULTS / "seconds.md").write_text(as_table(result))
    print(as_table(result))


def commands_in(folder: Path) -> dict[str, list[str]]:
    """All commands by name. They write to a folder."""
    commands = {}
    for model, prompt in PROMPTS.items():
        file = folder / f"{model}.{ENDINGS.get(model.rpartition('-')[2], 'png')}"
        flags = ["--model", model, "--seed", "1", "--force", "-o", str(file)]
        commands[model] = [*LUMINA, "generate", prompt, *flags]
    commands["lumina-mini-points, 8,192"] = [*commands["lumina-mini-points"], "--points", "8192"]
    commands["lumina-mini-recognition"] = [*LUMINA, "recognize", str(folder / "lumina-mini.png")]
    return commands | {name: [sys.executable, "-c", code] for name, code in IMPORTS.items()}


def run(command: list[str]) -> float:
    """Run a command, and say how many seconds it took."""
    environment = os.environ.copy()
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    begin = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env=environment)
    return time.perf_counter() - begin


def as_table(result: dict) -> str:
    """Show a result as Markdown."""
    lines = [
        f"| {name} | {statistics.median(times):.1f} | {min(times):.1f} | {max(times):.1f} |"
        for name, times in result["seconds"].items()
    ]
    machine = ", ".join(f"{name} {value}" for name, value in result["machine"].items())
    note = (
        "Seconds from the command to the file, whole process: `lumina generate PROMPT --model NAME "
        f"--seed 1 -o FILE`, or `lumina recognize FILE`. `{result['command']}`: {machine}."
    )
    head = "| | median | fastest | slowest |"
    return "\n".join([head, "|---|---|---|---|", *lines, "", note, ""])


if __name__ == "__main__":
    main()
