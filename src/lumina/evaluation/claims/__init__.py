"""Claims of the Lumina papers, each measured on a small machine and told whichever way it falls."""

import json
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import lumina
from lumina.catalog import find
from lumina.devices import report
from lumina.errors import LuminaError, UnknownNameError
from lumina.evaluation.claims.claim import Claim, Lab, Train
from lumina.evaluation.claims.context_drop import CONTEXT_DROP
from lumina.evaluation.claims.extrapolation import EXTRAPOLATION
from lumina.evaluation.claims.flow_error import FLOW_ERROR
from lumina.evaluation.claims.gates import GATES
from lumina.evaluation.claims.larger import LARGER
from lumina.evaluation.claims.page import write_page
from lumina.evaluation.claims.phases import PHASES
from lumina.evaluation.claims.sandwich import SANDWICH
from lumina.evaluation.claims.schedules import SCHEDULES

CLAIMS: dict[str, Claim] = {
    claim.name: claim
    for claim in (
        FLOW_ERROR,
        SCHEDULES,
        SANDWICH,
        PHASES,
        EXTRAPOLATION,
        LARGER,
        CONTEXT_DROP,
        GATES,
    )
}
"""All claims by name, in the order of the page."""


def reproduce(
    names: Sequence[str] | None,
    out: Path,
    progress: Callable[[str], None],
    *,
    runs: Path | None = None,
    train: Train | None = None,
    claims: dict[str, Claim] | None = None,
) -> dict[str, str]:
    """Measure claims and write the page of all that have been measured.

    Writes `docs/claims.md`, its pictures in `docs/images/claims`, and the figures in
    `benchmarks/results/claims/NAME.json`. What a stopped run had measured is taken up again.

    Args:
        names: Which claims. None or none is all.
        out: Folder that all this is in.
        progress: Takes lines of text.
        runs: Where pieces of the work are kept. None is `runs/claims` in `out`.
        train: Trains the networks of claims that need one of their own, which is for a higher
            layer than this to do. None refuses those that are not trained yet.
        claims: What there is to choose from. None is `CLAIMS`.

    Returns:
        The verdict on each.

    Raises:
        UnknownNameError: If there is no such claim.
        LuminaError: If one needs a network that is not trained, and there is no `train`; or if a
            run was stopped that measured other weights.
    """
    known = CLAIMS if claims is None else claims
    for name in names or ():
        if name not in known:
            raise UnknownNameError.among(known, name, kind="claim")
    results = out / "benchmarks" / "results" / "claims"
    results.mkdir(parents=True, exist_ok=True)
    verdicts = {}
    for name in names or known:
        claim = known[name]
        progress(f"{name}: about {claim.minutes:g} minutes on two cores")
        lab = Lab(
            folder=(runs or out / "runs" / "claims") / name,
            images=out / "docs" / "images" / "claims",
            name=name,
            tell=lambda text, name=name: progress(f"{name}: {text}"),
            train=train,
        )
        result = _measure(claim, lab)
        text = json.dumps(result, indent=2, ensure_ascii=False)
        (results / f"{name}.json").write_text(text + "\n", encoding="utf-8")
        verdicts[name] = result["verdict"]
        write_page(out / "docs" / "claims.md", known, results)
        progress(f"{name}: {result['verdict']}")
    return verdicts


def _measure(claim: Claim, lab: Lab) -> dict[str, Any]:
    began = time.monotonic()
    lab.folder.mkdir(parents=True, exist_ok=True)
    weights = _weights(claim, lab.folder)
    clock = lab.folder / "seconds.json"
    before = json.loads(clock.read_text()) if clock.exists() else 0.0

    def tick() -> float:
        seconds = round(before + time.monotonic() - began, 1)
        clock.write_text(json.dumps(seconds))
        return seconds

    def tell(text: str) -> None:
        tick()  # at every piece, since a run that is killed has no last word
        lab.tell(text)

    findings = claim.run(replace(lab, tell=tell))
    findings.seconds = tick()
    return {
        "claim": claim.name,
        "verdict": claim.verdict(findings.values),
        "findings": findings.to_json(),
        "command": shlex.join(["lumina", "reproduce", "--claim", claim.name]),
        "date": datetime.now(UTC).date().isoformat(),
        "versions": {"lumina": lumina.__version__} | report(),
        "weights": weights,
    }


def _weights(claim: Claim, folder: Path) -> str:
    """What tells the weights that a claim measures from others; all pieces are to be of these."""
    if not claim.model:
        return ""
    weights, kept = find(claim.model).fingerprint(), folder / "weights.json"
    if kept.exists() and json.loads(kept.read_text()) != weights:
        raise LuminaError(
            f"{folder} has pieces that were measured on other weights of {claim.model}",
            hint="remove it to measure anew",
        )
    kept.write_text(json.dumps(weights))
    return weights
