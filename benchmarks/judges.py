"""Measure the judges themselves, on true examples.

Run `python benchmarks/judges.py [WORLD ...]`. Each world's exam is taken by a model that makes what
its prompts ask for without a flaw: direct, and for what is heard as what is left of it in a mel
spectrogram, whose phases are found again by Griffin-Lim: about what a vocoder would lose. A model
with shuffled prompts shows what chance gives. Writes `results/judges.json` and `.md`.

`python benchmarks/judges.py --fit` makes the judges of sounds and of instruments anew, which is
needed where their worlds have changed.
"""

import argparse
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from lumina.evaluation.exams import Exam, Outcome, exam_of
from lumina.evaluation.lines import Line, rows_of
from lumina.evaluation.results import versions
from lumina.worlds.music_judge import fit_instruments
from lumina.worlds.sound_judge import JUDGES, fit_kinds
from lumina.worlds.vocoding import pass_through_mel

RESULTS = Path(__file__).parent / "results"
USUAL: Mapping[str, Mapping[str, Any]] = {
    "solids": {},
    "motion": {"size": "64x64", "frames": 8},
    "items": {"size": "64x64", "views": 4},
    "sounds": {"seconds": 3.072},
    "music": {"seconds": 4.096},
    "speech": {},
}
"""Settings of models of each world."""

ROUNDS = 32  # of Griffin-Lim


def main() -> None:
    """Measure the judge of each world, and write down what came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("worlds", nargs="*", default=list(USUAL), metavar="WORLD")
    parser.add_argument("--names", type=int, help="how much of each section (default: as usual)")
    parser.add_argument("--fit", action="store_true", help="make the judges of sounds anew")
    options = parser.parse_args()
    if options.fit:
        fit_kinds().save(JUDGES / "sounds.safetensors")
        fit_instruments().save(JUDGES / "music.safetensors")
        return
    path = RESULTS / "judges.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    for world in options.worlds:
        results[world] = measure(world, options.names)
        print(write_table(world, results[world]), flush=True)
        path.write_text(json.dumps(results, indent=2) + "\n")
    tables = [write_table(world, result) for world, result in results.items()]
    (RESULTS / "judges.md").write_text("\n".join(tables))


def measure(world: str, names: int | None) -> dict[str, Any]:
    """What true examples score, by each way that they take."""
    began = time.process_time()
    exam = exam_of(world, USUAL[world])
    ways: dict[str, Callable[[np.ndarray], np.ndarray]] = {"direct": lambda medium: medium}
    if exam.world.modality in ("sound", "speech"):
        ways["mel"] = through_mel
    wishes = exam.plan(full=False, names=names, languages=())
    known = [(wish, example) for wish in wishes if (example := exam.example(wish)) is not None]
    found = {name: [(wish, way(made)) for wish, made in known] for name, way in ways.items()}
    found["shuffled"] = _shuffle(known)
    return {
        "lines": {
            name: [asdict(line) for line in _judge(exam, made)] for name, made in found.items()
        },
        "seconds_of_one_core": round(time.process_time() - began),
        "versions": versions(),
    }


def through_mel(waveform: Float[np.ndarray, " samples"]) -> Float[np.ndarray, " samples"]:
    """What is left of a waveform in its mel spectrogram, from any phases."""
    return pass_through_mel(waveform, np.random.default_rng(0), rounds=ROUNDS)


def write_table(world: str, result: dict[str, Any]) -> str:
    """One world's result as Markdown."""
    direct, *others = ([Line(**line) for line in lines] for lines in result["lines"].values())
    names = list(result["lines"])[1:]
    rows = rows_of(direct, dict(zip(names, others, strict=True)))
    head = f"`python benchmarks/judges.py {world}`, {result['seconds_of_one_core']} s of one core"
    return "\n".join([head, "", "```", *rows, "```", ""])


def _judge(exam: Exam, made: list[tuple[Any, np.ndarray]]) -> list[Line]:
    return exam.measure([Outcome(wish, exam.judge(wish, medium)) for wish, medium in made])


def _shuffle(known: list[tuple[Any, np.ndarray]]) -> list[tuple[Any, np.ndarray]]:
    """Examples of each section in another order, each of the size that it is asked for."""
    rng, shuffled = np.random.default_rng(0), []
    for section in dict.fromkeys(wish.section for wish, _ in known):
        same = [pair for pair in known if pair[0].section == section]
        order = rng.permutation(len(same))
        shuffled += [(wish, same[k][1]) for (wish, _), k in zip(same, order, strict=True)]
    return shuffled


if __name__ == "__main__":
    main()
