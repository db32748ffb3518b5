"""Fill a cache for all examples: by this process, or by many machines on Ray Data."""

import os
import pickle
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lumina.errors import refuse_missing_library
from lumina.training.data.buckets import Placed
from lumina.training.data.encoding import Encoding, LatentsEncoder, Outcomes, TextsEncoder
from lumina.training.data.report import Broken, Report

Encode = Callable[[Encoding], Callable[[Any], Outcomes]]
"""A kind of encoder: made from its settings, then called with one batch after another."""

Runner = Callable[[Encode, Encoding, Sequence[Sequence[Any]]], Iterable[tuple[int, Outcomes]]]
"""How batches are computed, wherever that is: outcomes with the number of each, when ready."""


class Computed(NamedTuple):
    """What a cache has of the pictures of a source.

    Args:
        placed: Examples whose latents it has.
        keys: Names of the latents.
        report: The account of the source, with the pictures that turned out to be broken.
        made: How many were computed now.
        damaged: How many entries of the cache were damaged, and so computed again.
    """

    placed: list[Placed]
    keys: list[str]
    report: Report
    made: int
    damaged: int


class RayRunner:
    """Batches on the workers of a Ray cluster, which all see the same folders.

    The cluster is the one that the process has joined, or that RAY_ADDRESS names; without either
    Ray starts one on this machine.

    Args:
        workers: How many encoders are at work at a time.
        gpus: How many GPUs each of them has; a fraction lets several share one.

    Raises:
        LuminaError: If Ray is not installed.
    """

    def __init__(self, workers: int, *, gpus: float = 0.0):
        refuse_missing_library("ray", extra="ray")
        self._workers, self._gpus = workers, gpus

    def __call__(
        self, encode: Encode, encoding: Encoding, batches: Sequence[Sequence[Any]]
    ) -> Iterator[tuple[int, Outcomes]]:
        """Outcomes of all batches with the number of each, as they are ready."""
        import ray.data

        rows = [
            {"number": number, "batch": pickle.dumps(list(batch))}
            for number, batch in enumerate(batches)
        ]
        data = ray.data.from_items(rows, override_num_blocks=max(1, len(rows)))
        worker: Any = _OnWorker  # a class, as Ray's own signature does not say it may be
        done = data.map(
            worker,
            fn_constructor_args=(encode, encoding, str(Path.cwd())),
            compute=ray.data.ActorPoolStrategy(size=self._workers),
            num_cpus=1,
            num_gpus=self._gpus,
        )
        for row in done.iter_rows():
            yield row["number"], pickle.loads(row["outcomes"])


def run_alone(
    encode: Encode, encoding: Encoding, batches: Sequence[Sequence[Any]]
) -> Iterator[tuple[int, Outcomes]]:
    """Outcomes of all batches with the number of each, one batch after another."""
    encoder = encode(encoding)
    for number, batch in enumerate(batches):
        yield number, encoder(batch)


def precompute_latents(
    placed: Sequence[Placed], report: Report, encoding: Encoding, *, run: Runner = run_alone
) -> Computed:
    """Latents of all pictures of a source, of which only those are computed that are missing.

    Pictures that cannot be read are left out, and stand in the account with the reason.

    Args:
        placed: Examples with their crops.
        report: The account of the source so far.
        encoding: What to compute with, and the cache.
        run: Where the batches are computed.

    Raises:
        LuminaError: If a model is not there, the cache cannot be written, or no picture is left.
    """
    batches = _batches(placed, encoding.batch_size)
    outcomes = dict(
        run(LatentsEncoder, encoding, [[placed[i] for i in batch] for batch in batches])
    )
    by_index = {
        index: outcome
        for number, batch in enumerate(batches)
        for index, outcome in zip(batch, outcomes[number].each, strict=True)
    }
    report = report.copy()
    report.broken += [
        Broken(placed[index].example.key, outcome.reason)
        for index, outcome in sorted(by_index.items())
        if not outcome.key
    ]
    kept = [index for index in range(len(placed)) if by_index[index].key]
    report.refuse_unusable(left=len(kept))
    return Computed(
        [placed[index] for index in kept],
        [by_index[index].key for index in kept],
        report,
        sum(outcome.is_new for outcome in by_index.values()),
        sum(part.damaged for part in outcomes.values()),
    )


def precompute_texts(
    texts: Iterable[str], encoding: Encoding, *, run: Runner = run_alone
) -> dict[str, str]:
    """Features of texts, of which only those are computed that are missing.

    Args:
        texts: As they go to the tokenizer. One that occurs several times is computed once.
        encoding: What to compute with, and the cache.
        run: Where the batches are computed.

    Returns:
        The name of the features of each text in the cache.

    Raises:
        LuminaError: If a model is not there, or the cache cannot be written.
    """
    # Neighbours in length take little padding.
    different = sorted(set(texts), key=lambda text: (len(text), text))
    size = encoding.batch_size
    batches = [different[start : start + size] for start in range(0, len(different), size)]
    outcomes = dict(run(TextsEncoder, encoding, batches))
    return {
        text: outcome.key
        for number, batch in enumerate(batches)
        for text, outcome in zip(batch, outcomes[number].each, strict=True)
    }


def every_text(placed: Iterable[Placed]) -> list[str]:
    """All captions that can be drawn, and the empty one of those that are left out."""
    captions = (text for one in placed for text in one.example.captions.every())
    return list(dict.fromkeys(["", *captions]))


def _batches(placed: Sequence[Placed], count: int) -> list[list[int]]:
    """Places of examples, in batches of one size."""
    by_size: dict[Any, list[int]] = defaultdict(list)
    for index, one in enumerate(placed):
        by_size[one.size].append(index)
    return [
        group[start : start + count]
        for group in by_size.values()
        for start in range(0, len(group), count)
    ]


class _OnWorker:
    """An encoder as Ray Data calls it, in the folder that relative paths start from."""

    def __init__(self, encode: Encode, encoding: Encoding, folder: str):
        os.chdir(folder)  # Ray starts workers elsewhere
        self._encoder = encode(encoding)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        outcomes = self._encoder(pickle.loads(row["batch"]))
        return {"number": row["number"], "outcomes": pickle.dumps(outcomes)}
