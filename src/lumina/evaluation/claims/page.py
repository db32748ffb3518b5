"""The page of all claims, from their stored results."""

import json
from pathlib import Path
from typing import Any

from lumina.catalog import find
from lumina.evaluation.claims.claim import Claim, Findings, Table, Threshold

INTRODUCTION = """\
# Claims of the papers, measured

Thresholds were written down before the first run of each claim, and no bound was changed since;
they are part of `lumina.evaluation.claims`. Where a bound was set, or a metric or a number of
samples was changed, once something had been seen, its section says so. The verdict follows from the
thresholds, whichever way it falls, and says no more than they do: read the sentences after it too.
Models are small, and seconds were taken on a machine that other work was using.

    lumina reproduce                     # all of them; a stopped run goes on where it was
    lumina reproduce --claim NAME        # one

This page is written by that command; changes by hand are lost.
"""


def write_page(path: Path, claims: dict[str, Claim], results: Path) -> None:
    """Write the page of all claims that have a result.

    Args:
        path: The page, in Markdown.
        claims: All claims, in order.
        results: Folder with `NAME.json` of each that was measured.
    """
    stored = {name: results / f"{name}.json" for name in claims}
    measured = {
        name: json.loads(file.read_text(encoding="utf-8"))
        for name, file in stored.items()
        if file.exists()
    }
    sections = [INTRODUCTION, _summary(claims, measured)]
    sections += [_section(claims[name], result) for name, result in measured.items()]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(sections), encoding="utf-8")


def markdown(table: Table) -> str:
    """A table in Markdown."""
    lines = [table.header, ["---"] * len(table.header), *table.rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _summary(claims: dict[str, Claim], measured: dict[str, Any]) -> str:
    rows = []
    for name, claim in claims.items():
        result = measured.get(name)
        verdict = result["verdict"] if result else "not measured yet"
        link = f"[{claim.title}](#{_anchor(claim.title)})" if result else claim.title
        rows.append([f"`{name}`", link, f"**{verdict}**"])
    return markdown(Table("", ["claim", "about", "verdict"], rows)) + "\n"


def _section(claim: Claim, result: dict[str, Any]) -> str:
    findings = Findings.from_json(result["findings"])
    parts = [
        f"## {claim.title}",
        f"**Claim.** {claim.statement} ({claim.source})",
        f"**Measured.** {claim.metric}",
        f"**Verdict: {result['verdict']}.** {findings.words[0]}",
        *findings.words[1:],
        *([f"**Changed after something had been seen.** {claim.changes}"] if claim.changes else []),
        _decisive(claim.thresholds, findings.values),
    ]
    for table in findings.tables:
        parts += [f"**{table.title}**", markdown(table)]
    for picture in findings.pictures:
        parts += [f"![{picture.caption}](images/claims/{picture.file})", f"*{picture.caption}*"]
    return "\n\n".join([*parts, _how(claim, result, findings)]) + "\n"


def _decisive(thresholds: tuple[Threshold, ...], values: dict[str, float]) -> str:
    rows = [
        [
            threshold.text,
            f"{threshold.bound}{' (aim)' if threshold.is_aim else ''}",
            f"{values[threshold.value]:.3g}",
            "yes" if threshold.is_reached(values) else "**no**",
        ]
        for threshold in thresholds
    ]
    return markdown(Table("", ["what decides", "bound, set beforehand", "found", "met"], rows))


def _how(claim: Claim, result: dict[str, Any], findings: Findings) -> str:
    settings = ", ".join(f"{name}: {value}" for name, value in findings.settings.items())
    versions = result["versions"]
    return (
        f"`{result['command']}`, {findings.seconds:.0f} s on {versions['cores']} cores, "
        f"torch {versions['torch']}, {result['date']}. {settings}. {_whose(claim, result)}"
        f"All figures: `benchmarks/results/claims/{result['claim']}.json`."
    )


def _whose(claim: Claim, result: dict[str, Any]) -> str:
    """Which weights were measured, and whether these still ship."""
    if not claim.model:
        return ""
    is_current = find(claim.model).fingerprint() == result["weights"]
    others = "" if is_current else ", before those that ship now"
    return f"Weights of {claim.model}: {result['weights']}{others}. "


def _anchor(title: str) -> str:
    kept = [letter for letter in title.lower() if letter.isalnum() or letter in " -"]
    return "".join(kept).replace(" ", "-")
